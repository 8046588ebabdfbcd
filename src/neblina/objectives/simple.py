"""The simple loss: the squared error of what the network predicts.

    L(x_0) = E_{t, ε} w(t) ‖F(x_t, t) − F*‖² / dim,    x_t = α_t x_0 + σ_t ε,

with the target F* from the row of the parameterisation table that the denoiser reads predictions with.

Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. NeurIPS 2020, eq. 14.
Kingma et al. Variational Diffusion Models. NeurIPS 2021, appendix I.1 (low-discrepancy times).
"""

import torch
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.shapes import expand
from neblina.denoisers.denoiser import NetworkDenoiser
from neblina.denoisers.parameterisations import parameterisations


def simple_loss(denoiser: NetworkDenoiser, x0: Tensor, noise: Tensor, t: Tensor, condition: Condition) -> Tensor:
    """The loss of each sample, shape (B,), float32, for clean data and noise of shape (B, *) and times (B,)."""
    schedule, row = denoiser.process.schedule, parameterisations[denoiser.parameterisation]
    prediction = denoiser.predict(denoiser.process.diffuse(x0, noise, t), t, condition).float()
    error = (prediction - row.target(schedule, x0, noise, t)).square().flatten(1).mean(1)
    return expand(row.weight(schedule.alpha(t), schedule.sigma(t)), error) * error


def spread_uniforms(count: int, generator: torch.Generator) -> Tensor:
    """Numbers uniform in (0, 1), one in each of `count` equal intervals, in random order: shape (count,), float64.

    Each is uniform by itself; together they cover the interval, so a batch sees every noise level.
    """
    offset = torch.rand(1, dtype=torch.float64, generator=generator)
    order = torch.randperm(count, generator=generator)
    return ((order + offset) / count).clamp(1e-9, 1 - 1e-9)
