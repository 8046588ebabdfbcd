"""Discrete-time schedules: published tables of β_1 … β_T, read at any time.

With ᾱ_n = Π (1 − β_i), α² = ᾱ and σ² = 1 − ᾱ at t = n / T. Between the table's points λ is interpolated linearly;
before the first one σ²/α² falls linearly to 0 at t = 0. A table rescaled to zero terminal signal-to-noise ratio has
ᾱ_T = 0, and in its last interval α²/σ² falls linearly to 0.

Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. NeurIPS 2020, section 4 (linear).
Rombach et al. High-Resolution Image Synthesis with Latent Diffusion Models. CVPR 2022 (scaled linear).
Nichol, Dhariwal. Improved Denoising Diffusion Probabilistic Models. ICML 2021, eq. 17 (cosine).
Xu et al. GeoDiff. ICLR 2022 (sigmoid).
Lin et al. Common Diffusion Noise Schedules and Sample Steps are Flawed. WACV 2024, algorithm 1 (zero terminal SNR).
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from neblina.core.errors import SettingError
from neblina.processes.schedules import VariancePreserving, register, remembered


@dataclass(frozen=True)
class Table(VariancePreserving):
    """A discrete-time schedule given by its published table.

    Attributes:
        steps: T.
        zero_snr: shift and scale √ᾱ so that nothing is left of the data at t = 1. eps then says nothing there.
    """

    steps: int = 1000
    zero_snr: bool = False

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise SettingError(f"a discrete schedule has at least 2 steps, not {self.steps}")
        betas = self.betas
        if betas.shape != (self.steps,) or not bool(((betas > 0) & (betas < 1)).all()):
            raise SettingError(f"every beta of the {self.name} schedule must lie between 0 and 1")

    @property
    @abstractmethod
    def betas(self) -> Tensor:
        """β_1 … β_T before any rescaling, shape (T,)."""

    @cached_property
    def table(self) -> Tensor:
        """λ at n / T for n = 1 … T, shape (T,); the last is −∞ with zero_snr."""
        log_alpha_bar = torch.log1p(-self.betas).cumsum(0)
        if self.zero_snr:
            root = torch.exp(log_alpha_bar / 2)
            log_alpha_bar = 2 * ((root - root[-1]) * root[0] / (root[0] - root[-1])).log()
        return log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))

    @remembered
    def log_snr(self, t: Tensor) -> Tensor:
        place, left = self._place(t)
        inside = torch.lerp(self.table[left], self._next[left], place - left)
        vanishing = self.table[-2] + torch.log1p(-(place - left))
        inside = torch.where(self._vanishes(left), vanishing, inside)
        return torch.where(place < 0, self.table[0] - torch.log(t * self.steps), inside)

    def rate(self, t: Tensor) -> Tensor:
        place, left = self._place(t)
        slope = self.steps * (self.table[left] - self._next[left])
        slope = torch.where(self._vanishes(left), self.steps / (1 - (place - left)), slope)
        # before the first point σ² dλ/dt = −σ²/t, and σ²/t = α² T exp(−λ_1) is finite at t = 0
        first = self.alpha(t) ** 2 * self.steps * torch.exp(-self.table[0])
        return torch.where(place < 0, first, self.sigma(t) ** 2 * slope)

    def training_time(self, u: Tensor) -> Tensor:
        return (u * self.steps).ceil().clamp(1, self.steps) / self.steps

    def time(self, log_snr: Tensor) -> Tensor:
        ascending = self.table.flip(0)
        right = torch.searchsorted(ascending, log_snr.contiguous()).clamp(1, self.steps - 1)
        low, high = ascending[right - 1], ascending[right]
        place = self.steps - right - (log_snr - low) / (high - low)
        if self.zero_snr:
            place = torch.where(log_snr < self.table[-2], self.steps - 1 - torch.exp(log_snr - self.table[-2]), place)
        before = torch.exp(self.table[0] - log_snr)
        return torch.where(log_snr > self.table[0], before, place + 1) / self.steps

    @cached_property
    def _next(self) -> Tensor:
        """λ at (n + 1) / T, finite: the interval whose end is −∞ is read otherwise."""
        return self.table[1:].clamp(min=-1e6)

    def _place(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Where t lies among the points, counted from 0 at 1 / T, and the point to its left."""
        place = t * self.steps - 1
        return place, place.floor().clamp(0, self.steps - 2).long()

    def _vanishes(self, left: Tensor) -> Tensor:
        return (left == self.steps - 2) & self.zero_snr


@register("linear")
@dataclass(frozen=True)
class Linear(Table):
    """β from beta_start to beta_end in equal steps (DDPM)."""

    beta_start: float = 1e-4
    beta_end: float = 0.02

    @property
    def betas(self) -> Tensor:
        return torch.linspace(self.beta_start, self.beta_end, self.steps, dtype=torch.float64)


@register("scaled-linear")
@dataclass(frozen=True)
class ScaledLinear(Table):
    """√β in equal steps (latent diffusion)."""

    beta_start: float = 0.00085
    beta_end: float = 0.012

    @property
    def betas(self) -> Tensor:
        start, end = (math.sqrt(max(beta, 0.0)) for beta in (self.beta_start, self.beta_end))
        return torch.linspace(start, end, self.steps, dtype=torch.float64) ** 2


@register("cosine")
@dataclass(frozen=True)
class Cosine(Table):
    """ᾱ(t) ∝ cos²(π/2 · (t + s) / (1 + s)), s = 0.008, with β capped at max_beta (improved DDPM)."""

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

    beta_start: float = 1e-4
    beta_end: float = 0.02

    @property
    def betas(self) -> Tensor:
        rise = torch.sigmoid(torch.linspace(-6, 6, self.steps, dtype=torch.float64))
        return rise * (self.beta_end - self.beta_start) + self.beta_start


@register("betas")
@dataclass(frozen=True)
class Betas(Table):
    """A table of one's own.

    Attributes:
        values: β_1 … β_T; `steps` is their number.
    """

    values: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.steps not in (Table.steps, len(self.values)):
            raise SettingError(f"a table of {len(self.values)} betas has {len(self.values)} steps, not {self.steps}")
        object.__setattr__(self, "values", tuple(self.values))
        object.__setattr__(self, "steps", len(self.values))
        super().__post_init__()

    @property
    def betas(self) -> Tensor:
        return torch.tensor(self.values, dtype=torch.float64)
