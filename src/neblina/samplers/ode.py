"""Two-stage methods on the probability-flow ODE.

In a coordinate u along the path, with x/n = a(u) x_0 + b(u) ε for some scale n, the ODE is

    d(x/n)/du = a′(u) x̂_0 + b′(u) ε̂,    ε̂ = (x − α x̂_0)/σ.

| coordinate | n | u | a′ | b′ |
| --- | --- | --- | --- | --- |
| angle | sqrt(α² + σ²) | atan2(σ, α) | −σ/n | α/n |
| ratio | α | σ/α | 0 | 1 |
| line | α + σ | σ/(α + σ) | −1 | 1 |

Euler's step in the ratio is DDIM. The velocity on the angle (v of Salimans and Ho) is bounded over the whole way from
noise to data, where the ODE in σ/α (EDM, algorithm 1) is stiff at both ends: at 20 evaluations the worst error over
targets of std 1 … 0.05 is 3 % there and 12 % here, each on its best log-SNR grid (docs/log.md).

A midpoint in the log-SNR, as an exponential integrator: of the belief (DPM-Solver++) or of the noise (DPM-Solver), the
latter being the midpoint rule in σ/α at the geometric mean.

A step from which or to which the coordinate is infinite is first-order: DDIM. σ/α counts as infinite from 1000 on:
there nothing is left of the data (the cosine schedule begins at 20,000), and a method in σ/α would extrapolate from it.

Karras et al. Elucidating the Design Space of Diffusion-Based Generative Models. NeurIPS 2022, algorithms 1 and 2.
Salimans, Ho. Progressive Distillation for Fast Sampling of Diffusion Models. ICLR 2022, appendix D.
Lu et al. DPM-Solver. NeurIPS 2022, algorithm 1. Lu et al. DPM-Solver++. 2022, algorithm 1 and eq. 18.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from neblina.core.errors import SettingError
from neblina.core.noise import Noise
from neblina.core.plan import Query
from neblina.core.posterior import Gaussian
from neblina.core.shapes import choose_samples, expand
from neblina.processes.gaussian import Eta, GaussianProcess, ratio
from neblina.samplers.registry import Sampling, register

Coefficient = Callable[[Tensor, Tensor], Tensor]

NOISIEST = 1000.0  # σ/α


@dataclass(frozen=True)
class Coordinate:
    """Functions of (α, σ), float64 of shape (B,).

    Attributes:
        scale: n.
        place: u.
        data: a′.
        noise: b′.
    """

    scale: Coefficient
    place: Coefficient
    data: Coefficient
    noise: Coefficient


def _norm(alpha: Tensor, sigma: Tensor) -> Tensor:
    return (alpha**2 + sigma**2).sqrt()


ANGLE = Coordinate(
    scale=_norm,
    place=lambda alpha, sigma: torch.atan2(sigma, alpha),
    data=lambda alpha, sigma: -sigma / _norm(alpha, sigma),
    noise=lambda alpha, sigma: alpha / _norm(alpha, sigma),
)
RATIO = Coordinate(
    scale=lambda alpha, sigma: alpha,
    place=lambda alpha, sigma: torch.where(sigma > NOISIEST * alpha, torch.inf, sigma / alpha),
    data=lambda alpha, sigma: torch.zeros_like(alpha),
    noise=lambda alpha, sigma: torch.ones_like(alpha),
)
LINE = Coordinate(
    scale=lambda alpha, sigma: alpha + sigma,
    place=lambda alpha, sigma: sigma / (alpha + sigma),
    data=lambda alpha, sigma: -torch.ones_like(alpha),
    noise=lambda alpha, sigma: torch.ones_like(alpha),
)


@register("heun", order=2, source="Karras et al. 2022, algorithm 1, on the angle")
def heun(process: GaussianProcess, x: Tensor, times: Tensor, *, noise: Noise) -> Sampling:
    """Heun's method on the angle: two evaluations a step, one in a step to clean data.

    Args:
        x: noisy batch at times[0], shape (B, *).
        times: falling times in [0, 1], shape (N + 1, B).
        noise: not drawn from.
    Yields:
        Query(x_t, t), then Query(x_s, s) where the Euler step leads.
    Returns:
        The batch at times[-1], shape (B, *).
    """
    for t, s in pairwise(times):
        x = yield from heun_step(process, ANGLE, x, t, s)
    return x


@register("heun_edm", order=2, source="Karras et al. 2022, algorithm 1")
def heun_edm(process: GaussianProcess, x: Tensor, times: Tensor, *, noise: Noise) -> Sampling:
    """Heun's method in σ/α, as published with EDM; arguments of `heun`."""
    for t, s in pairwise(times):
        x = yield from heun_step(process, RATIO, x, t, s)
    return x


