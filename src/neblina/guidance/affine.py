"""The affine plan: belief = Σ_i w_i belief_i with Σ_i w_i = 1. Guidance is a row of its weights.

Classifier-free guidance moves away from what the model would say without the condition,

    x̂_0 = w x̂_0(c) + (1 − w) x̂_0(∅),

which in the network's eps is the papers' (1 + ω) ε_c − ω ε_∅ with w = 1 + ω: eps is affine in x̂_0 and the weights sum
to 1. w = 1 is no guidance: the null branch has weight 0 and is never asked. Of tokens it is the same sum of
log-probabilities, renormalised.

Autoguidance is the same map away from a weaker model of the same thing, under the same condition,

    x̂_0 = w D_strong(c) + (1 − w) D_weak(c):

the two err in the same directions, the weaker one further, so it works without a condition too.

Ho, Salimans. Classifier-Free Diffusion Guidance. 2022, eq. 6.
Tang et al. Improved Vector Quantized Diffusion Models. 2022, section 3.1.
Karras et al. Guiding a Diffusion Model with a Bad Version of Itself. NeurIPS 2024, section 3.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.errors import SettingError
from neblina.core.plan import Denoiser, Plan, Query, conditional
from neblina.core.posterior import Categorical, Posterior, categorical, gaussian
from neblina.guidance.composing import averaged, fused
from neblina.guidance.registry import register


def affine(plans: Sequence[Plan], weights: Sequence[float]) -> Plan:
    """Σ_i w_i plan_i; plans of weight 0 are dropped, and one plan of weight 1 is that plan.

    Raises:
        SettingError: the weights do not sum to 1.
    """
    if not abs(sum(weights) - 1) <= 1e-9:
        raise SettingError(f"the weights of an affine plan sum to 1, not {sum(weights):g}")
    kept = [(plan, weight) for plan, weight in zip(plans, weights, strict=True) if weight != 0]
    if len(kept) == 1:
        return kept[0][0]

    def mixed(query: Query, beliefs: Sequence[Posterior]) -> Posterior:
        return _mixed(beliefs, [weight for _, weight in kept])

    return fused([plan for plan, _ in kept], mixed)


def _mixed(beliefs: Sequence[Posterior], weights: Sequence[float]) -> Posterior:
    """Σ_i w_i belief_i; of tokens Σ_i w_i log p_i, renormalised."""
    if isinstance(beliefs[0], Categorical):
        return Categorical(_sum([categorical(one).log_probs for one in beliefs], weights).log_softmax(-1))
    convex = min(weights) >= 0 and all(gaussian(one, "a view").variance_fraction is not None for one in beliefs)
    return averaged(beliefs, lambda parts: _sum(parts, weights), convex=convex)


def _sum(parts: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    return torch.stack([weight * part for part, weight in zip(parts, weights, strict=True)]).sum(0)


@register(
    "classifier-free",
    "autoguidance",
    source="Ho, Salimans 2022, eq. 6; Karras et al. 2024, section 3",
    changes="both",
    weight=1.0,
)
def extrapolated(towards: Plan, away: Plan, *, weight: float) -> Plan:
    """w towards + (1 − w) away.

    Args:
        towards: the belief to follow.
        away: the one to move away from; not asked at weight 1.
        weight: w, any real number; 1 is none, above 1 goes beyond `towards`.
    """
    return affine([towards, away], [weight, 1 - weight])


def classifier_free(
    denoiser: Denoiser, condition: Condition, guidance: float, *, unconditional: Denoiser | None = None
) -> Plan:
    """Classifier-free guidance of weight w = guidance; 1 is none, the papers' ω is w − 1.

    Args:
        denoiser: the conditional network; its null condition is the other branch.
        condition: what the samples are conditioned on.
        guidance: w, any real number; above 1 follows the condition more than the model believes it.
        unconditional: a separately trained unconditional network for the other branch.
    """
    away = conditional(denoiser, condition.null()) if unconditional is None else conditional(unconditional, Condition())
    return extrapolated(conditional(denoiser, condition), away, weight=guidance)
