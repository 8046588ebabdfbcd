"""The simple loss: the squared error of what the network predicts.

    L(x_0) = E_{t, ε} w(t) ‖F(x_t, t) − F*‖² / dim,    x_t = α_t x_0 + σ_t ε,

with the target F* from the row of the parameterisation table that the denoiser reads predictions with. For the row
`score`, F* = −ε/σ = ∇ log q(x_t|x_0) and w = σ², this is denoising score matching.

Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. NeurIPS 2020, eq. 14.
Vincent. A Connection Between Score Matching and Denoising Autoencoders. Neural Computation 2011, section 4.
Song et al. Score-Based Generative Modeling through SDEs. ICLR 2021, eq. 7.
Kingma et al. Variational Diffusion Models. NeurIPS 2021, appendix I.1 (low-discrepancy times).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.posterior import Gaussian
from neblina.core.shapes import expand
from neblina.denoisers.denoiser import NetworkDenoiser
from neblina.denoisers.parameterisations import parameterisations
from neblina.objectives.weightings import Weighting, simple


@dataclass(frozen=True)
class Compared:
    """One look of the network at a batch, and how far off it was.

    Attributes:
        loss: of each sample, shape (B,), float32.
        x: what it saw, shape (B, *).
        prediction: what it said, shape (B, *), float32.
        fraction: of the reverse variance, shape (B, *), float32; None where it learns none.
    """

    loss: Tensor
    x: Tensor
    prediction: Tensor
    fraction: Tensor | None

    def belief(self, denoiser: NetworkDenoiser, t: Tensor) -> Gaussian:
        """What it believes about the clean data; no gradient reaches the network through the mean."""
        row = parameterisations[denoiser.parameterisation]
        mean = row.mean(denoiser.process.schedule, self.x, self.prediction.detach(), t)
        return Gaussian(mean, variance_fraction=self.fraction)


def compare(
    denoiser: NetworkDenoiser,
    x0: Tensor,
    noise: Tensor,
    t: Tensor,
    condition: Condition,
    weighting: Weighting = simple,
) -> Compared:
    """Show the network clean data under noise, both of shape (B, *), at times (B,), and weigh its error."""
    schedule, row = denoiser.process.schedule, parameterisations[denoiser.parameterisation]
    x = denoiser.process.diffuse(x0, noise, t)
    prediction, fraction = denoiser.outputs(x, t, condition)
    prediction = prediction.float()
    error = (prediction - row.target(schedule, x0, noise, t)).square().flatten(1).mean(1)
    loss = expand(weighting(schedule, row, t), error) * error
    return Compared(loss, x, prediction, None if fraction is None else fraction.float())


def spread_uniforms(count: int, generator: torch.Generator) -> Tensor:
    """Numbers uniform in (0, 1), one in each of `count` equal intervals, in random order: shape (count,), float64.

    Each is uniform by itself; together they cover the interval, so a batch sees every noise level.
    """
    offset = torch.rand(1, dtype=torch.float64, generator=generator)
    order = torch.randperm(count, generator=generator)
    return ((order + offset) / count).clamp(1e-9, 1 - 1e-9)
