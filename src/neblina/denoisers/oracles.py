"""Exact denoisers: data whose posterior is known in closed form, to prove everything else with.

For a mixture of isotropic Gaussians, p(x_0) = Σ_k w_k N(m_k, s_k² I),

    q(x_0 | x_t) mixes N(m_k + g_k (x_t − α m_k), …),    g_k = α s_k² / v_k,    v_k = α² s_k² + σ²,
    with responsibilities r_k = p(k | x_t) ∝ w_k N(x_t; α m_k, v_k I), which is also the exact classifier.

One component is the Gaussian, s_k = 0 is a finite dataset, and a label that picks a component is a class-conditional
model.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from neblina.core.conditions import NULL_LABEL, Condition
from neblina.core.posterior import Gaussian
from neblina.core.shapes import expand
from neblina.denoisers.classifier import NoisyClassifier
from neblina.processes.gaussian import GaussianProcess


@dataclass(frozen=True)
class MixtureDenoiser:
    """The exact denoiser of a mixture; label k conditions on component k, the null on none.

    Attributes:
        process: how the data is corrupted.
        means: m_k, shape (K, *), float64.
        stds: s_k, shape (K,).
        weights: w_k, shape (K,), sum 1.
    """

    process: GaussianProcess
    means: Tensor
    stds: Tensor
    weights: Tensor

    def posterior(self, x: Tensor, t: Tensor, condition: Condition) -> Gaussian:
        """E[x_0 | x_t = x], exactly; x of shape (B, *)."""
        alpha, variance, offset = self._parts(x, t)
        logits = self.log_joint(x, t)
        if condition.labels is not None:
            given = condition.labels[:, None]
            other = (given != NULL_LABEL) & (given != torch.arange(len(self.weights)))
            logits = logits.masked_fill(other, -torch.inf)
        responsibility = logits.softmax(1)
        gain = alpha * self.stds**2 / variance
        means = self.means + expand(gain, offset) * offset
        return Gaussian((expand(responsibility, means) * means).sum(1))

    def log_joint(self, x: Tensor, t: Tensor) -> Tensor:
        """log w_k N(x; α m_k, v_k I) up to a constant, shape (B, K)."""
        _, variance, offset = self._parts(x, t)
        distance = offset.flatten(2).square().sum(2)
        dimensions = offset[0, 0].numel()
        return self.weights.log() - distance / (2 * variance) - dimensions / 2 * variance.log()

    def _parts(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """α (B, 1), v_k (B, K) and x − α m_k (B, K, *)."""
        alpha = self.process.schedule.alpha(t)[:, None]
        variance = (alpha * self.stds) ** 2 + self.process.schedule.sigma(t)[:, None] ** 2
        # at t = 0 the nearest component takes it all
        return alpha, variance.clamp(min=1e-30), x[:, None] - expand(alpha, x[:, None]) * self.means


@dataclass(frozen=True)
class MixtureClassifier(NoisyClassifier):
    """The exact classifier of a mixture's noisy data: which component it came from."""

    mixture: MixtureDenoiser

    @property
    def process(self) -> GaussianProcess:  # type: ignore[override]
        return self.mixture.process

    @property
    def num_classes(self) -> int:  # type: ignore[override]
        return len(self.mixture.weights)

    def log_probabilities(self, x: Tensor, t: Tensor) -> Tensor:
        return self.mixture.log_joint(x, t).log_softmax(1)


def gaussian_denoiser(
    process: GaussianProcess, mean: float, std: float, shape: tuple[int, ...] = (1,)
) -> MixtureDenoiser:
    """The exact denoiser of N(mean, std² I) over data of one shape."""
    means = torch.full((1, *shape), mean, dtype=torch.float64)
    return MixtureDenoiser(process, means, means.new_tensor([std]), means.new_ones(1))


def dataset_denoiser(process: GaussianProcess, points: Tensor) -> MixtureDenoiser:
    """The exact denoiser of a finite dataset, shape (K, *), every point equally likely."""
    points = points.double()
    count = len(points)
    return MixtureDenoiser(process, points, points.new_zeros(count), points.new_full((count,), 1 / count))
