"""diffusers' walks over the continuous schedules: EDM, straight lines, and the variance-exploding SDE.

Karras et al. Elucidating the Design Space of Diffusion-Based Generative Models. NeurIPS 2022, eq. 5.
Esser et al. Scaling Rectified Flow Transformers for High-Resolution Image Synthesis. ICML 2024, eq. 23 (shift).
Song et al. Score-Based Generative Modeling through SDEs. ICLR 2021, appendix G.
"""

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from neblina.core.errors import SettingError
from neblina.processes.foreign import Walk, times_at
from neblina.processes.ladders import LADDERS, karras
from neblina.processes.schedules import Schedule

Level = TypeVar("Level", float, np.ndarray)


@dataclass(frozen=True)
class EDMGrid:
    """EDM's levels from sigma_max to sigma_min; x starts at sqrt(σ_max² + 1), as if the data's variance were 1.

    Attributes:
        sigma_min, sigma_max: first and last level.
        rho: of the karras ladder; None for equal steps of log σ.
        ends_at_zero: whether clean data follows; else the last level stands twice.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float | None = 7.0
    ends_at_zero: bool = True

    def __post_init__(self) -> None:
        _check_levels(self.sigma_min, self.sigma_max)
        # beyond e^±700 the root σ^(1/ρ) leaves double precision
        least = max(abs(math.log(self.sigma_min)), abs(math.log(self.sigma_max))) / 700
        if self.rho is not None and not least < self.rho < math.inf:
            raise SettingError(f"rho = {self.rho:g} of a karras ladder must be a number above {least:.2g}")

    def __call__(self, schedule: Schedule, steps: int) -> Walk:
        """The walk of N steps."""
        if self.rho is None:
            levels = LADDERS["exponential"](self.sigma_max, self.sigma_min, steps)
        else:
            levels = karras(self.sigma_max, self.sigma_min, steps, rho=self.rho)
        end = torch.zeros(1, dtype=torch.float64) if self.ends_at_zero else levels[-1:]
        times = times_at(schedule, torch.cat([levels, end]))
        return Walk(times, math.sqrt(self.sigma_max**2 + 1), levels.log() / 4)


TOTAL = 1000  # T: the network is told T σ


def ends(steps: int, last: float) -> np.ndarray:
    """N levels from 1 to `last`: 1/T shifted, which the shift of all then shifts again."""
    return np.linspace(1, last, steps)


def inner(steps: int, last: float) -> np.ndarray:
    """The first N of N + 1 levels from 1 to 1/T."""
    return np.linspace(1, 1 / TOTAL, steps + 1)[:-1].copy()


def outer(steps: int, last: float) -> np.ndarray:
    """The last N of N + 1 levels from 0 to 1 − 1/T."""
    return (1 - np.linspace(1, 1 / TOTAL, steps + 1))[::-1][:-1].copy()


EVEN = {"ends": ends, "inner": inner, "outer": outer}


@dataclass(frozen=True)
class FlowGrid:
    """Levels σ = t of straight lines, shifted: σ' = s σ / (1 + (s − 1) σ).

    Attributes:
        shift: s, more than 1 for more steps in the noise.
        even: how N levels lie before the shift: ends, inner or outer.
        terminal: where the last level is stretched to, None for nowhere.
        ladder: karras, exponential or beta between the first and the last level, None for none.
        whole: whether the time that the network is told, 1000 σ, is rounded down.
        below_one: whether a first level of 1 is brought to 1 − 1e-6, so that α > 0.
        ends_at_zero: whether clean data follows; else the last level stands twice.
    """

    shift: float = 1.0
    even: str = "ends"
    terminal: float | None = None
    ladder: str | None = None
    whole: bool = False
    below_one: bool = False
    ends_at_zero: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.shift < math.inf:
            raise SettingError(f"shift = {self.shift:g} of straight lines must be a number above 0")
        if self.terminal is not None and not 0 <= self.terminal < 1:
            raise SettingError(f"terminal = {self.terminal:g} of straight lines must lie from 0 to below 1")

    def __call__(self, schedule: Schedule, steps: int) -> Walk:
        """The walk of N steps over the flow schedule."""
        levels = torch.from_numpy(self._shifted(EVEN[self.even](steps, self._shifted(1 / TOTAL))))
        if self.terminal is not None:
            levels = 1 - (1 - levels) * (1 - self.terminal) / (1 - levels[-1])
        if self.ladder is not None:
            levels = LADDERS[self.ladder](float(levels[0]), float(levels[-1]), steps)
        if self.below_one:
            levels = levels.clamp(max=1 - 1e-6)
        end = torch.zeros(1, dtype=torch.float64) if self.ends_at_zero else levels[-1:]
        told = TOTAL * levels
        return Walk(torch.cat([levels, end]).clamp(0, 1), schedule.prior_std, told.trunc() if self.whole else told)

    def _shifted(self, levels: Level) -> Level:
        return self.shift * levels / (1 + (self.shift - 1) * levels)


@dataclass(frozen=True)
class ScoreGrid:
    """The levels of the variance-exploding SDE: N of them, equal in log σ, then clean data.

    The network is told a level a little off the one that the step uses: its own t runs from 1 to eps, not to 0.

    Attributes:
        sigma_min, sigma_max: last and first level.
        eps: where t ends.
    """

    sigma_min: float = 0.01
    sigma_max: float = 1348.0
    eps: float = 1e-5

    def __post_init__(self) -> None:
        _check_levels(self.sigma_min, self.sigma_max)
        if not 0 < self.eps < 1:
            raise SettingError(f"eps = {self.eps:g}, where the network's time ends, must lie between 0 and 1")

    def __call__(self, schedule: Schedule, steps: int) -> Walk:
        """The walk of N steps."""
        if steps < 2:
            raise SettingError(f"this walk takes at least 2 steps, not {steps}")
        levels = LADDERS["exponential"](self.sigma_max, self.sigma_min, steps)
        own = torch.from_numpy(np.linspace(1, self.eps, steps))
        told = self.sigma_min * (self.sigma_max / self.sigma_min) ** own
        times = times_at(schedule, torch.cat([levels, torch.zeros(1, dtype=torch.float64)]))
        return Walk(times, self.sigma_max, told)


def _check_levels(low: float, high: float) -> None:
    if not 0 < low < high < math.inf:
        raise SettingError(f"a walk needs 0 < sigma_min < sigma_max, not {low:g} and {high:g}")
