"""Operators on a belief that are not affine; where they stand in the plan is the order in which they act.

Clipping holds the clean data to its range. Dynamic thresholding clips to a range s of each sample's own and divides by
it, so that saturated entries move inwards instead of piling up at the ends,

    x̂_0 ← clamp(x̂_0, −s, s) · limit/s,    s = max(limit, the p-quantile of |x̂_0| over the sample's entries).

Both belong outside guidance, threshold(cfg(…)): inside, cfg(threshold(…)), guidance leaves the range again.

Saharia et al. Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding. NeurIPS 2022, section
2.3.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from neblina.core.errors import SettingError
from neblina.core.plan import Plan, Query
from neblina.core.posterior import Posterior, gaussian
from neblina.core.shapes import expand
from neblina.guidance.composing import fused
from neblina.guidance.registry import register


@register("clip", source="Ho et al. 2020, released code; Saharia et al. 2022, section 2.3 (static)", limit=math.inf)
def clip(plan: Plan, limit: float = 1.0, *, keep_direction: bool = False) -> Plan:
    """Clip the mean to [−limit, limit] after everything inside `plan` has been combined.

    Args:
        plan: whose belief is clipped.
        limit: the data's range.
        keep_direction: steps still point with the unclipped belief's noise (diffusers' DDIM); otherwise they follow
            the clipped one throughout (diffusers' DDPM).
    Raises:
        SettingError: a limit that leaves no range.
    """
    check_limit(limit)

    def clipped(query: Query, beliefs: Sequence[Posterior]) -> Posterior:
        belief = gaussian(beliefs[0], "clip")
        unclipped = belief.mean if keep_direction else None
        return replace(belief, mean=belief.mean.clamp(-limit, limit), unclipped_mean=unclipped)

    return fused([plan], clipped)


@register("threshold", source="Saharia et al. 2022, section 2.3 (dynamic)", quantile=1.0, limit=math.inf)
def threshold(plan: Plan, quantile: float = 0.995, *, limit: float = 1.0) -> Plan:
    """Clip the mean to each sample's own quantile and divide by it, after everything inside `plan` has been combined.

    Args:
        plan: whose belief is thresholded.
        quantile: p in (0, 1], the share of a sample's entries that stays below the threshold; Imagen's is 0.995.
        limit: the data's range.
    Raises:
        SettingError: a quantile outside (0, 1], or a limit that leaves no range.
    """
    check_threshold(quantile)
    check_limit(limit)

    def thresholded(query: Query, beliefs: Sequence[Posterior]) -> Posterior:
        belief = gaussian(beliefs[0], "threshold")
        reach = belief.mean.abs().flatten(1).quantile(quantile, dim=1)
        far = reach > limit
        s = expand(torch.where(far, reach, limit), belief.mean)
        shrink = expand(torch.where(far, limit / reach, 1.0), belief.mean)
        return replace(belief, mean=belief.mean.clamp(-s, s) * shrink)

    return fused([plan], thresholded)


def check_limit(limit: float) -> None:
    """Refuse what is no end of a range around 0; infinity leaves everything in it.

    Raises:
        SettingError: a limit that is not above 0.
    """
    if not limit > 0:
        raise SettingError(f"the limit of the clean data is above 0, and {limit:g} is not; pictures lie in [−1, 1]")


def check_threshold(quantile: float) -> None:
    """Refuse what is not a share of a sample's entries.

    Raises:
        SettingError: a quantile outside (0, 1].
    """
    if not 0 < quantile <= 1:
        raise SettingError(
            f"the threshold is the share of a picture's pixels that stays below it, above 0 and at most 1, such as "
            f"0.995; {quantile:g} is not"
        )
