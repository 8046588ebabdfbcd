"""The hybrid loss: L_simple + λ L_vlb, which also teaches the network how wide its reverse steps are.

    L_vlb = Σ_n L_n = T E_n[L_n],    L_n = KL( q(x_{n−1}|x_n, x_0) ‖ p(x_{n−1}|x_n) ),    L_1 = −log p(x_0|x_1),

in bits per dimension, n uniform in 1 … T. The mean in L_vlb is held: its gradient reaches the network through L_simple
alone, and that of L_vlb through the variance alone. λ = 0.001, so with T = 1000 the term counts in bits per dimension.

Nichol, Dhariwal. Improved Denoising Diffusion Probabilistic Models. ICML 2021, eq. 4 to 7, 15 and 16.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.errors import SettingError
from neblina.core.shapes import choose_samples
from neblina.denoisers.denoiser import NetworkDenoiser
from neblina.objectives.simple import Compared, compare
from neblina.objectives.variational import decoder, step_term, surprise
from neblina.objectives.weightings import Weighting, simple
from neblina.processes.gaussian import Learned
from neblina.processes.schedules import Schedule


@dataclass(frozen=True)
class Objective:
    """What a training step minimises.

    Attributes:
        weighting: of the squared error.
        vlb_weight: λ, 0 for the simple loss alone.
    """

    weighting: Weighting = simple
    vlb_weight: float = 0.0

    def __call__(
        self, denoiser: NetworkDenoiser, x0: Tensor, noise: Tensor, t: Tensor, condition: Condition
    ) -> Compared:
        """The loss of clean data and noise, shape (B, *), at times (B,)."""
        compared = compare(denoiser, x0, noise, t, condition, self.weighting)
        if not self.vlb_weight:
            return compared
        bits = variance_loss(denoiser, compared, x0, t)
        return replace(compared, loss=compared.loss + self.vlb_weight * bits)


def variance_loss(denoiser: NetworkDenoiser, compared: Compared, x0: Tensor, t: Tensor) -> Tensor:
    """T L_n in bits per dimension, shape (B,), at times n/T of a discrete schedule; only the variance has a gradient.

    Raises:
        SettingError: a schedule without steps, or a network that learns no variance.
    """
    process = denoiser.process
    steps = check_hybrid(process.schedule)
    belief = compared.belief(denoiser, t)
    first = t < 1.5 / steps
    # rows of the first step are sent through the second, and the other way round, so that all are finite
    later = torch.where(first, 2 / steps, t)
    divergence = step_term(process, x0, compared.x, later, later - 1 / steps, belief, Learned())
    near = replace(belief, mean=choose_samples(first, belief.mean, x0))
    decoded = decoder(process, torch.full_like(t, 1 / steps), torch.full_like(t, 2 / steps), near, Learned())
    nats = torch.where(first.to(x0.device), surprise(x0, decoded), divergence)
    return steps * nats / (math.log(2) * x0[0].numel())


def check_hybrid(schedule: Schedule) -> int:
    """T of a schedule that the hybrid loss can be of.

    Raises:
        SettingError: the schedule has no steps.
    """
    if schedule.steps is None:
        raise SettingError(
            f"the hybrid loss counts the steps of a discrete schedule, and {schedule.name} has none; "
            "take cosine or linear, or objective.loss simple"
        )
    return schedule.steps
