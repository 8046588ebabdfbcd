"""Samplers that are told an error tolerance instead of a step count, and keep to it for every sample by itself.

They integrate the probability-flow ODE on the angle φ = atan2(σ, α), y = x/√(α² + σ²),

    dy/dφ = cos φ ε̂ − sin φ x̂_0 = (cos φ y − x̂_0)/sin φ,

with an embedded Runge-Kutta pair: the difference of its two results estimates the error of a step, and the next step
is as long as the tolerance allows. A sample that has arrived is not asked about any more. Where the walk ends at clean
data it stops at σ/α = 0.002, or at the first step of a discrete process, and the belief there is the result.

The only samplers that read numbers back from the device: an error must be known before the next step is chosen.

Bogacki, Shampine. A 3(2) Pair of Runge-Kutta Formulas. Applied Mathematics Letters 1989.
Dormand, Prince. A Family of Embedded Runge-Kutta Formulae. J. Comp. Appl. Math. 1980.
Song et al. Score-Based Generative Modeling through SDEs. ICLR 2021, appendix D.4.
Jolicoeur-Martineau et al. Gotta Go Fast When Generating Data with Score-Based Models. 2021 (steps of its own a sample).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from neblina.core.errors import DivergenceError, SettingError
from neblina.core.noise import Noise
from neblina.core.plan import Query
from neblina.core.shapes import expand
from neblina.processes.gaussian import GaussianProcess
from neblina.samplers.registry import Sampling, register

_CLEANEST = 0.002


@dataclass(frozen=True)
class Tableau:
    """An embedded pair whose last stage is the first of the next step.

    Attributes:
        order: of the result that is kept.
        places: c, where each stage after the first is evaluated.
        stages: rows of a; the last one is the result itself.
        error: b − b̂, the weights of the difference of the two results.
    """

    order: int
    places: tuple[float, ...]
    stages: tuple[tuple[float, ...], ...]
    error: tuple[float, ...]


BOGACKI_SHAMPINE = Tableau(
    order=3,
    places=(1 / 2, 3 / 4, 1),
    stages=((1 / 2,), (0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    error=(2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8),
)
DORMAND_PRINCE = Tableau(
    order=5,
    places=(1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1),
    stages=(
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    error=(71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
)


@register("adaptive", order=3, adaptive=True, linear=False, source="Bogacki, Shampine 1989, on the angle")
def adaptive(process: GaussianProcess, x: Tensor, times: Tensor, *, tolerance: float = 0.005, noise: Noise) -> Sampling:
    """Quality against speed as one knob.

    Args:
        x: noisy batch at times[0], shape (B, *).
        times: falling times in [0, 1], shape (N + 1, B), of which the first and the last count.
        tolerance: root mean square error of a step, relative to a state of size 1.
        noise: not drawn from.
    Yields:
        Query(x_t, t, rows) for the samples that are still on their way.
    Returns:
        The batch at times[-1], shape (B, *).
    Raises:
        SettingError: a tolerance that is not positive.
        DivergenceError: the model answered values that are not finite, for any sample of the batch.
    """
    return (yield from _embedded(process, x, times, BOGACKI_SHAMPINE, tolerance))


@register("dopri5", order=5, adaptive=True, linear=False, source="Dormand, Prince 1980, on the angle")
def dopri5(process: GaussianProcess, x: Tensor, times: Tensor, *, tolerance: float = 1e-4, noise: Noise) -> Sampling:
    """The probability-flow ODE to high accuracy; arguments of `adaptive`."""
    return (yield from _embedded(process, x, times, DORMAND_PRINCE, tolerance))


def _embedded(process: GaussianProcess, x: Tensor, times: Tensor, tableau: Tableau, tolerance: float) -> Sampling:
    if not tolerance > 0:
        raise SettingError(f"tolerance {tolerance:g} is not positive; 0.02 is quick and 0.001 is accurate")
    circle = _Circle(process)
    begin, end = times[0], times[-1]
    clean = (process.schedule.sigma(end) == 0) & (end < begin)
    place, goal = circle.angle(begin), torch.where(clean, circle.cleanest(), circle.angle(end))
    y = x / expand(circle.radius(begin), x)
    step = (place - goal) / 8
    live = place > goal
    slope = torch.zeros_like(y)
    fresh = live.clone()  # whose slope at the place is not known yet
    while bool(live.any()):
        rows = live.nonzero()[:, 0]
        there = rows.to(x.device)
        if bool(fresh.any()):
            rows_fresh = fresh.nonzero()[:, 0]
            posterior = yield circle.query(y[rows_fresh.to(x.device)], place[rows_fresh], rows_fresh)
            slope[rows_fresh.to(x.device)] = circle.slope(
                y[rows_fresh.to(x.device)], place[rows_fresh], posterior.mean.to(y.dtype)
            )
            fresh = torch.zeros_like(fresh)
        start, length = place[rows], torch.minimum(step[rows], place[rows] - goal[rows])
        slopes = [slope[there]]
        moved = y[there]
        for share, weights in zip(tableau.places, tableau.stages, strict=True):
            moved = y[there] - expand(length, moved) * _sum(weights, slopes)
            posterior = yield circle.query(moved, start - share * length, rows)
            slopes.append(circle.slope(moved, start - share * length, posterior.mean.to(y.dtype)))
        gap = expand(length, moved) * _sum(tableau.error, slopes)
        size = tolerance * (1 + torch.maximum(y[there].abs(), moved.abs()))
        error = (gap / size).flatten(1).square().mean(1).sqrt().double().cpu()
        if not bool(error.isfinite().all()):
            raise DivergenceError("the model answered values that are not finite; no step is short enough for those")
        good = (error <= 1) | (length <= 1e-7)
        kept = good.to(x.device)
        y[there[kept]], slope[there[kept]] = moved[kept], slopes[-1][kept]
        place = place.index_put((rows[good],), (start - length)[good])
        grown = length * (0.9 * error.clamp(min=1e-10) ** (-1 / tableau.order)).clamp(0.2, 5)
        step = step.index_put((rows,), grown)
        live = place > goal + 1e-12
    x = y * expand(torch.where(clean, circle.radius(circle.time(place)), circle.radius(end)), x)
    if bool(clean.any()):
        rows = clean.nonzero()[:, 0]
        posterior = yield circle.query(y[rows.to(x.device)], place[rows], rows)
        x = x.index_put((rows.to(x.device),), posterior.mean.to(x.dtype))
    return x


def _sum(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    return torch.stack([weight * slope for weight, slope in zip(weights, slopes, strict=True) if weight]).sum(0)


@dataclass(frozen=True)
class _Circle:
    """The path of a process as an angle."""

    process: GaussianProcess

    def angle(self, t: Tensor) -> Tensor:
        return torch.atan2(self.process.schedule.sigma(t), self.process.schedule.alpha(t))

    def time(self, angle: Tensor) -> Tensor:
        return self.process.schedule.time(2 * (angle.cos() / angle.sin()).log()).clamp(0, 1)

    def radius(self, t: Tensor) -> Tensor:
        return (self.process.schedule.alpha(t) ** 2 + self.process.schedule.sigma(t) ** 2).sqrt()

    def cleanest(self) -> Tensor:
        """The smallest angle that a network can be asked at."""
        steps = self.process.schedule.steps
        first = self.angle(torch.tensor(1 / steps, dtype=torch.float64)) if steps else torch.zeros(()).double()
        return first.clamp(min=_CLEANEST)

    def query(self, y: Tensor, angle: Tensor, rows: Tensor) -> Query:
        t = self.time(angle)
        return Query(expand(self.radius(t), y) * y, t, rows)

    def slope(self, y: Tensor, angle: Tensor, belief: Tensor) -> Tensor:
        return expand(angle.cos() / angle.sin(), y) * y - expand(1 / angle.sin(), y) * belief
