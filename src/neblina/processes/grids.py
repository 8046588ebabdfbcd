"""Grids: the times a sampler visits, an argument of every sampler and a property of none.

A grid of N steps is N + 1 strictly decreasing times from 1 (noise) to 0 (data). The grids in terms of the
noise-to-signal ratio k = σ/α visit t = 1, then N − 1 further ratios, then 0, so they place their points where the
belief changes whatever the schedule's clock does.

Karras et al. Elucidating the Design Space of Diffusion-Based Generative Models. NeurIPS 2022, eq. 5.
Song, Meng, Ermon. Denoising Diffusion Implicit Models. ICLR 2021, appendix D.2 (quadratic).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from neblina.core.errors import SettingError
from neblina.core.registry import Registry
from neblina.processes.schedules import Schedule

Grid = Callable[[Schedule, int], Tensor]
grids: Registry[Grid] = Registry("grid")


def register(name: str) -> Callable[[Grid], Grid]:
    """Put a grid in the table that users choose from."""
    return lambda grid: grids.add(grid, name)


def make_grid(name: str, schedule: Schedule, steps: int) -> Tensor:
    """Times of a registered grid, float64 of shape (N + 1,) on the CPU.

    Raises:
        SettingError: unknown grid, fewer steps than 1, or more steps than a discrete-time schedule has.
    """
    grid = grids[name]
    if steps < 1:
        raise SettingError(f"sampling takes at least 1 step, not {steps}")
    if schedule.steps is not None and steps > schedule.steps:
        raise SettingError(
            f"{steps} steps are more than the {schedule.steps} that the {schedule.name} schedule has; "
            f"ask for at most {schedule.steps}"
        )
    return grid(schedule, steps)


def truncate(times: Tensor, start: float, end: float) -> Tensor:
    """The part of a grid, shape (N + 1,), from time `start` to time `end`: both of them, and what lies between.

    1 and 0 stand for the grid's own ends, which may lie short of them.

    Raises:
        SettingError: an interval that is upside down or leaves [0, 1].
    """
    if not 0 <= end < start <= 1:
        raise SettingError(
            f"sampling goes from t_start down to t_end, 0 <= t_end < t_start <= 1, not {start:g} to {end:g}"
        )
    if start == 1 and end == 0:
        return times
    begin = times[:1] if start == 1 else torch.tensor([start], dtype=torch.float64)
    last = times[-1:] if end == 0 else torch.tensor([end], dtype=torch.float64)
    # a time of the grid that is one of the ends but for rounding would make a step of no length
    inside = (times < begin * (1 - 1e-6)) & (times > last * (1 + 1e-6))
    return torch.cat([begin, times[inside], last])


@register("uniform")
def uniform(schedule: Schedule, steps: int) -> Tensor:
    """Equal steps of t: with N = T, the steps of the discrete-time process itself."""
    return torch.linspace(1, 0, steps + 1, dtype=torch.float64)


@register("leading")
def leading(schedule: Schedule, steps: int) -> Tensor:
    """Every ⌊T/N⌋-th step of a discrete schedule from the first one, which leaves t = 1 out (diffusers' default)."""
    if schedule.steps is None:
        raise SettingError(f"the leading grid counts the steps of a discrete schedule, and {schedule.name} has none")
    stride = schedule.steps // steps
    visited = torch.arange(steps - 1, -1, -1, dtype=torch.float64) * stride + 1
    return torch.cat([visited / schedule.steps, torch.zeros(1, dtype=torch.float64)])


@register("trailing")
def trailing(schedule: Schedule, steps: int) -> Tensor:
    """The steps of a discrete-time schedule nearest to even ones from the last (diffusers' trailing spacing)."""
    if schedule.steps is None:
        raise SettingError(f"the trailing grid counts the steps of a discrete schedule, and {schedule.name} has none")
    visited = torch.round(schedule.steps * (1 - torch.arange(steps, dtype=torch.float64) / steps))
    return torch.cat([visited / schedule.steps, torch.zeros(1, dtype=torch.float64)])


@register("quadratic")
def quadratic(schedule: Schedule, steps: int) -> Tensor:
    """t = u² for u in equal steps: denser towards the data."""
    return uniform(schedule, steps) ** 2


@register("karras")
def karras(schedule: Schedule, steps: int) -> Tensor:
    """k^(1/ρ), ρ = 7, in equal steps from min(k(1), 80) to 0.002."""
    first, last = _reachable(schedule, 80.0, 0.002)
    return _through(
        schedule,
        steps,
        first,
        lambda u: torch.lerp(first ** (1 / _RHO) * _ONE, last ** (1 / _RHO) * _ONE, u) ** _RHO,
    )


def _even_in_log_snr(noisiest: float, cleanest: float) -> Grid:
    """log k in equal steps between ends that open with N, k = noisiest √(N/20) and cleanest √(20/N).

    A jump over an end costs an error of order 1/k² at the noisy one and k² at the clean one, so ends that open like
    this leave a first-order sampler first-order and no evaluation is spent where nothing is decided. The constants are
    where the worst error over targets of std 1 … 0.05 is smallest at 20 evaluations.
    """

    def grid(schedule: Schedule, steps: int) -> Tensor:
        opening = (steps / 20) ** 0.5
        first, last = _reachable(schedule, noisiest * opening, cleanest / opening)
        return _through(schedule, steps, first, lambda u: first * (last / first) ** u)

    return grid


log_snr = grids.add(_even_in_log_snr(10.0, 0.006), "log_snr")  # the default of most samplers
grids.add(_even_in_log_snr(10.0, 0.01), "log_snr_inner")  # for polynomials and midpoints of ε̂ in σ/α
grids.add(_even_in_log_snr(5.0, 0.01), "log_snr_short")  # for methods that walk a stretch twice, and in straight lines
grids.add(_even_in_log_snr(30.0, 0.008), "log_snr_long")  # for weights of equal steps


_RHO = 7.0
_ONE = torch.ones(1, dtype=torch.float64)


def _reachable(schedule: Schedule, first: float, last: float) -> tuple[float, float]:
    """The two ratios, no noisier than t = 1 and no cleaner than the first step of a discrete-time schedule."""
    noisiest, cleanest = (
        _ratio(schedule, 1.0),
        _ratio(schedule, 1 / schedule.steps if schedule.steps else 0.0),
    )
    return min(first, noisiest), max(last, cleanest)


def _ratio(schedule: Schedule, t: float) -> float:
    return float(schedule.ratio(torch.tensor([t], dtype=torch.float64)))


def _through(schedule: Schedule, steps: int, first: float, ratio: Callable[[Tensor], Tensor]) -> Tensor:
    """t = 1, N − 1 times at ratio(u) for u from 0 to 1, then t = 0; a first ratio that is t = 1 is visited once."""
    already = first >= _ratio(schedule, 1.0) * (1 - 1e-9)
    u = torch.linspace(0, 1, steps if already else steps - 1, dtype=torch.float64)
    inside = schedule.time(-2 * ratio(u[1:] if already else u).log())
    return torch.cat([_ONE, inside, 0 * _ONE])


def token_grid(steps: int, whole: int | None = None) -> Tensor:
    """Times of a walk of tokens from noise to data, evenly spaced, shape (steps + 1,), float64.

    Args:
        steps: evaluations.
        whole: T of a process or a network that knows multiples of 1/T alone: the nearest ones; None for any times.
    Raises:
        SettingError: no step, or more of them than there are.
    """
    if steps < 1:
        raise SettingError(f"a walk takes at least one step, not {steps}")
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    if whole is None:
        return times
    if steps > whole:
        raise SettingError(f"this model was trained on {whole} steps, and {steps} are asked for: take {whole} or fewer")
    return (times * whole).round() / whole
