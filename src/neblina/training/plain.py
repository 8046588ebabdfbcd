"""A run of one process, of one network, with nothing to see on the way: its loss is a function of the step.

A checkpoint holds weights, average, optimiser and the losses since the last log line.
"""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from neblina.training.checkpoint import Checkpoint
from neblina.training.ema import Ema
from neblina.training.learner import Learner, Stored
from neblina.training.optimizers import diverged, load_moments, pace
from neblina.training.recipe import Recipe
from neblina.training.same import check_same_run


class PlainLearner(Learner):
    """What every such run does.

    Attributes:
        net, ema: the network, in training mode on its device, and its average.
        optimizer: of its parameters.
    """

    ema: Ema[Any]

    def __init__(self, recipe: Recipe, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.recipe, self.net, self.optimizer = recipe, net, optimizer
        self.ema = Ema(net, recipe.training.ema)
        self.losses: list[float] = []

    @abstractmethod
    def loss(self, step: int) -> Tensor:
        """What step number `step`, counted from 0, lowers: a scalar."""

    @abstractmethod
    def setting(self) -> dict[str, Any]:
        """What the course of the run depends on beside its recipe."""

    def advance(self) -> None:
        """One optimiser step.

        Raises:
            DivergenceError: its gradient is not finite.
        """
        loss = self.loss(self.step)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.optimizer.clip)
        pace(self.optimizer, self.recipe, self.step)
        self.losses.append(float(loss.detach()))
        self.step += 1
        if not bool(norm.isfinite()):
            raise diverged(self.recipe, self.step)
        self.optimizer.step()
        self.ema.update(self.net, self.step)

    def figures(self) -> dict[str, float]:
        """The mean loss of the steps since the last call."""
        mean = sum(self.losses) / len(self.losses)
        self.losses = []
        return {"loss": mean}

    def stored(self) -> Stored:
        """Its state, for a checkpoint."""
        progress = {"recipe": self.recipe.model_dump(mode="json"), "setting": self.setting(), "losses": self.losses}
        return Stored(self.net, self.ema.net, self.optimizer, progress)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to where a checkpoint was made.

        Raises:
            SettingError: it is of another run; every difference is named.
        """
        check_same_run(checkpoint, self.recipe, self.setting())
        self.net.load_state_dict(checkpoint.net)
        self.ema.net.load_state_dict(checkpoint.ema)
        load_moments(self.optimizer, checkpoint.optimizer)
        self.step, self.losses = checkpoint.step, list(checkpoint.progress["losses"])
