"""Multistep methods: one evaluation a step, and what earlier steps were told.

With y a clock of the noise level, the probability-flow ODE has two exact forms (λ the log-SNR, k = σ/α):

    x_s/σ_s = x_t/σ_t + ∫ e^y x̂_0 dy,  y = λ/2        x_s/α_s = x_t/α_t + ∫ ε̂ dk.

Adams and Bashforth put the polynomial through the last m values in place of x̂_0 or ε̂ and integrate it, exactly:

| name | polynomial of | in | m |
| --- | --- | --- | --- |
| dpmpp_3m | x̂_0 | λ | 3 |
| deis | ε̂ | λ | 3 |
| lms | ε̂ | k | 4 |

Either way the step is that of DDIM with another belief: D = x̂_0 + Σ_j w_j (x̂_0^(j) − x̂_0), or, since ε̂ = (x − α x̂_0)/σ,
D = x̂_0 − k_t Σ_j w_j (ε̂^(j) − ε̂). Weights are computed by quadrature of Lagrange's polynomials, in float64.
DPM-Solver++(2M) rounds the weight of its second value to h/(2 h′); PLMS uses the weights of equal steps.

The first steps have fewer values to look back on, and a step to or from an infinite clock has none: it is DDIM.

Lu et al. DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models. 2022, algorithm 2.
Zhang, Chen. Fast Sampling of Diffusion Models with Exponential Integrator. ICLR 2023, eq. 14 and 15 (DEIS).
Liu et al. Pseudo Numerical Methods for Diffusion Models on Manifolds. ICLR 2022, eq. 11 to 13 (PNDM, PLMS).
Crowson. k-diffusion. 2022 (LMS).
"""

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from neblina.core.errors import SettingError
from neblina.core.noise import Noise
from neblina.core.plan import Query
from neblina.core.posterior import Gaussian
from neblina.core.shapes import choose_samples, expand
from neblina.processes.gaussian import Eta, GaussianProcess
from neblina.samplers.ode import NOISIEST, path_noise
from neblina.samplers.registry import Sampling, register


@register("dpmpp_2m", order=2, source="Lu et al. 2022b, algorithm 2")
@register("dpmpp_2m_sde", order=2, stochastic=True, source="Lu et al. 2022b, eq. 19, as in k-diffusion", eta=1.0)
def dpmpp_2m(
    process: GaussianProcess,
    x: Tensor,
    times: Tensor,
    *,
    eta: float = 0.0,
    lower_order_final: bool = False,
    noise: Noise,
) -> Sampling:
    """DPM-Solver++(2M).

    With h = ½ (λ_s − λ_t) the step and h′ the one before, D = x̂_0(t) + h / (2 h′) (x̂_0(t) − x̂_0(t′)).

    Args:
        x: noisy batch at times[0], shape (B, *).
        times: falling times in [0, 1], shape (N + 1, B).
        eta: 0 deterministic; 1 the reverse SDE, its noise from one Brownian path.
        lower_order_final: the last step is DDIM even where it ends in noise.
        noise: drawn from where eta > 0.
    Yields:
        Query(x_t, t).
    Returns:
        The batch at times[-1], shape (B, *).
    """
    variance = Eta(eta)
    before: Tensor | None = None
    step_before = torch.zeros_like(times[0])
    last = len(times) - 2
    for number, (t, s) in enumerate(pairwise(times)):
        posterior = yield Query(x, t)
        belief = posterior.mean
        step = (process.schedule.log_snr(s) - process.schedule.log_snr(t)) / 2
        if before is not None and not (lower_order_final and number == last):
            reach = step / (2 * step_before)
            # a step to clean data, one after a step from α = 0, one after standing still: nothing to extrapolate
            belief = belief + expand(torch.where(reach.isfinite(), reach, 0.0), x) * (belief - before)
        move = process.reverse(x, t, s, Gaussian(belief), variance)
        x = move.sample(path_noise(process, noise, t, s))
        before, step_before = posterior.mean, step
    return x


@dataclass(frozen=True)
class Rule:
    """What a polynomial is put through.

    Attributes:
        clock: y as a function of λ.
        density: what the polynomial is integrated with, a function of y up to a factor.
        of_noise: whether its values are ε̂ rather than x̂_0.
    """

    clock: Callable[[Tensor], Tensor]
    density: Callable[[Tensor], Tensor]
    of_noise: bool


BELIEF = Rule(lambda log_snr: log_snr / 2, torch.exp, of_noise=False)
NOISE = Rule(lambda log_snr: log_snr / 2, lambda y: torch.exp(-y), of_noise=True)
NOISE_IN_RATIO = Rule(lambda log_snr: torch.exp(-log_snr / 2), torch.ones_like, of_noise=True)


