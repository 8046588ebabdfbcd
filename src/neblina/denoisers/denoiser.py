"""A network becomes a denoiser: the one place where its prediction is converted to a posterior."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from neblina.core.conditions import NULL_LABEL, Condition, Wants
from neblina.core.errors import SettingError
from neblina.core.posterior import Gaussian
from neblina.core.shapes import expand
from neblina.denoisers.parameterisations import Clock, clocks, default_clock, parameterisations
from neblina.processes.gaussian import GaussianProcess


@dataclass(frozen=True)
class NetworkDenoiser:
    """A network with what is needed to read its answer.

    Attributes:
        net: called as net(x, time, **condition), the fields that are given by their names, with the maps of `spatial`
            joined to x; returns the prediction, shape of x.
        process: the process it was trained on.
        parameterisation: what it predicts, a name in the table.
        clock: how it is told the time, a name in the table or a function; None for the default of the parameterisation
            and the schedule.
        num_classes: labels 0 … num_classes − 1 are classes; 0 for an unconditional network.
        null_label: the label that means "no class" to the network; None if it never learned one.
        learned_variance: whether the second half of its channels says where the reverse variance lies, from −1 for
            the true posterior's to 1 for the forward step's (Nichol, Dhariwal 2021, eq. 15).
        wants: what else it is conditioned on.
    """

    net: nn.Module
    process: GaussianProcess
    parameterisation: str
    clock: str | Clock | None = None
    num_classes: int = 0
    null_label: int | None = None
    learned_variance: bool = False
    wants: Wants = field(default_factory=Wants)

    def posterior(self, x: Tensor, t: Tensor, condition: Condition) -> Gaussian:
        """The belief about the clean data behind x, shape (B, *), at times t, shape (B,).

        Raises:
            SettingError: the condition does not fit the network.
        """
        prediction, fraction = self.outputs(x, t, condition)
        row = parameterisations[self.parameterisation]
        mean = row.mean(self.process.schedule, x, prediction.to(x.dtype), t)
        return Gaussian(mean, variance_fraction=None if fraction is None else fraction.to(x.dtype))

    def predict(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The network's own prediction F, shape (B, *), in the network's dtype."""
        return self.outputs(x, t, condition)[0]

    def outputs(self, x: Tensor, t: Tensor, condition: Condition) -> tuple[Tensor, Tensor | None]:
        """The prediction F and, of a network that learned it, the variance fraction: both of shape (B, *)."""
        schedule, row = self.process.schedule, parameterisations[self.parameterisation]
        scale = row.scale(schedule.alpha(t), schedule.sigma(t))
        dtype = next((parameter.dtype for parameter in self.net.parameters()), x.dtype)
        scaled = (expand(scale, x) * x).to(dtype)
        time = self.read_clock(schedule, t).to(x.device, torch.float32, non_blocking=True)
        self.wants.check(condition)
        given = {
            # half precision would round the numbers about sizes
            name: value.to(x.device, value.dtype if name in ("labels", "sizes") else dtype, non_blocking=True)
            for name, value in {**condition.given, "labels": self.labels(condition)}.items()
            if value is not None
        }
        maps = given.pop("spatial", None)
        prediction: Tensor = self.net(scaled if maps is None else torch.cat([scaled, maps], dim=1), time, **given)
        if not self.learned_variance:
            return prediction, None
        prediction, raw = prediction.chunk(2, dim=1)
        return prediction, (raw + 1) / 2

    @property
    def read_clock(self) -> Clock:
        """The clock as a function."""
        if callable(self.clock):
            return self.clock
        row = parameterisations[self.parameterisation]
        return clocks[self.clock or default_clock(row, self.process.schedule)]

    def check(self, condition: Condition) -> None:
        """Refuse a condition that does not fit the network.

        Raises:
            SettingError: as `labels`; or something else is missing, not wanted, or of another width.
        """
        self.wants.check(condition)
        self.labels(condition)

    def labels(self, condition: Condition) -> Tensor | None:
        """The labels as the network knows them, with its own null; errors of `known_labels`."""
        return known_labels(condition.labels, self.num_classes, self.null_label)


def known_labels(labels: Tensor | None, num_classes: int, null_label: int | None) -> Tensor | None:
    """Labels as a network knows them, with its own null; None for an unconditional network.

    Raises:
        SettingError: labels for an unconditional network or none for a conditional one; a label out of range; the null
            where the network never learned one.
    """
    if num_classes == 0:
        if labels is None or bool((labels == NULL_LABEL).all()):
            return None
        raise SettingError("this model is unconditional: it takes no labels")
    if labels is None:
        raise SettingError(f"this model is conditioned on labels 0 … {num_classes - 1}: say which")
    out = labels[(labels < NULL_LABEL) | (labels >= num_classes)]
    if len(out):
        raise SettingError(f"label {int(out[0])} is out of range: this model knows 0 … {num_classes - 1}")
    if null_label is None:
        if bool((labels == NULL_LABEL).any()):
            raise SettingError("this model never learned to go without a label: train with label_dropout > 0")
        return labels
    return torch.where(labels == NULL_LABEL, null_label, labels)
