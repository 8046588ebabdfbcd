"""Truncation: draw tokens from the most probable classes alone.

A class is kept while the classes before it, from the most probable one down, hold less than `rate` of the probability
(VQ-Diffusion's truncation rate, the nucleus of language models), and if it is one of the `count` most probable. What is
kept is renormalised. The best class always is.

Gu et al. Vector Quantized Diffusion Model for Text-to-Image Synthesis. CVPR 2022, section 5.1 (truncation sampling).
Holtzman et al. The Curious Case of Neural Text Degeneration. ICLR 2020, section 3.1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from neblina.core.errors import SettingError
from neblina.core.logs import ZERO
from neblina.core.plan import Plan, Query
from neblina.core.posterior import Categorical, Posterior, categorical
from neblina.guidance.composing import fused
from neblina.guidance.registry import register


@register("truncation", source="Gu et al. 2022, section 5.1", changes="tokens", rate=1.0)
def truncated(plan: Plan, *, rate: float = 1.0, count: int = 0) -> Plan:
    """The belief without its improbable classes, after everything inside `plan` has been combined.

    Args:
        plan: whose belief is truncated.
        rate: share of the probability that is kept, in (0, 1]; 1 keeps all of it.
        count: most classes that are kept; 0 for any number.
    Raises:
        SettingError: a rate outside (0, 1], or a count below 0.
    """
    check_truncation(rate, count)
    if rate == 1 and count == 0:
        return plan

    def cut(query: Query, beliefs: Sequence[Posterior]) -> Posterior:
        return Categorical(_kept(categorical(beliefs[0]).log_probs, rate, count))

    return fused([plan], cut)


def check_truncation(rate: float, count: int) -> None:
    """Refuse what would keep nothing.

    Raises:
        SettingError: a rate outside (0, 1], or a count below 0.
    """
    if not 0 < rate <= 1:
        raise SettingError(f"a truncation rate is the share of the probability that is kept, in (0, 1], not {rate:g}")
    if count < 0:
        raise SettingError(f"truncation keeps 1 class or more, or all of them with 0, not {count}")


def _kept(logs: Tensor, rate: float, count: int) -> Tensor:
    ranked, order = logs.sort(-1, descending=True)
    before = ranked.exp().cumsum(-1) - ranked.exp()
    keeps = before < rate
    keeps[..., 0] = True
    if count:
        keeps[..., count:] = False
    kept = torch.zeros_like(keeps).scatter(-1, order, keeps)
    return torch.where(kept, logs, ZERO).log_softmax(-1).clamp(min=ZERO)
