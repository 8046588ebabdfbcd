"""Grids of another library: what one time cannot say.

A sampler here visits times, and a time says everything: the noise level, what the network is told, where a walk
starts. Elsewhere these are three numbers that a scheduler chooses apart from each other: a noise level k = σ/α is
interpolated between the steps of a table while the network is told a rounded index, the state starts at another scale
than the process's own, and the last step stops short of clean data. A `Walk` holds all of it, so that a model that
others tuned keeps its pictures.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from neblina.core.errors import SettingError
from neblina.processes.grids import make_grid
from neblina.processes.schedules import Schedule


@dataclass(frozen=True)
class Walk:
    """What a sampler is given for a number of steps.

    Attributes:
        times: falling, float64 of shape (N + 1,) on the CPU.
        start: standard deviation of x at times[0].
        told: what the network is told at times[:-1], shape (N,); None leaves it to its clock.
    """

    times: Tensor
    start: float
    told: Tensor | None = None


class ForeignGrid(Protocol):
    """Says the walk of N steps, over the schedule of the model."""

    def __call__(self, schedule: Schedule, steps: int) -> Walk: ...


def make_walk(grid: str | ForeignGrid, schedule: Schedule, steps: int) -> Walk:
    """The walk over a registered grid, from the process's own prior, or over a foreign one.

    Raises:
        SettingError: as `make_grid`; or noise levels that the schedule does not reach, or that do not fall.
    """
    if isinstance(grid, str):
        return Walk(make_grid(grid, schedule, steps), schedule.prior_std)
    if steps < 1:
        raise SettingError(f"sampling takes at least 1 step, not {steps}")
    walk = grid(schedule, steps)
    _check_falling(walk.times)
    return walk


def _check_falling(times: Tensor) -> None:
    """Refuse times that do not fall; the last may stand twice, where a walk ends above clean data."""
    falls = times.diff() < 0
    falls[-1] |= times[-1] == times[-2]
    for place in (~falls).nonzero()[:1].flatten().tolist():
        raise SettingError(
            f"the walk of {len(falls)} steps does not fall: it goes from t = {times[place]:g} to t = "
            f"{times[place + 1]:g} in step {place + 1}. Correct the scheduler's levels, take another number of steps, "
            "or name a grid"
        )


def times_at(schedule: Schedule, ratios: Tensor) -> Tensor:
    """The times at which σ/α is `ratios`, float64; 0 where it is 0.

    Raises:
        SettingError: a ratio above the one at t = 1.
    """
    noisiest = float(schedule.ratio(torch.ones(1, dtype=torch.float64)))
    most = float(ratios.max())
    if most > noisiest * (1 + 1e-6):
        raise SettingError(
            f"the walk asks for σ/α = {most:g}, and the {schedule.name} schedule ends at {noisiest:g}: "
            "lower sigma_max or take a schedule that reaches it"
        )
    times = schedule.time(-2 * ratios.clamp(max=noisiest).log())
    return torch.where(ratios > 0, times.clamp(0, 1), 0.0)
