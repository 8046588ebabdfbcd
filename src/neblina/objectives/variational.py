"""The variational bound on −log p(x_0), term by term, for any denoiser along any falling grid of times.

With 1 = t_N > … > t_1 > t_0 = 0,

    −log p(x_0) <= KL( q(x_1|x_0) ‖ p(x_1) )                                                      prior
                 + Σ_{i=2…N} E_q KL( q(x_{t_{i−1}} | x_{t_i}, x_0) ‖ p(x_{t_{i−1}} | x_{t_i}) )   steps
                 − E_q log p(x_0 | x_{t_1})                                                       reconstruction

Every divergence is of two normal distributions and in closed form; only x_t ~ q(x_t|x_0) is drawn, once a term, so
each term is an unbiased estimate. Both sides of a step are the process's own reverse step, under the clean data and
under the belief.

The reconstruction is of pixels, not of real numbers: a level x of 256 on [−1, 1] has the probability that the decoder
gives to the interval around it, the outermost intervals being open,

    p(x | x_t) = ∫_{x − 1/255}^{x + 1/255} N(u; x̂_0(x_t), σ_d²) du.

The decoder's variance σ_d² is the model's own: σ²_{t|0} for the large variance; for the small one, which vanishes here,
that of the step before; and a learned one lies between the two in the logarithm.

Sohl-Dickstein et al. Deep Unsupervised Learning using Nonequilibrium Thermodynamics. ICML 2015, eq. 14.
Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. NeurIPS 2020, eq. 5 and 13.
Nichol, Dhariwal. Improved Denoising Diffusion Probabilistic Models. ICML 2021, eq. 4 to 7 and 15.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neblina.core.errors import SettingError
from neblina.core.plan import Plan, Query, evaluate
from neblina.core.posterior import Gaussian, gaussian
from neblina.core.shapes import expand
from neblina.processes.divergences import divergence
from neblina.processes.gaussian import Eta, GaussianProcess, Large, Learned, Normal, Variance, learned_std

LEVELS = 256


@dataclass(frozen=True)
class Term:
    """One term of the bound.

    Attributes:
        name: "prior", "step" or "reconstruction".
        t, s: the times it goes from and to; the prior's are both 1.
        nats: of each sample, shape (B,).
        dimensions: numbers in a sample.
    """

    name: str
    t: float
    s: float
    nats: Tensor
    dimensions: int

    @property
    def bits_per_dim(self) -> Tensor:
        """Shape (B,)."""
        return self.nats / (self.dimensions * math.log(2))


def prior_term(process: GaussianProcess, x0: Tensor) -> Tensor:
    """KL(q(x_1|x_0) ‖ p(x_1)) in nats, shape (B,)."""
    zero, one = torch.zeros(len(x0), dtype=torch.float64), torch.ones(len(x0), dtype=torch.float64)
    start = Normal(torch.zeros_like(x0), process.schedule.prior_std * one)
    return divergence(process.forward(x0, zero, one), start)


def drawn_term(
    process: GaussianProcess,
    plan: Plan,
    x0: Tensor,
    t: Tensor,
    s: Tensor,
    before: Tensor | None,
    variances: Sequence[Variance],
    noise: Callable[[Tensor], Tensor],
) -> list[Tensor]:
    """The term from t to s under each of some variances, in nats, shape (B,): one draw and one answer serve them all.

    Args:
        plan: who answers.
        x0: clean data, shape (B, *).
        t, s: shape (B,); s is 0 in all samples, which makes it the reconstruction, or in none.
        before: where the step before the reconstruction came from, shape (B,), or None.
        variances: of the model's reverse step.
        noise: gives standard normal noise of a batch's shape.
    """
    x = process.diffuse(x0, noise(x0), t)
    belief = gaussian(evaluate(plan, Query(x, t)), "this bound")
    if float(s[0]) > 0:
        return [step_term(process, x0, x, t, s, belief, variance) for variance in variances]
    return [surprise(x0, decoder(process, t, before, belief, variance)) for variance in variances]


def step_term(
    process: GaussianProcess, x0: Tensor, x: Tensor, t: Tensor, s: Tensor, belief: Gaussian, variance: Variance
) -> Tensor:
    """KL(q(x_s|x_t, x_0) ‖ p(x_s|x_t)) in nats, shape (B,), at x_t = x under a belief, for 0 < s < t of shape (B,)."""
    truth = process.reverse(x, t, s, Gaussian(x0), Eta(1))
    return divergence(truth, process.reverse(x, t, s, belief, variance))


def decoder(process: GaussianProcess, t: Tensor, before: Tensor | None, belief: Gaussian, variance: Variance) -> Normal:
    """p(x_0 | x_t): the model's last step, from t to clean data, with a variance that does not vanish.

    Args:
        t: of the last step, shape (B,).
        before: where the step before it came from, shape (B,); None if there was none, which leaves σ²_{t|0} only.
        belief: at t, mean of shape (B, *).
    Raises:
        SettingError: a learned variance is asked for and the belief carries none.
    """
    large = process.added_variance(torch.zeros_like(t), t)
    small = large if before is None else process.true_variance(before, t)
    if isinstance(variance, Large):
        return Normal(belief.mean, large.sqrt())
    if isinstance(variance, Eta):
        return Normal(belief.mean, small.sqrt())
    if belief.variance_fraction is None:
        raise SettingError("this model did not learn its variance; bound it with the small or the large one")
    return Normal(belief.mean, learned_std(small, large, belief.variance_fraction.to(belief.mean.dtype)))


def surprise(x0: Tensor, decoded: Normal) -> Tensor:
    """−log p(x_0) of each sample's levels in nats, shape (B,)."""
    return -level_log_probability(x0, decoded).flatten(1).sum(1)


