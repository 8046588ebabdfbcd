"""What a noise schedule is: α(t) and σ(t) of x_t = α(t) x_0 + σ(t) ε, for t from 0 (data) to 1 (noise), in float64.

Everything a sampler needs of a schedule is the path (α, σ); the signal-to-noise ratio along it,

    log-SNR(t) = λ(t) = log(α(t)² / σ(t)²),

falls strictly from +∞ at t = 0, so λ and t name the same point, and `time` is the inverse of `log_snr`. The same path
is that of a stochastic differential equation, dx = f(t) x dt + g(t) dw, with

    f = d log α / dt,    g² = dσ²/dt − 2 f σ² = −σ² dλ/dt.

The entries are in `tables` (discrete time) and `continuous`.

Song et al. Score-Based Generative Modeling through SDEs. ICLR 2021, eq. 5 and appendix B.
Kingma et al. Variational Diffusion Models. NeurIPS 2021, section 3 (the log-SNR).
"""

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, fields
from functools import wraps
from typing import Any, ClassVar

import torch
from torch import Tensor

from neblina.core.errors import SettingError, choose
from neblina.core.registry import Registry

schedules: Registry[type["Schedule"]] = Registry("schedule")


class Schedule(ABC):
    """A path (α(t), σ(t)). Times and results are float64 tensors of one shape, on the CPU.

    Attributes:
        name: its name in the registry.
        steps: number T of steps of a discrete-time schedule, else None.
        prior_std: standard deviation of the normal distribution that sampling starts from.
    """

    name: ClassVar[str]
    steps: int | None = None
    prior_std: float = 1.0

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Weight of the data, α(t)."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation of the noise, σ(t)."""

    @abstractmethod
    def log_snr(self, t: Tensor) -> Tensor:
        """λ(t) = log(α²/σ²); +∞ at t = 0."""

    @abstractmethod
    def time(self, log_snr: Tensor) -> Tensor:
        """The time t at which λ(t) = log_snr."""

    @abstractmethod
    def drift(self, t: Tensor) -> Tensor:
        """f(t) of dx = f(t) x dt + g(t) dw; −∞ where all of the data is lost at once."""

    @abstractmethod
    def diffusion(self, t: Tensor) -> Tensor:
        """g(t) of dx = f(t) x dt + g(t) dw."""

    def ratio(self, t: Tensor) -> Tensor:
        """The noise level σ/α, from 0 at t = 0 to infinity where nothing is left of the data."""
        return torch.exp(-self.log_snr(t) / 2)

    def radius(self, t: Tensor) -> Tensor:
        """√(α² + σ²)."""
        return (self.alpha(t) ** 2 + self.sigma(t) ** 2).sqrt()

    def training_time(self, u: Tensor) -> Tensor:
        """The times to train at, as the quantile function of their distribution: u uniform in (0, 1), shape (B,)."""
        return u

    def config(self) -> dict[str, Any]:
        """The name and the numbers that `make_schedule` builds it from again."""
        return {"schedule": self.name, **asdict(self)}  # type: ignore[call-overload]


def register(name: str) -> Callable[[type[Schedule]], type[Schedule]]:
    """Put a schedule in the table that recipes choose from."""

    def add(schedule: type[Schedule]) -> type[Schedule]:
        schedule.name = name
        return schedules.add(schedule, name)

    return add


def make_schedule(schedule: str, **settings: Any) -> Schedule:
    """Build a registered schedule.

    Raises:
        SettingError: unknown schedule, a setting that this one does not have, or one that is not a number of its kind.
    """
    kind = schedules[schedule]
    known: dict[str, Any] = {field.name: field.type for field in fields(kind)}  # type: ignore[arg-type]
    for setting, value in settings.items():
        choose(f"setting of the {schedule} schedule", setting, known)
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        fits = {int: number and value == int(value), float: number, bool: isinstance(value, bool)}
        if known[setting] in fits and not fits[known[setting]]:
            raise SettingError(f"{setting} of the {schedule} schedule cannot be {value!r}")
    return kind(**settings)


def remembered(method: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    """Look the last answers up when asked about the same tensor again: a step names its two times a dozen times."""

    @wraps(method)
    def answer(self: Any, t: Tensor) -> Tensor:
        memory: deque[tuple[Tensor, Tensor]] = self.__dict__.setdefault(
            method.__name__ + " remembered", deque(maxlen=4)
        )
        for asked, answered in tuple(memory):
            if asked is t:
                return answered
        answered = method(self, t)
        memory.append((t, answered))
        return answered

    return answer


class VariancePreserving(Schedule):
    """α² + σ² = 1: λ alone says everything, and dx = −½ β(t) x dt + √β(t) dw."""

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sigmoid(self.log_snr(t)).sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sigmoid(-self.log_snr(t)).sqrt()

    @abstractmethod
    def rate(self, t: Tensor) -> Tensor:
        """β(t) = −σ² dλ/dt, per unit of t."""

    def drift(self, t: Tensor) -> Tensor:
        return -self.rate(t) / 2

    def diffusion(self, t: Tensor) -> Tensor:
        return self.rate(t).sqrt()
