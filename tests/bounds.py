"""The whole variational bound: every stratum one step."""

from collections.abc import Callable

import torch
from torch import Tensor

from neblina.core.plan import Plan
from neblina.objectives.stratified import estimated_terms
from neblina.objectives.variational import Term
from neblina.processes.gaussian import GaussianProcess, Variance


def every_term(
    process: GaussianProcess,
    plan: Plan,
    x0: Tensor,
    times: Tensor,
    variance: Variance,
    noise: Callable[[Tensor], Tensor],
) -> list[Term]:
    """All N + 1 terms of the bound over times of shape (N + 1,)."""
    anywhere = torch.zeros(len(x0), len(times) - 2)
    rows = estimated_terms(process, plan, x0, times, anywhere, variances=[variance], noise=noise)
    return [term for (term,) in rows]