def level_log_probability(x0: Tensor, decoded: Normal) -> Tensor:
    """log of the probability of each entry's level, shape (B, *): the levels of [−1, 1] share the whole line.

    Args:
        x0: values in [−1, 1], shape (B, *), each read as its nearest level.
        decoded: a normal distribution with spread.
    """
    level = torch.round((x0 + 1) * (LEVELS - 1) / 2)
    centre = level * 2 / (LEVELS - 1) - 1
    std = expand(decoded.std, x0) if decoded.std is not None else torch.zeros_like(x0)
    low = (centre - 1 / (LEVELS - 1) - decoded.mean) / std
    high = (centre + 1 / (LEVELS - 1) - decoded.mean) / std
    # Φ(high) − Φ(low) = Φ(−low) − Φ(−high): taken in the left tail, where it keeps its digits
    right = low + high > 0
    below, above = torch.where(right, -high, low), torch.where(right, -low, high)
    lower, upper = _log_normal(below), _log_normal(above)
    # so far out that the two round to one, the difference is the larger's own size
    inside = upper + torch.log((-torch.expm1(lower - upper)).clamp(min=torch.finfo(upper.dtype).tiny))
    return torch.where(level <= 0, _log_normal(high), torch.where(level >= LEVELS - 1, _log_normal(-low), inside))


def _log_normal(z: Tensor) -> Tensor:
    """log Φ(z) with a gradient that keeps its digits in the left tail, where that of log_ndtr loses them all."""
    tail = z.clamp(max=-1)
    left = torch.log(torch.special.erfcx(-tail / math.sqrt(2)) / 2) - tail**2 / 2
    return torch.where(z < -1, left, torch.special.log_ndtr(z.clamp(min=-1)))


def check_variance(variance: Variance) -> None:
    """Refuse a variance whose bound is infinite.

    Raises:
        SettingError: Eta(η) with η < 1.
    """
    if isinstance(variance, Eta) and variance.eta != 1:
        raise SettingError(
            f"the variational bound is of ancestral steps, eta 1, and with eta {variance.eta:g} they are other ones; "
            "bound with Eta(1), Large() or Learned()"
        )
    assert isinstance(variance, Eta | Large | Learned)
