"""What a run trains: a denoiser, a classifier or a codec, as the one loop sees it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neblina.training.checkpoint import Checkpoint
from neblina.training.posthoc import PowerAverages
from neblina.training.recipe import Recipe


@dataclass(frozen=True)
class Stored:
    """What a checkpoint is made of: all the state there is between two steps.

    Attributes:
        net, ema: the network and its average.
        optimizer: the network's.
        progress: what goes into JSON; the recipe under "recipe" and what else decides the run under "setting".
        state: further tensors by name.
    """

    net: nn.Module
    ema: nn.Module
    optimizer: torch.optim.Optimizer
    progress: Mapping[str, Any]
    state: Mapping[str, Tensor] = field(default_factory=dict)


class Learner(ABC):
    """A network being trained, step by step; everything random in a step is a function of its seed and number.

    Attributes:
        recipe: what is done.
        step: optimiser steps done.
        averages: what snapshots are made of, where the recipe wants them.
        columns: pictures a row of its sample sheets.
        notes: what there is to say before the first step.
        tell: told what it does beside its steps, where that takes a while: what, how much is done, of how much.
    """

    recipe: Recipe
    step: int = 0
    averages: PowerAverages | None = None
    columns: int = 10
    notes: tuple[str, ...] = ()
    tell: Callable[[str, int, int], None] = staticmethod(lambda what, done, count: None)

    @abstractmethod
    def advance(self) -> None:
        """One optimiser step."""

    @abstractmethod
    def figures(self) -> dict[str, Any]:
        """What the log says of the steps since the last call, "loss" among it."""

    @abstractmethod
    def stored(self) -> Stored:
        """Its state, for a checkpoint."""

    @abstractmethod
    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to where a checkpoint was made.

        Raises:
            SettingError: it is of another run; every difference is named.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what was trained, with the averaged weights.

        Raises:
            StorageError: the disk is full or refuses.
        """

    def begin(self, checkpoint: Checkpoint | None) -> None:
        """Begin, where there is a checkpoint from there.

        Raises:
            SettingError: it is of another run.
        """
        if checkpoint is not None:
            self.restore(checkpoint)

    def check(self) -> None:
        """Refuse to go on after a loss or a gradient that is not finite.

        Raises:
            DivergenceError: naming the step.
        """
        return

    def agree(self, stopping: bool) -> bool:
        """Whether to stop, where some process wants to."""
        return stopping

    def wait(self) -> None:
        """For the other processes."""
        return

    def preview(self) -> Tensor | None:
        """Pictures of where it stands, uint8 of shape (N, C, H, W); None where there is nothing to see."""
        return None

    def words(self, figures: Mapping[str, float]) -> str:
        """What a progress line says of the figures beside the loss."""
        return ""