@register("heun_flow", order=2, grid="log_snr_short", source="Lipman et al. 2023, eq. 7, by Heun's method")
def heun_flow(process: GaussianProcess, x: Tensor, times: Tensor, *, noise: Noise) -> Sampling:
    """Heun's method in the time of straight lines, σ/(α + σ); arguments of `heun`."""
    for t, s in pairwise(times):
        x = yield from heun_step(process, LINE, x, t, s)
    return x


@register("edm_stochastic", order=2, stochastic=True, source="Karras et al. 2022, algorithm 2, without noise inflation")
def edm_stochastic(
    process: GaussianProcess,
    x: Tensor,
    times: Tensor,
    *,
    churn: float = 10.0,
    churn_min: float = 0.05,
    churn_max: float = 50.0,
    churn_noise: float = 1.0,
    noise: Noise,
) -> Sampling:
    """Add a little noise before every step of Heun's method in σ/α; arguments of `heun`.

    Args:
        churn: S_churn: a step at σ/α = k begins at k (1 + min(S_churn/N, √2 − 1)), and never before t = 1.
        churn_min, churn_max: S_tmin and S_tmax, the range of k where it does so.
        churn_noise: S_noise, what the standard deviation of the added noise is multiplied with; only 1 keeps the law.
    Raises:
        SettingError: negative churn, or a range of k that is none.
    """
    if not churn >= 0 or not 0 <= churn_min < churn_max or not churn_noise > 0:
        raise SettingError(
            "edm_stochastic needs churn >= 0, 0 <= churn_min < churn_max and churn_noise > 0, not "
            f"{churn:g}, {churn_min:g}, {churn_max:g} and {churn_noise:g}"
        )
    steps = (times[1:] < times[:-1]).sum(0).clamp(min=1)  # a sample that stands still is not on its way
    growth = 1 + (churn / steps.double()).clamp(max=2**0.5 - 1)
    noisiest = RATIO.place(*_path(process, torch.ones_like(times[0])))
    for t, s in pairwise(times):
        k = RATIO.place(*_path(process, t))
        churned = torch.minimum(k * growth, noisiest)
        inside = (k >= churn_min) & (k <= churn_max) & (churned > k) & (s < t)
        begin = torch.where(inside, process.schedule.time(-2 * churned.log()), t)
        added = process.forward(x, t, begin)
        x = added.mean + churn_noise * (added.sample(noise) - added.mean)
        x = yield from heun_step(process, RATIO, x, begin, s)
    return x


def heun_step(process: GaussianProcess, coordinate: Coordinate, x: Tensor, t: Tensor, s: Tensor) -> Sampling:
    """One step from t to s, shape (B,), by Heun's method in a coordinate; returns the batch at s."""
    here = yield Query(x, t)
    first = process.reverse(x, t, s, here, variance=Eta(0.0)).mean
    (alpha_t, sigma_t), (alpha_s, sigma_s) = _path(process, t), _path(process, s)
    way = coordinate.place(alpha_s, sigma_s) - coordinate.place(alpha_t, sigma_t)
    second_order = (sigma_s > 0) & way.isfinite()
    if not bool(second_order.any()):
        return first
    scale = coordinate.scale(alpha_s, sigma_s)
    of_x, of_belief = _velocity(coordinate, alpha_t, sigma_t)
    # coefficients are combined in float64 first: in σ/α they cancel to DDIM's
    carried = ratio(scale, coordinate.scale(alpha_t, sigma_t)) + scale * way * of_x
    euler = _masked(carried, second_order, x) * x + _masked(scale * way * of_belief, second_order, x) * here.mean
    euler = choose_samples(second_order, euler, first)
    there = yield Query(euler, s)
    x_later, belief_later = _velocity(coordinate, alpha_s, sigma_s)
    change = _masked(x_later, second_order, x) * euler + _masked(belief_later, second_order, x) * there.mean
    change = change - _masked(of_x, second_order, x) * x - _masked(of_belief, second_order, x) * here.mean
    return choose_samples(second_order, euler + _masked(scale * way / 2, second_order, x) * change, first)


