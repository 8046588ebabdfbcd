"""The Kullback-Leibler divergence of two normal distributions, in closed form.

For independent entries,

    KL(P ‖ Q) = Σ_i ½ ( r_i − 1 − log r_i + (μ_P,i − μ_Q,i)² / σ_Q,i² ),    r_i = σ_P,i² / σ_Q,i²,

in nats. A standard deviation of 0 is a single point. Two equal points do not diverge; any other pair with a point in it
is not absolutely continuous one way or the other, and its divergence is infinite.

Kullback, Leibler. On Information and Sufficiency. Annals of Mathematical Statistics 1951.
Kingma, Welling. Auto-Encoding Variational Bayes. ICLR 2014, appendix B.
"""

import torch
from torch import Tensor

from neblina.core.shapes import expand
from neblina.processes.gaussian import Normal


def divergence(p: Normal, q: Normal) -> Tensor:
    """KL(P ‖ Q) of each sample in nats, summed over its entries: shape (B,), the means' dtype; ∞ between points."""
    spread = _spread(p, q)
    scale = _std(q, q.mean)
    gap = ((p.mean - q.mean) / torch.where(scale > 0, scale, 1.0)).square()
    gap = torch.where((scale == 0) & (p.mean != q.mean), torch.inf, gap)
    return (expand(spread, gap) + gap).flatten(1).sum(1) / 2


def _spread(p: Normal, q: Normal) -> Tensor:
    """r − 1 − log r, shape (B,) in float64 where both deviations are a number a sample, else the means'."""
    if all(one.std is None or one.std.ndim == 1 for one in (p, q)):
        like = p.mean.new_zeros(len(p.mean), dtype=torch.float64, device="cpu")
    else:
        like = p.mean
    first, second = _std(p, like), _std(q, like)
    points = (first == 0).long() + (second == 0).long()
    # no logarithm of 0 is taken, so that no gradient is NaN either
    log_ratio = 2 * (torch.where(points > 0, 1.0, first).log() - torch.where(points > 0, 1.0, second).log())
    return torch.where(points == 1, torch.inf, torch.expm1(log_ratio) - log_ratio)


def _std(normal: Normal, like: Tensor) -> Tensor:
    """The standard deviations against `like`; 0 for a point."""
    return torch.zeros_like(like) if normal.std is None else expand(normal.std, like)
