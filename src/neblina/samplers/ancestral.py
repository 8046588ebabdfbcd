"""Ancestral and implicit sampling: DDPM and DDIM are one update.

A step from time t to an earlier time s moves to

    x_s = α_s x̂_0 + sqrt(σ_s² − η² σ̃²) ε̂ + η σ̃ z,    σ̃² = (σ_s² / σ_t²) (σ_t² − (α_t / α_s)² σ_s²)

with x̂_0 the posterior mean, ε̂ = (x_t − α_t x̂_0) / σ_t and z standard normal. η = 0 is deterministic (DDIM), η = 1 is
ancestral (DDPM).

Euler's method on the probability-flow ODE in x/α against σ/α, dx̄/dk = (x̄ − x̂_0)/k, gives x̄_s = x̂_0 + (k_s/k_t)
(x̄_t − x̂_0): DDIM with η = 0, for every schedule, the straight-line flow included. Euler-ancestral is η = 1.

Song, Meng, Ermon. Denoising Diffusion Implicit Models. ICLR 2021, eq. 12 and 16.
Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. NeurIPS 2020, eq. 6 and 7, and section 3.2 (large variance).
"""

from itertools import pairwise

from torch import Tensor

from neblina.core.noise import Noise
from neblina.core.plan import Query
from neblina.processes.gaussian import Eta, GaussianProcess, Large
from neblina.samplers.registry import Sampling, register


@register("ddim", "euler", "dpmpp_1", order=1, source="Song, Meng, Ermon 2021, eq. 12")
@register("ddpm", "euler_ancestral", order=1, stochastic=True, source="Ho et al. 2020, eq. 7, small variance", eta=1.0)
def ddim(process: GaussianProcess, x: Tensor, times: Tensor, *, eta: float = 0.0, noise: Noise) -> Sampling:
    """Walk from noise to data.

    Args:
        x: noisy batch at times[0], shape (B, *).
        times: falling times in [0, 1], shape (N + 1, B).
        eta: 0 deterministic … 1 ancestral.
    Yields:
        Query(x_t, t): where the denoiser's posterior is wanted.
    Returns:
        The batch at times[-1], shape (B, *).
    """
    for t, s in pairwise(times):
        posterior = yield Query(x, t)
        x = process.reverse(x, t, s, posterior, variance=Eta(eta)).sample(noise)
    return x


@register("ddpm_large", order=1, stochastic=True, source="Ho et al. 2020, section 3.2, large variance")
def ddpm_large(process: GaussianProcess, x: Tensor, times: Tensor, *, noise: Noise) -> Sampling:
    """Ancestral sampling with the larger of DDPM's two fixed variances, the forward step's own; arguments of `ddim`."""
    for t, s in pairwise(times):
        posterior = yield Query(x, t)
        x = process.reverse(x, t, s, posterior, variance=Large()).sample(noise)
    return x
