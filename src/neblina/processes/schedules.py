"""Noise schedules: α(t) and σ(t) of x_t = α(t) x_0 + σ(t) ε, for t from 0 (data) to 1 (noise), in float64.

Everything a sampler needs of a schedule is the path (α, σ); the signal-to-noise ratio along it,

    log-SNR(t) = λ(t) = log(α(t)² / σ(t)²),

falls strictly from +∞ at t = 0, so λ and t name the same point, and `time` is the inverse of `log_snr`.

A discrete-time schedule is its published table of β_1 … β_T, with ᾱ_n = Π (1 − β_i), α² = ᾱ and σ² = 1 − ᾱ at
t = n / T. Between its points λ is interpolated linearly; before the first one σ²/α² falls linearly to 0 at t = 0.

Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. NeurIPS 2020, section 4 (linear).
Rombach et al. High-Resolution Image Synthesis with Latent Diffusion Models. CVPR 2022 (scaled linear).
Nichol, Dhariwal. Improved Denoising Diffusion Probabilistic Models. ICML 2021, eq. 17 (cosine).
Xu et al. GeoDiff. ICLR 2022 (sigmoid).
Song et al. Score-Based Generative Modeling through SDEs. ICLR 2021, eq. 32 (VP).
Karras et al. Elucidating the Design Space of Diffusion-Based Generative Models. NeurIPS 2022, table 1 (EDM).
Lipman et al. Flow Matching for Generative Modeling. ICLR 2023; Liu et al. Flow Straight and Fast. ICLR 2023 (flow).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import cached_property
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
        SettingError: unknown schedule, or a setting that this one does not have.
    """
    kind = schedules[schedule]
    for setting in settings:
        choose(f"setting of the {schedule} schedule", setting, (field.name for field in fields(kind)))  # type: ignore[arg-type]
    return kind(**settings)


class VariancePreserving(Schedule):
    """α² + σ² = 1: λ alone says everything."""

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sigmoid(self.log_snr(t)).sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sigmoid(-self.log_snr(t)).sqrt()


class Table(VariancePreserving):
    """A discrete-time schedule given by its published table."""

    steps: int

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise SettingError(f"a discrete schedule has at least 2 steps, not {self.steps}")
        betas = self.betas
        if betas.shape != (self.steps,) or not bool(((betas > 0) & (betas < 1)).all()):
            raise SettingError(f"every beta of the {self.name} schedule must lie between 0 and 1")

    @property
    @abstractmethod
    def betas(self) -> Tensor:
        """β_1 … β_T, shape (T,)."""

    @cached_property
    def table(self) -> Tensor:
        """λ at n / T for n = 1 … T, shape (T,)."""
        log_alpha_bar = torch.log1p(-self.betas).cumsum(0)
        return log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))

    def log_snr(self, t: Tensor) -> Tensor:
        place = t * self.steps - 1
        left = place.floor().clamp(0, self.steps - 2).long()
        inside = torch.lerp(self.table[left], self.table[left + 1], place - left)
        return torch.where(place < 0, self.table[0] - torch.log(t * self.steps), inside)

    def training_time(self, u: Tensor) -> Tensor:
        return (u * self.steps).ceil().clamp(1, self.steps) / self.steps

    def time(self, log_snr: Tensor) -> Tensor:
        ascending = self.table.flip(0)
        right = torch.searchsorted(ascending, log_snr.contiguous()).clamp(1, self.steps - 1)
        low, high = ascending[right - 1], ascending[right]
        place = self.steps - right - (log_snr - low) / (high - low)
        before = torch.exp(self.table[0] - log_snr)
        return torch.where(log_snr > self.table[0], before, place + 1) / self.steps


@register("linear")
@dataclass(frozen=True)
class Linear(Table):
    """β from beta_start to beta_end in equal steps (DDPM)."""

    steps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02

    @property
    def betas(self) -> Tensor:
        return torch.linspace(self.beta_start, self.beta_end, self.steps, dtype=torch.float64)


@register("scaled-linear")
@dataclass(frozen=True)
class ScaledLinear(Table):
    """√β in equal steps (latent diffusion)."""

    steps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012

    @property
    def betas(self) -> Tensor:
        return torch.linspace(self.beta_start**0.5, self.beta_end**0.5, self.steps, dtype=torch.float64) ** 2


@register("cosine")
@dataclass(frozen=True)
class Cosine(Table):
    """ᾱ(t) ∝ cos²(π/2 · (t + s) / (1 + s)), s = 0.008, with β capped at max_beta (improved DDPM)."""

    steps: int = 1000
    max_beta: float = 0.999

    @property
    def betas(self) -> Tensor:
        t = torch.linspace(0, 1, self.steps + 1, dtype=torch.float64)
        alpha_bar = torch.cos((t + 0.008) / 1.008 * torch.pi / 2) ** 2
        return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=self.max_beta)


@register("sigmoid")
@dataclass(frozen=True)
class Sigmoid(Table):
    """β a sigmoid from −6 to 6, scaled to beta_start … beta_end (GeoDiff)."""

    steps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02

    @property
    def betas(self) -> Tensor:
        rise = torch.sigmoid(torch.linspace(-6, 6, self.steps, dtype=torch.float64))
        return rise * (self.beta_end - self.beta_start) + self.beta_start


@register("vp")
@dataclass(frozen=True)
class VP(VariancePreserving):
    """The variance-preserving SDE: log ᾱ(t) = −½ t² (β_max − β_min) − t β_min."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min <= self.beta_max:
            raise SettingError(f"vp needs 0 < beta_min <= beta_max, not {self.beta_min} and {self.beta_max}")

    def log_snr(self, t: Tensor) -> Tensor:
        log_alpha_bar = -0.5 * t**2 * (self.beta_max - self.beta_min) - t * self.beta_min
        return log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))

    def time(self, log_snr: Tensor) -> Tensor:
        # the positive root of ½ (β_max − β_min) t² + β_min t + log ᾱ = 0, in the form that does not cancel
        negative_log_alpha_bar = torch.nn.functional.softplus(-log_snr, threshold=1e6)
        rise = self.beta_max - self.beta_min
        return (
            2 * negative_log_alpha_bar / (self.beta_min + (self.beta_min**2 + 2 * rise * negative_log_alpha_bar).sqrt())
        )


@register("edm")
@dataclass(frozen=True)
class EDM(Schedule):
    """α = 1 and σ(t) = sigma_max t: noise is added and the data is left as it is."""

    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if self.sigma_max <= 0:
            raise SettingError(f"sigma_max must be positive, not {self.sigma_max}")

    @property
    def prior_std(self) -> float:  # type: ignore[override]
        return self.sigma_max

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_max * t

    def log_snr(self, t: Tensor) -> Tensor:
        return -2 * torch.log(self.sigma(t))

    def time(self, log_snr: Tensor) -> Tensor:
        return torch.exp(-log_snr / 2) / self.sigma_max

    def training_time(self, u: Tensor) -> Tensor:
        # log σ ~ N(−1.2, 1.2²): EDM, table 1
        return (torch.exp(1.2 * torch.special.ndtri(u) - 1.2) / self.sigma_max).clamp(max=1)


@register("flow")
@dataclass(frozen=True)
class Flow(Schedule):
    """α = 1 − t and σ = t: straight lines from data to noise (rectified flow, flow matching)."""

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def log_snr(self, t: Tensor) -> Tensor:
        return 2 * (torch.log1p(-t) - torch.log(t))

    def time(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-log_snr / 2)