@register("dpmpp_3m", order=3, source="Lu et al. 2022b, algorithm 2, of third order")
def dpmpp_3m(
    process: GaussianProcess,
    x: Tensor,
    times: Tensor,
    *,
    memory: int = 3,
    lower_order_final: bool = False,
    noise: Noise,
) -> Sampling:
    """DPM-Solver++(3M): a polynomial of the belief in the log-SNR; arguments of `dpmpp_2m`.

    Args:
        memory: how many beliefs a step looks at.
        lower_order_final: the last steps look at fewer, the last of all at one.
    """
    return (yield from adams_bashforth(process, x, times, BELIEF, memory, lower_order_final))


@register("deis", order=3, source="Zhang, Chen 2023, eq. 15, in log σ/α")
def deis(
    process: GaussianProcess,
    x: Tensor,
    times: Tensor,
    *,
    memory: int = 3,
    lower_order_final: bool = False,
    noise: Noise,
) -> Sampling:
    """DEIS: a polynomial of the noise in the log-SNR; arguments of `dpmpp_3m`."""
    return (yield from adams_bashforth(process, x, times, NOISE, memory, lower_order_final))


@register("lms", order=4, grid="log_snr_inner", source="Crowson 2022, sample_lms")
def lms(process: GaussianProcess, x: Tensor, times: Tensor, *, memory: int = 4, noise: Noise) -> Sampling:
    """LMS: a polynomial of the noise in σ/α; arguments of `dpmpp_3m`."""
    return (yield from adams_bashforth(process, x, times, NOISE_IN_RATIO, memory, False))


def adams_bashforth(
    process: GaussianProcess, x: Tensor, times: Tensor, rule: Rule, memory: int, lower_order_final: bool
) -> Sampling:
    """Walk with the polynomial through the last `memory` values; arguments of `dpmpp_2m`.

    Raises:
        SettingError: a memory below 1 or above 8.
    """
    check_memory(memory)
    places: deque[Tensor] = deque(maxlen=memory)
    values: deque[Tensor] = deque(maxlen=memory)
    steps = len(times) - 1
    for number, (t, s) in enumerate(pairwise(times)):
        posterior = yield Query(x, t)
        places.appendleft(rule.clock(process.schedule.log_snr(t)))
        values.appendleft(process.implied_noise(x, t, posterior) if rule.of_noise else posterior.mean)
        looked_at = min(len(values), steps - number) if lower_order_final else len(values)
        end = rule.clock(process.schedule.log_snr(s))
        weights = lagrange_weights(rule, list(places)[:looked_at], places[0], end)
        belief = posterior.mean
        for weight, value in zip(weights[1:], list(values)[1:looked_at], strict=True):
            belief = belief + expand(_scaled(process, rule, t, weight), x) * (value - values[0])
        x = process.reverse(x, t, s, Gaussian(belief), variance=Eta(0.0)).mean
    return x


def check_memory(memory: int) -> None:
    """Refuse a polynomial through nothing, or through more than rounding lets stand.

    Raises:
        SettingError: a memory below 1 or above 8.
    """
    if not 1 <= memory <= 8:
        raise SettingError(f"memory lies between 1, the belief of the step itself, and 8, and {memory} does not")


def lagrange_weights(rule: Rule, places: list[Tensor], start: Tensor, end: Tensor) -> Tensor:
    """The share of each value in the integral from start to end of the polynomial through all, shape (m, B).

    Args:
        places: y of each value, each of shape (B,). One that is infinite, or where another one before it is, has no
            share.
        start, end: of the integral, shape (B,); where one is infinite the first value has all of it.
    """
    if len(places) == 1:
        return torch.ones_like(start)[None]
    nodes = torch.stack(places)
    count = len(places)
    same = nodes[:, None] == nodes  # (m, m, B)
    repeated = (same & _BEFORE[:count, :count, None]).any(1)
    used = nodes.isfinite() & ~repeated & start.isfinite() & end.isfinite()
    used[0] = True
    whole = (start.isfinite() & end.isfinite())[None]
    nodes = torch.where(used & whole, nodes, 0.0)
    start, end = torch.where(whole[0], start, 0.0), torch.where(whole[0], end, 0.0)
    points = start + (end - start) * _QUADRATURE[0]  # (Q, B)
    # the density relative to the start: it spans many orders of magnitude, its share does not
    mass = rule.density(points - start) * _QUADRATURE[1]
    mass = mass / mass.sum(0)
    # factor (j, i) of polynomial j, at every point: (y − y_i)/(y_j − y_i) where both count, 1 elsewhere
    pairs = used[:, None] & used & _OTHER[:count, :count, None]
    gaps = torch.where(pairs, nodes[:, None] - nodes, 1.0)
    factors = torch.where(pairs[:, :, None], (points - nodes[:, None])[None] / gaps[:, :, None], 1.0)
    return torch.where(used, (factors.prod(1) * mass).sum(1), 0.0)


