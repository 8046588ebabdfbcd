"""Langevin dynamics: steps that stay at one noise level and move towards its law.

    x ← x + ε ∇ log p_t(x) + √(2ε) z,    ∇ log p_t(x) = (α x̂_0 − x)/σ²

leaves p_t unchanged for small ε only; for a normal law of variance v the variance it settles at is v/(1 − ε/(2v)), so
its bias does not vanish with the number of levels.

Song, Ermon. Generative Modeling by Estimating Gradients of the Data Distribution. NeurIPS 2019, algorithm 1.
Song et al. Score-Based Generative Modeling through SDEs. ICLR 2021, algorithms 2 to 5.
"""

from itertools import pairwise

import torch
from torch import Tensor

from neblina.core.errors import SettingError
from neblina.core.noise import Noise
from neblina.core.plan import Query
from neblina.core.shapes import choose_samples, expand
from neblina.processes.gaussian import GaussianProcess, Large, ratio
from neblina.samplers.registry import Sampling, register


@register(
    "predictor_corrector",
    order=0,
    stochastic=True,
    linear=False,
    bias=(0.03, "the corrector's step does not shrink: its variance settles 1/(1 − snr²) too large"),
    source="Song et al. 2021, algorithms 2 and 4",
)
def predictor_corrector(
    process: GaussianProcess, x: Tensor, times: Tensor, *, snr: float = 0.16, corrections: int = 1, noise: Noise
) -> Sampling:
    """At every noise level Langevin steps, then an ancestral step of the forward step's variance.

    Args:
        x: noisy batch at times[0], shape (B, *).
        times: falling times in [0, 1], shape (N + 1, B).
        snr: r in ε = 2 (r ‖z‖ / ‖∇ log p_t‖)², norms of each sample; on every process, where the paper's algorithm 5
            for VP has a factor α_t²/α_s² besides, near 1.
        corrections: Langevin steps a level.
        noise: drawn from.
    Yields:
        Query(x_t, t), corrections + 1 times a step.
    Returns:
        The batch at times[-1], shape (B, *).
    Raises:
        SettingError: an snr that is not positive, or a negative number of corrections.
    """
    if not snr > 0 or corrections < 0:
        raise SettingError(f"snr ({snr:g}) is positive and corrections ({corrections}) at least 0")
    for t, s in pairwise(times):
        for _ in range(corrections):
            posterior = yield Query(x, t)
            score, z = process.score(x, t, posterior), noise(x)
            shortest = score.new_tensor(1e-12)
            size = 2 * (snr * _norm(z) / torch.maximum(_norm(score), shortest)) ** 2
            # a sample that stands still at its end is not stirred any more
            size = choose_samples(s < t, size, 0.0)
            x = x + size * score + (2 * size).sqrt() * z
        posterior = yield Query(x, t)
        x = process.reverse(x, t, s, posterior, variance=Large()).sample(noise)
    return x


@register(
    "annealed_langevin",
    order=0,
    stochastic=True,
    bias=(0.05, "a finite number of finite steps a level"),
    source="Song, Ermon 2019, algorithm 1, with a last denoising",
)
def annealed_langevin(
    process: GaussianProcess, x: Tensor, times: Tensor, *, step: float = 0.5, corrections: int = 5, noise: Noise
) -> Sampling:
    """Langevin steps at every noise level, nothing in between; at clean data the belief.

    Args:
        x, times, noise: as in `predictor_corrector`.
        step: ε in units of σ².
        corrections: steps a level.
    Raises:
        SettingError: a step that is not positive, or no corrections.
    """
    if not step > 0 or corrections < 1:
        raise SettingError(f"step ({step:g}) is positive and corrections ({corrections}) at least 1")
    schedule = process.schedule
    for t, s in pairwise(times):
        carried = ratio(schedule.alpha(s), schedule.alpha(t))
        clean = schedule.sigma(s) == 0
        moves = s < t
        # from α = 0 there is nothing to scale: the noise of the next level is the whole of x
        carried = torch.where(carried.isfinite(), carried, schedule.sigma(s) / schedule.sigma(t))
        moved = expand(torch.where(moves & ~clean, carried, 1.0), x) * x
        size = torch.where(moves & ~clean, step * schedule.sigma(s) ** 2, 0.0)
        for _ in range(1 if bool(clean.all()) else corrections):
            posterior = yield Query(moved, torch.where(clean, t, s))
            score = process.score(moved, s, posterior)
            walked = moved + expand(size, x) * score + expand((2 * size).sqrt(), x) * noise(x)
            moved = choose_samples(clean & moves, moved, walked)
        x = choose_samples(clean & moves, posterior.mean, moved)
    return x


def _norm(x: Tensor) -> Tensor:
    """Euclidean norm of each sample, shape (B, 1, …, 1)."""
    squares = x.flatten(1).square().sum(1)
    return squares.sqrt().reshape(-1, *(1,) * (x.ndim - 1))
