"""diffusers' walks over a discrete-time table of T steps.

Three families, by what a visited level is. With k_i = sqrt((1 − ᾱ_i)/ᾱ_i) and i = 0 … T − 1,

| family | visits | whole numbers | a ladder stands between | its network is told |
| --- | --- | --- | --- | --- |
| indices (DDPM, DDIM, PNDM) | N indices | yes | – | the index |
| levels (Euler, LMS, Heun, DPM2) | N indices | no: k is interpolated, linearly in k | the visited levels | the index |
| solvers (DPM++, UniPC, DEIS) | the first N of N + 1 indices | yes | the table's levels | a whole index |

A ladder's level is told as the index at which log k, linear between the table's points, is its own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from neblina.core.errors import SettingError
from neblina.processes.foreign import Walk, times_at
from neblina.processes.ladders import LADDERS
from neblina.processes.schedules import Schedule

Spacing = Callable[[int, int, int, bool], np.ndarray]  # indices reached, T, N, whether the last of N + 1 is left out
CAP = (2.0**24 - 1) ** 0.5  # where diffusers stops a table of zero terminal SNR: ᾱ = 2^−24


def linspace(reached: int, total: int, steps: int, drops_last: bool) -> np.ndarray:
    """N indices from the last to 0, both ends included; or the first N of N + 1."""
    return np.linspace(0, reached - 1, steps + drops_last)[::-1][:steps].copy()


def leading(reached: int, total: int, steps: int, drops_last: bool) -> np.ndarray:
    """Every ⌊T/N⌋-th index from 0."""
    count = steps + drops_last
    return (np.arange(count) * (reached // count))[::-1][:steps].astype(float)


def trailing(reached: int, total: int, steps: int, drops_last: bool) -> np.ndarray:
    """The whole indices nearest to every T/N-th from the last."""
    return (np.arange(reached, 0, -total / steps).round() - 1)[:steps]


SPACINGS: dict[str, Spacing] = {"linspace": linspace, "leading": leading, "trailing": trailing}
ROUNDINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda index: index,
    "nearest": np.round,
    "down": np.trunc,
}


@dataclass(frozen=True)
class TableGrid:
    """One of diffusers' walks over a table.

    Attributes:
        spacing: linspace, leading or trailing.
        offset: added to the indices of the leading spacing.
        whole: whether indices are rounded to whole ones.
        drops_last: the first N of N + 1 are visited, and a ladder spans the table, not what is visited (the solvers).
        ladder: karras, exponential or beta: replaces the levels, None keeps them.
        sigma_min, sigma_max: ends of the ladder, None for those of what it spans.
        rounding: of the index that the network is told under a ladder: none, nearest or down.
        end: "zero" for clean data, "first" for the table's first level, "last" for the last level visited.
        starts_at_sigma: whether x starts at standard deviation σ(t) rather than 1.
        capped: whether a table of zero terminal SNR ends at ᾱ = 2^−24.
        log_linear: N + 1 levels equal in log k, the last of them the end.
        least_log_snr: levels of half log-SNR below it are left out; −∞ for none.
    """

    spacing: str = "leading"
    offset: int = 0
    whole: bool = True
    drops_last: bool = False
    ladder: str | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    rounding: str = "none"
    end: str = "zero"
    starts_at_sigma: bool = False
    capped: bool = False
    log_linear: bool = False
    least_log_snr: float = -float("inf")

    def __call__(self, schedule: Schedule, steps: int) -> Walk:
        """The walk of N steps over a discrete-time schedule.

        Raises:
            SettingError: a schedule without a table, more steps than it has, or a level that it does not reach.
        """
        table = self._table(schedule)
        total = len(table)
        if steps > total:
            raise SettingError(f"{steps} steps are more than the {total} that the {schedule.name} schedule has")
        ends = table[[-1, 0]]
        if self.ladder is None or not self.drops_last:
            index = self._indices(table, steps)
            ratios = table[index.astype(int)] if self.whole else np.interp(index, np.arange(total), table)
            ends, told = ratios[[0, -1]], index
        if self.ladder is not None:
            first = ends[0] if self.sigma_max is None else self.sigma_max
            last = ends[1] if self.sigma_min is None else self.sigma_min
            ratios = LADDERS[self.ladder](float(first), float(last), steps).numpy()
            told = ROUNDINGS[self.rounding](np.interp(np.log(ratios), np.log(table), np.arange(total)))
        if self.log_linear:
            ratios = LADDERS["exponential"](float(table[-1]), float(table[0]), steps + 1).numpy()
        else:
            ratios = np.append(ratios, {"zero": 0.0, "first": table[0], "last": ratios[-1]}[self.end])
        if self.whole and self.ladder is None and not self.capped:
            times = torch.from_numpy(np.append(index + 1, {"zero": 0.0, "first": 1.0}[self.end])) / total
        else:
            times = times_at(schedule, torch.from_numpy(ratios))
        start = float(schedule.sigma(times[:1])) if self.starts_at_sigma else schedule.prior_std
        return Walk(times, start, torch.from_numpy(np.asarray(told, dtype=float)))

    def _table(self, schedule: Schedule) -> np.ndarray:
        """k at the T steps of the schedule."""
        if schedule.steps is None:
            raise SettingError(f"this walk counts the steps of a discrete schedule, and {schedule.name} has none")
        points = torch.arange(1, schedule.steps + 1, dtype=torch.float64) / schedule.steps
        ratios = schedule.ratio(points)
        return (ratios.clamp(max=CAP) if self.capped else ratios).numpy()

    def _indices(self, table: np.ndarray, steps: int) -> np.ndarray:
        total = len(table)
        reached = int((-np.log(table) >= self.least_log_snr).sum())
        if reached < steps:
            raise SettingError(
                f"of the table's {total} levels {reached} have a half log-SNR of at least {self.least_log_snr:g}, and "
                f"{steps} steps are asked for"
            )
        index = SPACINGS[self.spacing](reached, total, steps, self.drops_last)
        if self.spacing == "leading":
            index = index + self.offset
        if self.whole:
            index = index.round()
        if index[0] > total - 1 or len(index) < steps:
            raise SettingError(
                f"steps_offset = {self.offset} with {steps} {self.spacing} steps leaves the table of {total}"
            )
        return index