_BEFORE = torch.ones(16, 16, dtype=torch.bool).tril(-1)
_OTHER = ~torch.eye(16, dtype=torch.bool)


def _gauss_legendre(count: int) -> tuple[Tensor, Tensor]:
    """Points in [0, 1] and weights, each of shape (count, 1)."""
    points, weights = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy((points[:, None] + 1) / 2), torch.from_numpy(weights[:, None] / 2)


_QUADRATURE = _gauss_legendre(32)


def _scaled(process: GaussianProcess, rule: Rule, t: Tensor, weight: Tensor) -> Tensor:
    """The weight as it changes the belief: −k_t times as much for a value of the noise."""
    if not rule.of_noise:
        return weight
    return torch.where(weight != 0, -weight * process.schedule.ratio(t), 0.0)


@register("plms", order=2, grid="log_snr_long", source="Liu et al. 2022, eq. 12, started as in latent diffusion")
def plms(process: GaussianProcess, x: Tensor, times: Tensor, *, noise: Noise) -> Sampling:
    """PLMS: the weights of equal steps for the noise; the first step is Heun's. Arguments of `dpmpp_2m`."""
    values: deque[Tensor] = deque(maxlen=4)
    for number, (t, s) in enumerate(pairwise(times)):
        here = yield Query(x, t)
        values.appendleft(process.implied_noise(x, t, here))
        if number == 0 and bool((process.schedule.sigma(s) > 0).any()):
            ahead = _transfer(process, x, t, s, here, values[0])
            there = yield Query(ahead, s)
            later = process.implied_noise(ahead, s, there)
            x = _transfer(process, x, t, s, here, _unless_at_an_end(process, t, s, (values[0] + later) / 2, values[0]))
        else:
            x = _transfer(process, x, t, s, here, _equal_steps(values))
    return x


@register("pndm", order=2, grid="log_snr_long", source="Liu et al. 2022, algorithm 2 (F-PNDM)")
def pndm(process: GaussianProcess, x: Tensor, times: Tensor, *, noise: Noise) -> Sampling:
    """PNDM: three steps of four evaluations each to begin with, then PLMS. Arguments of `dpmpp_2m`."""
    values: deque[Tensor] = deque(maxlen=4)
    for number, (t, s) in enumerate(pairwise(times)):
        here = yield Query(x, t)
        values.appendleft(process.implied_noise(x, t, here))
        if number < 3 and bool((process.schedule.sigma(s) > 0).any()):
            mean = yield from _runge_kutta(process, x, t, s, here, values[0])
            x = _transfer(process, x, t, s, here, _unless_at_an_end(process, t, s, mean, values[0]))
        else:
            x = _transfer(process, x, t, s, here, _equal_steps(values))
    return x


def _equal_steps(values: deque[Tensor]) -> Tensor:
    """Adams-Bashforth of up to four values at equal distances, the newest first."""
    weights = _ADAMS[len(values) - 1]
    return torch.stack([weight * value for weight, value in zip(weights, values, strict=True)]).sum(0)


_ADAMS = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


def _runge_kutta(
    process: GaussianProcess, x: Tensor, t: Tensor, s: Tensor, here: Gaussian, first: Tensor
) -> Generator[Query, Gaussian, Tensor]:
    """The mean of the noise over a step by the classical weights, each stage moved to by the transfer of PNDM."""
    middle = (t + s) / 2
    stages = [first]
    for place in (middle, middle, s):
        moved = _transfer(process, x, t, place, here, stages[-1])
        there = yield Query(moved, place)
        stages.append(process.implied_noise(moved, place, there))
    one, two, three, four = stages
    return (one + 2 * two + 2 * three + four) / 6


def _unless_at_an_end(process: GaussianProcess, t: Tensor, s: Tensor, direction: Tensor, first: Tensor) -> Tensor:
    """The direction, but the first one for samples that step to clean data or from where nothing is left of it."""
    inside = (process.schedule.sigma(s) > 0) & (process.schedule.ratio(t) < NOISIEST)
    return choose_samples(inside, direction, first)


def _transfer(process: GaussianProcess, x: Tensor, t: Tensor, s: Tensor, here: Gaussian, direction: Tensor) -> Tensor:
    """DDIM along a given noise (Liu et al. 2022, eq. 11); along the belief's own where nothing is left of the data."""
    ratio = process.schedule.ratio(t)
    lever = torch.where(ratio < NOISIEST, ratio, 0.0)
    belief = here.mean - expand(lever, x) * (direction - process.implied_noise(x, t, here))
    return process.reverse(x, t, s, Gaussian(belief), variance=Eta(0.0)).mean
