"""Guidance between two noise levels only.

Guidance is harmful at high noise, where it narrows what can still become of the sample, and not needed at low noise,
where the belief is sure. So

    w(σ) = w   for σ_low <= σ <= σ_high,    else 1,

with σ the noise level σ(t)/α(t), in which the paper's figures hold for every schedule. (The paper's interval is open at
its lower end, which no grid of times can tell.) Outside, nothing but the plain plan is asked.

Kynkäänniemi et al. Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion
Models. NeurIPS 2024, section 3.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from neblina.core.errors import SettingError
from neblina.core.plan import Combine, Leaf, Plan, Query
from neblina.core.posterior import Posterior
from neblina.guidance.composing import averaged, gathered
from neblina.guidance.registry import register
from neblina.processes.schedules import Schedule


@register("interval", source="Kynkäänniemi et al. 2024, section 3", low=0.0, high=math.inf)
def interval(guided: Plan, plain: Plan, schedule: Schedule, *, low: float = 0.0, high: float = math.inf) -> Plan:
    """`guided` for samples whose noise level lies in [low, high], `plain` for the others.

    Samples of one batch may be at different times: only those inside are asked what guidance asks.

    Args:
        guided, plain: the two plans.
        schedule: that the times are of.
        low, high: noise levels σ/α, from 0 at t = 0 to infinity where nothing is left of the data.
    Raises:
        SettingError: an interval that is upside down or holds nothing.
    """
    check_interval(low, high)

    def plan(query: Query) -> tuple[list[Leaf], Combine]:
        level = schedule.ratio(query.t)
        inside = (level >= low) & (level <= high)
        if bool(inside.all()):
            return guided(query)
        if not bool(inside.any()):
            return plain(query)
        places = [inside.nonzero()[:, 0], (~inside).nonzero()[:, 0]]
        leaves, beliefs = gathered(
            [part(_picked(query, own)) for part, own in zip((guided, plain), places, strict=True)]
        )
        back = torch.cat(places).argsort()
        return leaves, lambda posteriors: _interleaved(beliefs(posteriors), back)

    return plan


def check_interval(low: float, high: float) -> None:
    """Refuse an interval of noise levels that holds nothing.

    Raises:
        SettingError: with the two turned round, if that is what is wrong.
    """
    if high < low:
        raise SettingError(
            f"the guidance interval {low:g} … {high:g} is upside down: noise levels rise from 0. Write {high:g} {low:g}"
        )
    if not (low >= 0 and high > low):
        raise SettingError(
            f"the guidance interval {low:g} … {high:g} holds no noise level: it takes 0 <= low < high, in σ/α"
        )


def _picked(query: Query, own: Tensor) -> Query:
    """The query of some of its samples."""
    x, rows = query.x[own.to(query.x.device)], own if query.rows is None else query.rows[own]
    return replace(query, x=x, t=query.t[own], rows=rows)


def _interleaved(beliefs: Sequence[Posterior], back: Tensor) -> Posterior:
    """Beliefs about some samples and about the others, in the order of the batch."""
    return averaged(beliefs, lambda columns: torch.cat(list(columns))[back.to(columns[0].device)])
