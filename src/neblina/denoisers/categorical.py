"""A network of tokens becomes a denoiser: its logits are a belief about every token's clean class."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from neblina.core.conditions import Condition, Wants
from neblina.core.errors import DataError
from neblina.core.posterior import Categorical
from neblina.denoisers.denoiser import known_labels
from neblina.processes.discrete import DiscreteProcess


@dataclass(frozen=True)
class CategoricalDenoiser:
    """A network with what is needed to read its answer.

    Attributes:
        net: called as net(x, time, **condition) with tokens x, int64 of shape (B, N), and one time a sample; returns
            logits of the classes, shape (B, N, K).
        process: the process it was trained on.
        clock_steps: T of a network that is told the zero-based number of the step, T t − 1; None for one that is told
            1000 t.
        num_classes: labels 0 … num_classes − 1 are classes; 0 for an unconditional network.
        null_label: the label that means "no class" to the network; None if it never learned one.
        wants: what else it is conditioned on.
    """

    net: nn.Module
    process: DiscreteProcess
    clock_steps: int | None = None
    num_classes: int = 0
    null_label: int | None = None
    wants: Wants = field(default_factory=Wants)

    def posterior(self, x: Tensor, t: Tensor, condition: Condition) -> Categorical:
        """The belief about the clean tokens behind x, int64 of shape (B, *), at times t, shape (B,).

        Raises:
            SettingError: the condition does not fit the network.
            DataError: a token that is no state of the process.
        """
        self.check(condition)
        states = self.process.kernel.states
        wrong = x[(x < 0) | (x >= states)]
        if len(wrong):
            raise DataError(f"token {int(wrong[0])} is no state of this model's process: they are 0 … {states - 1}")
        dtype = next((parameter.dtype for parameter in self.net.parameters()), torch.float32)
        given = {
            name: value.to(x.device, value.dtype if name == "labels" else dtype, non_blocking=True)
            for name, value in {**condition.given, "labels": self.labels(condition)}.items()
            if value is not None
        }
        logits: Tensor = self.net(x.flatten(1), self.net_time(t).to(x.device), **given)
        return Categorical(logits.float().log_softmax(-1).reshape(*x.shape, -1))

    def net_time(self, t: Tensor) -> Tensor:
        """What the network is told of times t, shape (B,), float32."""
        return (1000 * t if self.clock_steps is None else (self.clock_steps * t - 1).clamp(min=0)).float()

    def check(self, condition: Condition) -> None:
        """Refuse a condition that does not fit the network.

        Raises:
            SettingError: as `labels`; or something else is missing, not wanted, or of another width.
        """
        self.wants.check(condition)
        self.labels(condition)

    def labels(self, condition: Condition) -> Tensor | None:
        """The labels as the network knows them; errors of `known_labels`."""
        return known_labels(condition.labels, self.num_classes, self.null_label)
