"""The times of the variational bound, and the bound from some of its terms: unbiased, at a fraction of the evaluations.

A sum of M terms L_i in K strata of m_j neighbours each is

    Σ_i L_i = Σ_j m_j E[ L_{i_j} ],    i_j uniform in stratum j,

so one term a stratum, times the stratum's size, has the sum as its mean. The strata are even in the log-SNR λ, a unit
of which is worth at most ½ nat a dimension (½ SNR E(x_0 − x̂_0)² dλ, and x_t/α alone has the error 1/SNR): the few steps
next to the data, which are worth most, become strata of their own. K = M is the whole sum. The prior's term and the
reconstruction are always there in full.

Kingma et al. Variational Diffusion Models. NeurIPS 2021, eq. 13 (the sum as an expectation over its index).
Owen. Monte Carlo Theory, Methods and Examples. 2013, section 8.4 (stratification).
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from neblina.core.errors import SettingError
from neblina.core.plan import Plan
from neblina.objectives.variational import LEVELS, Term, check_variance, drawn_term, prior_term
from neblina.processes.gaussian import GaussianProcess, Variance
from neblina.processes.grids import make_grid
from neblina.processes.schedules import Schedule

_STEPS = 1000  # on a schedule without steps of its own
_LEVEL = 2 / (LEVELS - 1)
_WORTH = (-10.0, 15.0)  # the log-SNR outside of which nothing of a picture is decided


def bound_times(schedule: Schedule, steps: int | None) -> Tensor:
    """The times of the bound, float64 of shape (N + 1,), falling from 1 to 0.

    A discrete schedule's own steps, or fewer of them, evenly. Elsewhere 1, then ratios σ/α even in the logarithm from
    100 to the ratio that is one level wide, then 0: a model of real numbers does not know that there are levels, and
    pays for every step below.

    Raises:
        SettingError: fewer than 3 steps, or more than a discrete schedule has.
    """
    count = steps if steps is not None else schedule.steps or _STEPS
    if count < 3:
        raise SettingError(f"the variational bound takes at least 3 steps, not {count}")
    if schedule.steps is not None:
        return make_grid("uniform", schedule, count)
    end = torch.ones(1, dtype=torch.float64)
    noisiest = float(schedule.ratio(end))
    if noisiest > 100:
        ratios = torch.logspace(2, math.log10(_LEVEL), count - 1, dtype=torch.float64)
    else:
        ratios = torch.logspace(math.log10(noisiest), math.log10(_LEVEL), count, dtype=torch.float64)[1:]
    return torch.cat([end, schedule.time(-2 * ratios.log()), 0 * end])


def strata(schedule: Schedule, times: Tensor, terms: int) -> Tensor:
    """Where strata of the bound's steps begin and end, as even in the log-SNR as can be: shape (terms + 1,), int64.

    Args:
        times: of the bound, shape (N + 1,): N − 1 steps, and the reconstruction.
        terms: how many strata.
    Raises:
        SettingError: fewer terms than 1, or more than there are steps.
    """
    steps = len(times) - 2
    if not 1 <= terms <= steps:
        raise SettingError(f"the bound has {steps} steps to take terms from; terms {terms} is not 1 … {steps}")
    reached = schedule.log_snr(times[:-1]).clamp(*_WORTH)
    wanted = torch.linspace(float(reached[0]), float(reached[-1]), terms + 1, dtype=torch.float64)
    edges = torch.searchsorted(reached, wanted)
    edges[0], edges[-1] = 0, steps
    numbers = torch.arange(terms + 1)
    edges = torch.cummax(edges - numbers, 0).values + numbers  # at least one step each, from the left
    return torch.minimum(edges, steps - terms + numbers)


def estimated_terms(
    process: GaussianProcess,
    plan: Plan,
    x0: Tensor,
    times: Tensor,
    uniform: Tensor,
    *,
    variances: Sequence[Variance],
    noise: Callable[[Tensor], Tensor],
) -> Iterator[tuple[Term, ...]]:
    """The prior's term, one a stratum times its size, and the reconstruction: K + 2, one answer each but the first.

    With as many strata as steps these are all the terms of the bound, wherever in its stratum one stands.

    Args:
        plan: who answers.
        x0: clean data on the 256 levels of [−1, 1], shape (B, *).
        times: float64 of shape (N + 1,), falling from 1 to 0, N >= 2.
        uniform: where in its stratum each sample's term stands, in [0, 1), shape (B, K).
        variances: of the model's reverse steps; the answers serve all of them.
        noise: gives standard normal noise of a batch's shape, one draw a term but the first.
    Raises:
        SettingError: times that do not fall from 1 to 0; a variance that makes a point of every step; a learned one
            from a model that learned none.
    Yields:
        The term under each variance. t and s of a step are the ends of its stratum, and its value is an unbiased
        estimate of the sum over the stratum.
    """
    if times.ndim != 1 or float(times[0]) != 1 or float(times[-1]) != 0 or bool((times.diff() >= 0).any()):
        raise SettingError("the variational bound takes times of shape (N + 1,) that fall from 1 to 0")
    for variance in variances:
        check_variance(variance)
    dimensions = x0[0].numel()
    edges = strata(process.schedule, times, uniform.shape[1])
    yield (Term("prior", 1.0, 1.0, prior_term(process, x0), dimensions),) * len(variances)
    for number, (start, end) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
        size = end - start
        place = start + (uniform[:, number] * size).long().clamp(max=size - 1)
        each = drawn_term(process, plan, x0, times[place], times[place + 1], None, variances, noise)
        ends = float(times[start]), float(times[end])
        yield tuple(Term("step", *ends, size * nats, dimensions) for nats in each)
    before, t, s = times[-3:, None].expand(-1, len(x0))
    each = drawn_term(process, plan, x0, t, s, before, variances, noise)
    yield tuple(Term("reconstruction", float(t[0]), 0.0, nats, dimensions) for nats in each)
