"""Bits per dimension of one batch of pictures, two ways.

A picture is D whole numbers in 0 … 255. A model of real numbers gives it a probability in two ways:

1. **The bound.** −log₂ P(x) <= prior + steps + reconstruction (`objectives.variational`), where the last step is a
   decoder of levels. It is of the model that samples with ancestral steps along the same grid of times.
2. **The ODE.** With u uniform on [0, 1)^D and z = (x + u − ½)/127.5 − 1, which spreads a level over an interval around
   the place that training gives it, P(x) = ∫ p(z) dz, so by Jensen's inequality

       −log₂ P(x) <= E_u[ −log₂ p(z) ] + D log₂ 127.5,

   p being the density of the probability-flow ODE (`objectives.likelihood`). The (x + u)/128 − 1 of papers has the
   constant log₂ 128 = 7, and suits models that were trained on it.

Divided by D, both bound from above what the model needs as a compressor; they are of two models that share a network.
Each picture's randomness is its own (seed and number), so its values depend on no batch.

Theis, van den Oord, Bethge. A note on the evaluation of generative models. ICLR 2016, eq. 4 to 6 (dequantisation).
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.noise import SampleNoise
from neblina.core.plan import Denoiser, conditional
from neblina.data.pictures import to_float
from neblina.objectives.likelihood import flow_density
from neblina.objectives.stratified import estimated_terms
from neblina.processes.draws import uniforms
from neblina.processes.gaussian import GaussianProcess, Variance

SCALE_BITS = math.log2(127.5)
_NATS_IN_A_BIT = math.log(2)

OnShare = Callable[[float], None]


def dequantised(pixels: Tensor, uniform: Tensor) -> Tensor:
    """uint8 pictures, spread over their levels by numbers in [0, 1), of the same shape: float32 around [−1, 1]."""
    return (pixels + uniform.float() - 0.5) / 127.5 - 1


def bound_bits(
    denoiser: Denoiser,
    process: GaussianProcess,
    pixels: Tensor,
    condition: Condition,
    times: Tensor,
    terms: int,
    *,
    variances: Sequence[Variance],
    noise: SampleNoise,
    device: torch.device,
    on_share: OnShare,
) -> Tensor:
    """The terms of the bound in bits per dimension, shape (B, variances, terms + 2), float64 on the CPU.

    Args:
        pixels: uint8, shape (B, C, H, W).
        times: of the bound.
        terms: how many of its steps are evaluated, one a stratum.
        noise: of these pictures, before its first draw.
        on_share: told the share that is done.
    """
    uniform = uniforms(noise, torch.empty(len(pixels), terms))
    x0 = to_float(pixels).to(device)
    columns: list[Tensor] = []
    plan = conditional(denoiser, condition)
    for row in estimated_terms(process, plan, x0, times, uniform, variances=variances, noise=noise):
        columns.append(torch.stack([term.bits_per_dim.cpu().double() for term in row], 1))
        on_share(len(columns) / (terms + 2))
    return torch.stack(columns, 2)


def ode_bits(
    denoiser: Denoiser,
    process: GaussianProcess,
    pixels: Tensor,
    condition: Condition,
    *,
    tolerance: float,
    noise: SampleNoise,
    device: torch.device,
    on_share: OnShare,
) -> tuple[Tensor, Tensor]:
    """Bits per dimension of each picture, shape (B,), float64 on the CPU, and the evaluations it took, shape (B,).

    Args:
        pixels: uint8, shape (B, C, H, W).
        tolerance: of the integration.
        noise: of these pictures, before its first draw.
        on_share: told the share that is done.
    Raises:
        DivergenceError: the ODE cannot be followed.
    """
    like = torch.empty(pixels.shape)
    x = dequantised(pixels, uniforms(noise, like)).to(device)
    probe = torch.where(noise(like) < 0, -1.0, 1.0).to(device)
    density = flow_density(denoiser, process, x, condition, probe, tolerance=tolerance, on_share=on_share)
    dimensions = pixels[0].numel()
    return -density.log_density / (dimensions * _NATS_IN_A_BIT) + SCALE_BITS, density.evaluations
