"""Classifiers of noisy data, and the shift of the belief that a class makes.

Given p(y | x_t), the belief under the class is that without it plus

    E[x_0 | x_t, y] − E[x_0 | x_t] = (σ²/α) ∇_x log p(y | x_t)

(Tweedie's formula twice). Where α = 0 the noisy data says nothing of the class, the gradient is 0, and so is the shift
taken to be; at σ = 0 there is nothing left to shift.

Dhariwal, Nichol. Diffusion Models Beat GANs on Image Synthesis. NeurIPS 2021, section 4.
Efron. Tweedie's Formula and Selection Bias. JASA 2011.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neblina.core.conditions import NULL_LABEL, Condition
from neblina.core.errors import SettingError
from neblina.core.posterior import Gaussian
from neblina.core.shapes import expand
from neblina.denoisers.parameterisations import clocks, parameterisations
from neblina.processes.gaussian import GaussianProcess


class NoisyClassifier(ABC):
    """Says of noisy data which class it will be. A leaf of a plan, as a denoiser is; its answer is a shift."""

    process: GaussianProcess
    num_classes: int

    @abstractmethod
    def log_probabilities(self, x: Tensor, t: Tensor) -> Tensor:
        """log p(y | x_t = x) of every class, shape (B, K), for x of shape (B, *) at times t of shape (B,)."""

    def posterior(self, x: Tensor, t: Tensor, condition: Condition) -> Gaussian:
        """How far the classes move the belief: a mean of shape (B, *), 0 for samples whose label is the null.

        Raises:
            SettingError: no labels, or a label out of range.
        """
        labels = self.labels(condition)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            scores = self.log_probabilities(x, t)
            wanted = scores.gather(1, labels.clamp(min=0)[:, None].to(x.device))
            (gradient,) = torch.autograd.grad(wanted.sum(), x)
        alpha, sigma = self.process.schedule.alpha(t), self.process.schedule.sigma(t)
        moves = (alpha > 0) & (sigma > 0) & (labels.cpu() != NULL_LABEL)
        weight = expand(torch.where(moves, sigma**2 / alpha, 0.0), x)
        return Gaussian(torch.where(weight > 0, weight * gradient, 0.0))

    def labels(self, condition: Condition) -> Tensor:
        """The labels, shape (B,), which may hold the null.

        Raises:
            SettingError: no labels, or a label out of range.
        """
        labels = condition.labels
        if labels is None:
            raise SettingError(f"a classifier guides towards a class: say which, 0 … {self.num_classes - 1}")
        out = labels[(labels < NULL_LABEL) | (labels >= self.num_classes)]
        if len(out):
            raise SettingError(f"label {int(out[0])} is out of range: the classifier knows 0 … {self.num_classes - 1}")
        return labels


@dataclass(frozen=True)
class NetworkClassifier(NoisyClassifier):
    """A network that classifies noisy data.

    Attributes:
        net: called as net(x, time), x scaled to a standard deviation of about 1; returns scores, shape (B, K).
        process: that it was trained on.
        num_classes: K.
    """

    net: nn.Module
    process: GaussianProcess
    num_classes: int

    def log_probabilities(self, x: Tensor, t: Tensor) -> Tensor:
        return self.scores(x, t).float().log_softmax(1)

    def scores(self, x: Tensor, t: Tensor) -> Tensor:
        """What the network says, log p up to a constant a sample, shape (B, K), in the network's dtype."""
        schedule = self.process.schedule
        scale = parameterisations["edm"].scale(schedule.alpha(t), schedule.sigma(t))
        dtype = next((parameter.dtype for parameter in self.net.parameters()), x.dtype)
        time = clocks["time"](schedule, t).to(x.device, torch.float32, non_blocking=True)
        scores: Tensor = self.net((expand(scale, x) * x).to(dtype), time)
        return scores
