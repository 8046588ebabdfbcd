"""A schedule as the unit circle: divided by n = √(α² + σ²), every one of them runs along the same quarter of it.

    α/n = cos φ,    σ/n = sin φ,    y = x/n.

The probability-flow ODE, which moves noise to data without noise and has the marginals of the process, is

    dy/dφ = cos φ ε̂ − sin φ x̂_0 = (cos φ y − x̂_0)/sin φ,

bounded over the whole way from noise (φ = π/2, or less where something is left of the data) to data (φ = 0).

Salimans, Ho. Progressive Distillation for Fast Sampling of Diffusion Models. ICLR 2022, appendix D.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from neblina.core.shapes import expand
from neblina.processes.schedules import Schedule


@dataclass(frozen=True)
class Circle:
    """The path of a schedule as an angle φ. Angles and times are float64 tensors of one shape, on the CPU."""

    schedule: Schedule

    def angle(self, t: Tensor) -> Tensor:
        """φ at time t, from 0 to π/2."""
        return torch.atan2(self.schedule.sigma(t), self.schedule.alpha(t))

    def time(self, angle: Tensor) -> Tensor:
        """t at an angle above 0, held within [0, 1]."""
        return self.schedule.time(2 * (angle.cos() / angle.sin()).log()).clamp(0, 1)

    def cleanest(self, ratio: float) -> float:
        """The angle where σ/α is `ratio`; no smaller than at a discrete schedule's first step, where training began."""
        steps = self.schedule.steps
        first = float(self.schedule.ratio(torch.tensor([1 / steps]).double())) if steps else 0.0
        return math.atan(max(ratio, first))

    def velocity(self, y: Tensor, angle: Tensor, belief: Tensor) -> Tensor:
        """dy/dφ at y, shape (B, *), under the mean of a belief of that shape, at angles of shape (B,) above 0."""
        return expand(angle.cos() / angle.sin(), y) * y - expand(1 / angle.sin(), y) * belief
