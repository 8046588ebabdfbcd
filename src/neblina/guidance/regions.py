"""Several places of one canvas, each under its own condition: believe the weighted mean of what each says.

Every view i of the canvas has a belief x̂_i about it and says how much it counts at every cell, W_i ≥ 0. The canvas that
is nearest to all of them minimises Σ_i ‖√W_i ⊙ (x̂ − x̂_i)‖², which is solved cell by cell by

    x̂_0 = Σ_i w_i ⊙ x̂_i,    w_i = W_i / Σ_j W_j.

W_i is the mask of a place, times how much it counts where places overlap. The background fills what no place claims,
max(1 − Σ_i mask_i, 0), so every cell is claimed by construction. A place that claims nothing is not asked, and where
one alone is asked the belief is its own to the last bit. Steps that are affine in the belief and ask once map the
weighted mean of beliefs to that of the x_s, so this is the authors' averaging of x_{t−1}; noise is added once, after
fusing, by whichever sampler walks.

While places are prepared each by itself (`bootstrap`, at times above `until`) they are not mixed: a cell is that of the
view that counts most there; of those that count alike, of the smallest; of those alike in that too, of all.

Bar-Tal et al. MultiDiffusion: Fusing Diffusion Paths for Controlled Image Generation. ICML 2023, eq. 3, 5 and 9.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neblina.core.errors import SettingError
from neblina.core.plan import Combine, Leaf, Plan, Query
from neblina.core.posterior import Posterior
from neblina.core.shapes import choose_samples
from neblina.guidance.composing import averaged, gathered, once_moved
from neblina.guidance.registry import register


@dataclass(frozen=True, eq=False)
class Area:
    """A place and what is asked there.

    Attributes:
        plan: about the whole canvas; what it believes elsewhere is not looked at.
        mask: how much of a cell is the place's, from 0 to 1, shape (H, W).
        weight: how much it counts where places overlap, above 0.
    """

    plan: Plan
    mask: Tensor
    weight: float = 1.0


@register("regions", source="Bar-Tal et al. 2023, eq. 3, 5 and 9", changes="both", weight=0.0)
def regions(
    plan: Plan, areas: Sequence[Area], behind: Tensor | None = None, *, weight: float = 1.0, until: float = 1.0
) -> Plan:
    """Each place under its own plan, and `plan` behind them.

    Args:
        plan: of the background.
        areas: the places, in any order.
        behind: how much of a cell is the background's, shape (H, W); None for what no place claims, which is added to
            it in any case.
        weight: how much all places count against the background; 0 leaves the background alone.
        until: at times above, places are not mixed.
    Raises:
        SettingError: masks of several sizes or out of [0, 1], weights that are not above 0.
    """
    if weight < 0 or any(area.weight <= 0 for area in areas):
        raise SettingError("a place counts by a weight above 0; leave it out rather than give it none")
    masks = joined([area.mask for area in areas], behind)
    if weight == 0:
        return plan
    counts = masks * torch.tensor([1.0, *(weight * area.weight for area in areas)], dtype=torch.float64)[:, None, None]
    mixed, apart = counts / counts.sum(0), owners(counts, masks)
    shares = once_moved([mixed, apart])
    says = [[bool(one.any()) for one in each] for each in (mixed, apart)]
    plans = [plan, *(area.plan for area in areas)]

    def asked(query: Query) -> tuple[list[Leaf], Combine]:
        early = query.t > until
        used = [which for which, asks in enumerate((not bool(early.all()), bool(early.any()))) if asks]
        kept = [number for number in range(len(plans)) if any(says[which][number] for which in used)]
        if len(kept) == 1:
            return plans[kept[0]](query)
        leaves, beliefs = gathered([plans[number](query) for number in kept])

        def mean(values: Sequence[Tensor]) -> Tensor:
            own = [shares(values[0])[which][kept, None, None] for which in used]
            of_each = own[0] if len(own) == 1 else [choose_samples(early, a, m) for m, a in zip(*own, strict=True)]
            total = torch.zeros_like(values[0])
            for one, value in zip(of_each, values, strict=True):
                total = total + one * value
            return total

        def fused(posteriors: Sequence[Posterior]) -> Posterior:
            return averaged(beliefs(posteriors), mean)

        return leaves, fused

    return asked


def joined(masks: Sequence[Tensor], behind: Tensor | None = None) -> Tensor:
    """How much of every cell is whose, float64 of shape (n + 1, H, W): the background first.

    Args:
        masks: of n places, in [0, 1], shape (H, W) each.
        behind: the background's own; what no place claims is added to it.
    Raises:
        SettingError: no mask, masks of several sizes or out of [0, 1].
    """
    if not masks:
        raise SettingError("no place is given: ask about the background alone")
    given = [*masks, *([] if behind is None else [behind])]
    sizes = {tuple(mask.shape) for mask in given}
    if len(sizes) > 1 or given[0].ndim != 2:
        raise SettingError(f"masks are of one size (H, W), not of {sorted(sizes)}")
    if not all(bool(((mask >= 0) & (mask <= 1)).all()) for mask in given):
        raise SettingError("masks lie in [0, 1]: 1 where a place is, 0 where it is not")
    places = torch.stack([mask.to("cpu", torch.float64) for mask in masks])
    rest = (1 - places.sum(0)).clamp(min=0)
    return torch.cat([(rest if behind is None else torch.maximum(behind.to(rest), rest))[None], places])


def owners(counts: Tensor, masks: Tensor) -> Tensor:
    """Every cell to the view that counts most there, of equals to the smallest: shares, float64 of shape (n, H, W).

    Args:
        counts: how much every view counts at every cell.
        masks: of the views, by whose sums they are large or small.
    """
    most = counts == counts.amax(0)
    sizes = masks.sum((1, 2))[:, None, None].expand_as(counts)
    among = torch.where(most, sizes, torch.inf)
    smallest = most & (among == among.amin(0))
    return smallest / smallest.sum(0, dtype=torch.float64)
