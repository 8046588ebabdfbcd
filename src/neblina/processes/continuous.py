"""Continuous-time schedules: the stochastic differential equations of the field, and straight lines.

| name | f(t) | g²(t) | α(t) | σ²(t) |
| --- | --- | --- | --- | --- |
| vp     | −½ β | β | e^(−B/2) | 1 − e^(−B) |
| sub-vp | −½ β | β (1 − e^(−2B)) | e^(−B/2) | (1 − e^(−B))² |
| ve     | 0 | dσ²/dt | 1 | σ_min² ((σ_max/σ_min)^(2t) − 1) |
| edm    | 0 | 2 σ_max² t | 1 | σ_max² t² |
| flow   | −1/(1 − t) | 2t/(1 − t) | 1 − t | t² |

with β(t) = β_min + t (β_max − β_min) and B(t) = ∫_0^t β.

Song et al. Score-Based Generative Modeling through SDEs. ICLR 2021, eq. 29 to 33 and appendix C.
Karras et al. Elucidating the Design Space of Diffusion-Based Generative Models. NeurIPS 2022, table 1 (EDM).
Lipman et al. Flow Matching for Generative Modeling. ICLR 2023; Liu et al. Flow Straight and Fast. ICLR 2023 (flow).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from neblina.core.errors import SettingError
from neblina.processes.schedules import Schedule, VariancePreserving, register, remembered


@dataclass(frozen=True)
class _LinearRate:
    """β rises linearly in t.

    Attributes:
        beta_min, beta_max: β at t = 0 and 1.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min <= self.beta_max < math.inf:
            raise SettingError(f"it takes 0 < beta_min <= beta_max, not {self.beta_min} and {self.beta_max}")

    def rate(self, t: Tensor) -> Tensor:
        """β(t)."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def total(self, t: Tensor) -> Tensor:
        """B(t)."""
        return 0.5 * t**2 * (self.beta_max - self.beta_min) + t * self.beta_min

    def reached(self, total: Tensor) -> Tensor:
        """The t at which B(t) = total: the root of a quadratic, in the form that does not cancel."""
        rise = self.beta_max - self.beta_min
        finite = total.clamp(max=1e30)
        return 2 * finite / (self.beta_min + (self.beta_min**2 + 2 * rise * finite).sqrt())


@register("vp")
@dataclass(frozen=True)
class VP(_LinearRate, VariancePreserving):
    """The variance-preserving SDE."""

    @remembered
    def log_snr(self, t: Tensor) -> Tensor:
        return -self.total(t) - torch.log(-torch.expm1(-self.total(t)))

    def time(self, log_snr: Tensor) -> Tensor:
        return self.reached(torch.nn.functional.softplus(-log_snr, threshold=1e6))


@register("sub-vp")
@dataclass(frozen=True)
class SubVP(_LinearRate, Schedule):
    """The sub-VP SDE: the drift of vp, and a variance that stays below it."""

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-self.total(t) / 2)

    def sigma(self, t: Tensor) -> Tensor:
        return -torch.expm1(-self.total(t))

    def log_snr(self, t: Tensor) -> Tensor:
        return -self.total(t) - 2 * torch.log(-torch.expm1(-self.total(t)))

    def time(self, log_snr: Tensor) -> Tensor:
        # k = σ/α = (1 − α²)/α, so 1 − α = (k + k²/(S + 2)) / (k + S) with S² = k² + 4
        k = torch.exp(-log_snr / 2).clamp(max=1e15)
        root = (k**2 + 4).sqrt()
        return self.reached(-2 * torch.log1p(-(k + k**2 / (root + 2)) / (k + root)))

    def drift(self, t: Tensor) -> Tensor:
        return -self.rate(t) / 2

    def diffusion(self, t: Tensor) -> Tensor:
        return (self.rate(t) * -torch.expm1(-2 * self.total(t))).sqrt()


@register("ve")
@dataclass(frozen=True)
class VE(Schedule):
    """The variance-exploding SDE, from clean data: σ² grows geometrically from 0, not from σ_min²."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise SettingError(f"ve needs 0 < sigma_min < sigma_max, not {self.sigma_min} and {self.sigma_max}")

    @property
    def prior_std(self) -> float:  # type: ignore[override]
        return math.sqrt(self.sigma_max**2 - self.sigma_min**2)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * torch.expm1(2 * self._growth * t).sqrt()

    def log_snr(self, t: Tensor) -> Tensor:
        return -2 * torch.log(self.sigma(t))

    def time(self, log_snr: Tensor) -> Tensor:
        return torch.log1p(torch.exp(-log_snr) / self.sigma_min**2) / (2 * self._growth)

    def drift(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def diffusion(self, t: Tensor) -> Tensor:
        return self.sigma_min * torch.exp(self._growth * t) * math.sqrt(2 * self._growth)

    @property
    def _growth(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)


@register("edm")
@dataclass(frozen=True)
class EDM(Schedule):
    """α = 1 and σ(t) = sigma_max t: noise is added and the data is left as it is."""

    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_max < math.inf:
            raise SettingError(f"sigma_max must be positive and finite, not {self.sigma_max}")

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

    def drift(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def diffusion(self, t: Tensor) -> Tensor:
        return self.sigma_max * (2 * t).sqrt()

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

    def drift(self, t: Tensor) -> Tensor:
        return -1 / (1 - t)

    def diffusion(self, t: Tensor) -> Tensor:
        return (2 * t / (1 - t)).sqrt()
