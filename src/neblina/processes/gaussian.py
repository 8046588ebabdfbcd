"""The Gaussian process: x_t = α_t x_0 + σ_t ε, its steps forward and its exact steps back.

Forward, for s < t:

    q(x_t | x_s) = N( (α_t/α_s) x_s,  σ²_{t|s} ),    σ²_{t|s} = σ_t² − (α_t/α_s)² σ_s²

Back, given the clean data, with the free variance of DDIM:

    q_η(x_s | x_t, x_0) = N( α_s x_0 + sqrt(σ_s² − η² σ̃²) ε̂,  η² σ̃² )
    σ̃² = (σ_s²/σ_t²) σ²_{t|s},    ε̂ = (x_t − α_t x_0)/σ_t

η = 1 is the true posterior (DDPM, eq. 7), η = 0 is deterministic. All of them have the marginals of the process, for
any stride, so a step is never an approximation of the process, only of the belief. Written with ratios,

    mean = (σ'/σ_t) x_t + (α_s − α_t σ'/σ_t) x̂_0,    σ' = sqrt(σ_s² − η² σ̃²),

it stays finite where α or σ vanishes, and is the identity at s = t.

A learned variance interpolates, in the logarithm, between the forward step's and the true posterior's,

    exp( v log σ²_{t|s} + (1 − v) log σ̃² ),

with a fraction v for every pixel that travels in the belief.

Song, Meng, Ermon. Denoising Diffusion Implicit Models. ICLR 2021, eq. 7, 12 and 16.
Nichol, Dhariwal. Improved Denoising Diffusion Probabilistic Models. ICML 2021, eq. 15.
Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. NeurIPS 2020, eq. 4, 6, 7 and section 3.2.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from neblina.core.errors import SettingError
from neblina.core.posterior import Gaussian
from neblina.core.shapes import expand
from neblina.processes.schedules import Schedule


@dataclass(frozen=True)
class Normal:
    """A normal distribution with one standard deviation a sample, or one an entry.

    Attributes:
        mean: shape (B, *).
        std: shape (B,), float64 on the CPU, or the mean's shape, on its device; None for a single point, which draws
            no noise.
    """

    mean: Tensor
    std: Tensor | None

    def sample(self, noise: Callable[[Tensor], Tensor]) -> Tensor:
        """One draw a sample. A std that happens to be 0 draws too, so that company never shifts a sample's draws."""
        if self.std is None:
            return self.mean
        return self.mean + expand(self.std, self.mean) * noise(self.mean)


@dataclass(frozen=True)
class Eta:
    """Reverse variance η² σ̃²: 0 deterministic, 1 the true posterior's.

    Raises:
        SettingError: η outside [0, 1], which would leave the process's marginals.
    """

    eta: float

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise SettingError(f"eta lies between 0 (deterministic) and 1 (ancestral), and {self.eta:g} does not")


@dataclass(frozen=True)
class Large:
    """Reverse variance σ²_{t|s} (DDPM's β_t), around the true posterior's mean; none in the step to clean data."""


@dataclass(frozen=True)
class Learned:
    """Reverse variance between σ̃² and σ²_{t|s}, at the fraction that the belief carries; none in the step to data."""


