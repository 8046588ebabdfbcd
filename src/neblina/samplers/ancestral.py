"""Ancestral and implicit sampling: DDPM and DDIM are one update.

A step from time t to an earlier time s moves to

    x_s = α_s x̂_0 + sqrt(σ_s² − η² σ̃²) ε̂ + η σ̃ z,    σ̃² = (σ_s² / σ_t²) (σ_t² − (α_t / α_s)² σ_s²)

with x̂_0 the posterior mean, ε̂ = (x_t − α_t x̂_0) / σ_t and z standard normal. η = 0 is deterministic (DDIM), η = 1 is
ancestral (DDPM).

Euler's method on the probability-flow ODE in x/α against σ/α, dx̄/dk = (x̄ − x̂_0)/k, gives x̄_s = x̂_0 + (k_s/k_t)
(x̄_t − x̂_0): DDIM with η = 0, for every schedule, the straight-line flow included. Euler-ancestral is η = 1.

Song, Meng, Ermon. Denoising Diffusion Implicit Models. ICLR 2021, eq. 12 and 16.
Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. NeurIPS 2020, eq. 6 and 7, and section 3.2 (large variance).
Nichol, Dhariwal. Improved Denoising Diffusion Probabilistic Models. ICML 2021, eq. 15 (learned variance).
Mokady et al. Null-text Inversion for Editing Real Images. CVPR 2023, section 3.2 (DDIM inversion).
"""

from itertools import pairwise

from torch import Tensor

from neblina.core.errors import SettingError
from neblina.core.noise import Noise
from neblina.core.plan import Query
from neblina.core.shapes import choose_samples, expand
from neblina.processes.gaussian import Eta, GaussianProcess, Large, Learned, Variance, ratio
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
    return (yield from _walk(process, x, times, Eta(eta), noise))


@register("ddpm_large", order=1, stochastic=True, source="Ho et al. 2020, section 3.2, large variance")
def ddpm_large(process: GaussianProcess, x: Tensor, times: Tensor, *, noise: Noise) -> Sampling:
    """Ancestral sampling with the larger of DDPM's two fixed variances, the forward step's own; arguments of `ddim`."""
    return (yield from _walk(process, x, times, Large(), noise))


@register("ddpm_learned", order=1, stochastic=True, learned_variance=True, source="Nichol, Dhariwal 2021, eq. 15")
def ddpm_learned(process: GaussianProcess, x: Tensor, times: Tensor, *, noise: Noise) -> Sampling:
    """Ancestral sampling with the variance that the network learned; arguments of `ddim`."""
    return (yield from _walk(process, x, times, Learned(), noise))


def _walk(process: GaussianProcess, x: Tensor, times: Tensor, variance: Variance, noise: Noise) -> Sampling:
    for t, s in pairwise(times):
        posterior = yield Query(x, t)
        x = process.reverse(x, t, s, posterior, variance).sample(noise)
    return x


def ddim_invert(process: GaussianProcess, x: Tensor, times: Tensor, *, iterations: int = 1) -> Sampling:
    """The noise that DDIM (η = 0) would have come from: walk from data to noise.

    A step of DDIM from t to s is undone by x_t = (α_t/α_s) x_s + (σ_t − σ_s α_t/α_s) ε̂(x_t, t), which x_t is on both
    sides of. One iteration evaluates ε̂ at (α_t/α_s) x_s, as is usual; more of them converge to the exact inverse.

    Args:
        x: batch at times[0], shape (B, *).
        times: rising times in [0, 1], shape (N + 1, B) or (N + 1,).
        iterations: evaluations a step, at least 1.
    Yields:
        Query(guess of x_t, t).
    Returns:
        The batch at times[-1], shape (B, *).
    Raises:
        SettingError: times that fall or leave [0, 1], or no iteration.
    """
    times = times.double().cpu()
    if times.ndim == 1:
        times = times[:, None].expand(-1, len(x))
    if not bool((times.diff(dim=0) >= 0).all() & (times >= 0).all() & (times <= 1).all()):
        raise SettingError("inversion walks from data to noise: its times rise from at least 0 to at most 1")
    if iterations < 1:
        raise SettingError(f"inversion takes at least 1 iteration a step, not {iterations}")
    for s, t in pairwise(times):
        alpha, sigma = process.schedule.alpha(t), process.schedule.sigma(t)
        carried = ratio(alpha, process.schedule.alpha(s))
        start = expand(carried, x) * x
        guess = start
        for _ in range(iterations):
            posterior = yield Query(guess, t)
            direction = process.implied_noise(guess, t, posterior)
            guess = start + expand(sigma - process.schedule.sigma(s) * carried, x) * direction
        x = choose_samples(t > s, guess, x)
    return x