@register("dpm2", order=2, grid="log_snr_inner", source="Lu et al. 2022a, algorithm 1, as in k-diffusion")
@register(
    "dpm2_ancestral",
    order=2,
    stochastic=True,
    grid="log_snr_inner",
    source="Lu et al. 2022a, algorithm 1, as in k-diffusion",
    eta=1.0,
)
def dpm2(process: GaussianProcess, x: Tensor, times: Tensor, *, eta: float = 0.0, noise: Noise) -> Sampling:
    """DPM-Solver-2: the noise at the middle of the step in log-SNR; arguments of `heun`.

    Args:
        eta: 0 deterministic; 1 steps down to where ancestral sampling adds its noise from.
    """
    variance = Eta(eta)
    for t, s in pairwise(times):
        here = yield Query(x, t)
        alpha_t, sigma_t = _path(process, t)
        alpha_s, sigma_s = _path(process, s)
        down = (sigma_s**2 - eta**2 * process.true_variance(t, s)).clamp(min=0).sqrt()
        middle, inside = _middle(process, t, s, 2 * (alpha_s / down).log())
        belief = here.mean
        if bool(inside.any()):
            halfway = process.reverse(x, t, middle, here, variance=Eta(0.0)).mean
            there = yield Query(halfway, middle)
            # x̂_0 that points from x where the noise at the middle does: x̂_0 = (x − σ_t ε̂_m)/α_t
            noisy = process.implied_noise(halfway, middle, there)
            moved = _masked(1 / alpha_t, inside, x) * (x - expand(sigma_t, x) * noisy)
            belief = choose_samples(inside, moved, belief)
        x = process.reverse(x, t, s, Gaussian(belief), variance).sample(noise)
    return x


@register("dpmpp_2s", order=2, source="Lu et al. 2022b, algorithm 1 with r = 1/2")
@register("dpmpp_sde", order=2, stochastic=True, source="Lu et al. 2022b, eq. 18, as in k-diffusion", eta=1.0)
def dpmpp_2s(process: GaussianProcess, x: Tensor, times: Tensor, *, eta: float = 0.0, noise: Noise) -> Sampling:
    """DPM-Solver++(2S): the belief at the middle of the step in log-SNR; arguments of `heun`.

    Args:
        eta: 0 deterministic; 1 the reverse SDE, its noise from one Brownian path.
    """
    variance = Eta(eta)
    for t, s in pairwise(times):
        here = yield Query(x, t)
        middle, inside = _middle(process, t, s, process.schedule.log_snr(s))
        belief = here.mean
        if bool(inside.any()):
            halfway = process.reverse(x, t, middle, here, variance)
            there = yield Query(halfway.sample(path_noise(process, noise, t, middle)), middle)
            belief = choose_samples(inside, there.mean, belief)
        step = process.reverse(x, t, s, Gaussian(belief), variance)
        x = step.sample(path_noise(process, noise, t, s))
    return x


def path_noise(process: GaussianProcess, noise: Noise, t: Tensor, s: Tensor) -> Callable[[Tensor], Tensor]:
    """Noise of the Brownian path between t and s <= t, on a clock that runs evenly in the log-SNR where it matters."""

    def clock(time: Tensor) -> Tensor:
        return torch.sigmoid(-process.schedule.log_snr(time) / 4)

    return lambda like: noise.between(like, clock(s), clock(t))


def _middle(process: GaussianProcess, t: Tensor, s: Tensor, log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """The time halfway in log-SNR from t to where it is `log_snr`, and for whom there is one; s for the others."""
    begin = process.schedule.log_snr(t)
    halfway = (begin + log_snr) / 2
    inside = halfway.isfinite() & (begin > -2 * math.log(NOISIEST)) & (s < t)
    return torch.where(inside, process.schedule.time(torch.where(inside, halfway, 0.0)), s), inside


def _path(process: GaussianProcess, t: Tensor) -> tuple[Tensor, Tensor]:
    return process.schedule.alpha(t), process.schedule.sigma(t)


def _velocity(coordinate: Coordinate, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """d(x/n)/du as coefficients of x and of x̂_0."""
    noise = coordinate.noise(alpha, sigma)
    return noise / sigma, coordinate.data(alpha, sigma) - noise * alpha / sigma


def _masked(values: Tensor, mask: Tensor, x: Tensor) -> Tensor:
    """Coefficients where the mask holds, else 0: an infinite one must not meet the batch."""
    return expand(torch.where(mask, values, 0.0), x)