Variance = Eta | Large | Learned


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / denominator, and 1 where both vanish: the ratio of a coefficient to itself."""
    return torch.where((numerator == 0) & (denominator == 0), 1.0, numerator / denominator)


def learned_std(small: Tensor, large: Tensor, fraction: Tensor) -> Tensor:
    """The standard deviation whose square lies between two variances, shape (B,), at fractions of shape (B, *)."""
    return torch.exp(torch.lerp(expand(small.log(), fraction), expand(large.log(), fraction), fraction) / 2)


@dataclass(frozen=True)
class GaussianProcess:
    """The process of a schedule. Times are float64 tensors of shape (B,) on the CPU."""

    schedule: Schedule

    def forward(self, x: Tensor, s: Tensor, t: Tensor) -> Normal:
        """q(x_t | x_s = x) for s <= t; s = 0 is clean data. x of shape (B, *)."""
        carried = ratio(self.schedule.alpha(t), self.schedule.alpha(s))
        return Normal(expand(carried, x) * x, self.added_variance(s, t).sqrt())

    def diffuse(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t = α_t x_0 + σ_t ε for given noise, both of shape (B, *)."""
        return expand(self.schedule.alpha(t), x0) * x0 + expand(self.schedule.sigma(t), x0) * noise

    def reverse(self, x: Tensor, t: Tensor, s: Tensor, posterior: Gaussian, variance: Variance) -> Normal:
        """The step from x at time t back to time s <= t under a belief about the clean data, shape (B, *).

        Raises:
            SettingError: a learned variance is asked for and the belief carries none.
        """
        alpha_t, sigma_t = self.schedule.alpha(t), self.schedule.sigma(t)
        alpha_s, sigma_s = self.schedule.alpha(s), self.schedule.sigma(s)
        eta = variance.eta if isinstance(variance, Eta) else 1.0
        true = self.true_variance(t, s) if eta else torch.zeros_like(s)
        keep = ratio((sigma_s**2 - eta**2 * true).clamp(min=0).sqrt(), sigma_t)
        if posterior.unclipped_mean is None:
            mean = expand(keep, x) * x + expand(alpha_s - alpha_t * keep, x) * posterior.mean
        else:
            direction = x - expand(alpha_t, x) * posterior.unclipped_mean
            mean = expand(alpha_s, x) * posterior.mean + expand(keep, x) * direction
        return Normal(mean, self._spread(x, t, s, posterior, variance, true))

    def _spread(
        self, x: Tensor, t: Tensor, s: Tensor, posterior: Gaussian, variance: Variance, true: Tensor
    ) -> Tensor | None:
        """The standard deviation of a reverse step, shape (B,) or, where it is learned, (B, *), given σ̃²."""
        if isinstance(variance, Eta):
            return variance.eta * true.sqrt() if variance.eta else None
        moves = (self.schedule.sigma(s) > 0) & (s < t)
        large = torch.where(moves, self.added_variance(s, t), 0.0)
        if isinstance(variance, Large):
            return large.sqrt()
        if posterior.variance_fraction is None:
            raise SettingError("this model did not learn its variance; sample with ddpm or ddpm_large")
        small, large = (torch.where(moves, one, 1.0) for one in (true, large))
        return expand(moves.double(), x) * learned_std(small, large, posterior.variance_fraction.to(x.dtype))

    def implied_noise(self, x: Tensor, t: Tensor, posterior: Gaussian) -> Tensor:
        """ε̂ = (x − α_t x̂_0)/σ_t, shape (B, *), 0 where σ_t is."""
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        return expand(torch.where(sigma > 0, 1 / sigma, 0.0), x) * (x - expand(alpha, x) * posterior.mean)

    def score(self, x: Tensor, t: Tensor, posterior: Gaussian) -> Tensor:
        """∇ log p_t(x) = (α_t x̂_0 − x)/σ_t², shape (B, *), 0 where σ_t is."""
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        safe = torch.where(sigma > 0, 1 / sigma**2, 0.0)
        return expand(alpha * safe, x) * posterior.mean - expand(safe, x) * x

    def prior(self, noise: Tensor) -> Tensor:
        """Where sampling starts: x_1, from standard normal noise of shape (B, *)."""
        return self.schedule.prior_std * noise

    def added_variance(self, s: Tensor, t: Tensor) -> Tensor:
        """σ²_{t|s} of q(x_t | x_s), s <= t, never below 0; shape (B,)."""
        carried = ratio(self.schedule.alpha(t), self.schedule.alpha(s))
        return (self.schedule.sigma(t) ** 2 - carried**2 * self.schedule.sigma(s) ** 2).clamp(min=0)

    def true_variance(self, t: Tensor, s: Tensor) -> Tensor:
        """σ̃² of q(x_s | x_t, x_0), s <= t; shape (B,)."""
        return ratio(self.schedule.sigma(s), self.schedule.sigma(t)) ** 2 * self.added_variance(s, t)
