"""Samplers that are told an error tolerance instead of a step count, and keep to it for every sample by itself.

They integrate the probability-flow ODE on the angle φ = atan2(σ, α) (`processes/circle.py`) with an embedded
Runge-Kutta pair (`embedded.py`): each step is as long as the tolerance allows. A sample that has arrived is not asked
about any more. Where the walk ends at clean data it stops at σ/α = 0.002, or at the first step of a discrete process,
and the belief there is the result.

The only samplers that read numbers back from the device: an error must be known before the next step is chosen.

Song et al. Score-Based Generative Modeling through SDEs. ICLR 2021, appendix D.4.
Jolicoeur-Martineau et al. Gotta Go Fast When Generating Data with Score-Based Models. 2021 (steps of its own a sample).
"""

import torch
from torch import Tensor

from neblina.core.errors import DivergenceError, SettingError
from neblina.core.noise import Noise
from neblina.core.plan import Query
from neblina.core.shapes import expand
from neblina.processes.circle import Circle
from neblina.processes.gaussian import GaussianProcess
from neblina.samplers.embedded import BOGACKI_SHAMPINE, DORMAND_PRINCE, Step, Tableau, integrate
from neblina.samplers.registry import Sampling, register

_CLEANEST = 0.002
_SHORTEST = 1e-7


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
    schedule, circle = process.schedule, Circle(process.schedule)

    def error(step: Step) -> Tensor:
        (before,), (after,), (gap,) = step.before, step.after, step.gaps
        size = tolerance * (1 + torch.maximum(before.abs(), after.abs()))
        off = (gap / size).flatten(1).square().mean(1).sqrt().double().cpu()
        if not bool(off.isfinite().all()):
            raise DivergenceError("the model answered values that are not finite; no step is short enough for those")
        # over a jump of the belief no step is short enough either
        return torch.where(step.length <= _SHORTEST, off.clamp(max=1), off)

    begin, end = times[0], times[-1]
    clean = (schedule.sigma(end) == 0) & (end < begin)
    goal = torch.where(clean, circle.cleanest(_CLEANEST), circle.angle(end))
    y = x / expand(schedule.radius(begin), x)
    # a sample that begins below the goal stays where it is
    start = circle.angle(begin)
    goal = torch.minimum(goal, start)
    walk = integrate(tableau, (y,), start, goal, steps=8, error=error)
    try:
        asked = next(walk)
        while True:
            posterior = yield _query(circle, asked.state[0], asked.place, asked.rows)
            slope = circle.velocity(asked.state[0], asked.place, posterior.mean.to(x.dtype))
            asked = walk.send((slope,))
    except StopIteration as finished:
        (y,) = finished.value
    x = y * expand(torch.where(clean, schedule.radius(circle.time(goal)), schedule.radius(end)), x)
    if bool(clean.any()):
        rows = clean.nonzero()[:, 0]
        there = rows.to(x.device)
        posterior = yield _query(circle, y[there], goal[rows], rows)
        x = x.index_put((there,), posterior.mean.to(x.dtype))
    return x


def _query(circle: Circle, y: Tensor, angle: Tensor, rows: Tensor) -> Query:
    t = circle.time(angle)
    return Query(expand(circle.schedule.radius(t), y) * y, t, rows)
