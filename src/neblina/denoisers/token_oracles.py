"""The exact denoiser of tokens whose law is enumerated, to prove everything else with.

Of M points m with weights w_m, each a row of tokens that are corrupted independently,

    p(m | x_t) ∝ w_m Π_i q(x_t^i | m^i),    p(x_0^i = k | x_t) = Σ_m p(m | x_t) [m^i = k].
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from neblina.core.conditions import NULL_LABEL, Condition
from neblina.core.logs import ZERO, log
from neblina.core.posterior import Categorical
from neblina.processes.discrete import DiscreteProcess, one_hot


@dataclass(frozen=True)
class EnumeratedDenoiser:
    """The exact denoiser; label k conditions on the points that bear it, the null on none.

    Attributes:
        process: how the tokens are corrupted.
        points: m, int64 of shape (M, *).
        weights: w_m, shape (M,), float64, sum 1.
        labels: of the points, shape (M,), or None.
    """

    process: DiscreteProcess
    points: Tensor
    weights: Tensor
    labels: Tensor | None = None

    def posterior(self, x: Tensor, t: Tensor, condition: Condition) -> Categorical:
        """p(x_0 | x_t = x) of every token, exactly; x of shape (B, *)."""
        logits = self.log_joint(x, t)
        if condition.labels is not None and self.labels is not None:
            given = condition.labels[:, None]
            logits = logits.masked_fill((given != NULL_LABEL) & (given != self.labels), ZERO)
        which = logits.softmax(1)
        own = one_hot(self.points, self.process.kernel.classes, torch.float64).exp()
        return Categorical(log(torch.tensordot(which, own, 1)))

    def log_joint(self, x: Tensor, t: Tensor) -> Tensor:
        """log w_m q(x_t | m), shape (B, M), float64."""
        count = len(self.points)
        logits = torch.empty(len(x), count, dtype=torch.float64)
        for time in sorted(set(t.tolist())):
            own = t == time
            law = self.process.marginal(self.points, torch.full((count,), time, dtype=torch.float64), torch.float64)
            seen = x[own][:, None, ..., None].expand(-1, count, *self.points.shape[1:], 1)
            found = law.expand(len(seen), *law.shape).gather(-1, seen)[..., 0]
            logits[own] = self.weights.log() + found.flatten(2).sum(2)
        return logits.clamp(min=ZERO)
