"""Rescaled guidance: give the guided belief back the spread that guidance added.

With x_c the belief under the condition, x_g the guided one and std over one sample's entries,

    x̂_0 = φ x_g std(x_c)/std(x_g) + (1 − φ) x_g.

The paper, and diffusers' `guidance_rescale`, do this to what the network predicts (v or eps). Here it acts on the
belief about the clean data, which is what comes out over-exposed, and means the same for every parameterisation. For an
x0 network the two agree; elsewhere a φ tuned there is a beginning here.

Lin, Liu, Li, Yang. Common Diffusion Noise Schedules and Sample Steps are Flawed. WACV 2024, eq. 15 and 16.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from neblina.core.errors import SettingError
from neblina.core.plan import Plan, Query
from neblina.core.posterior import Posterior, gaussian
from neblina.core.shapes import expand
from neblina.guidance.composing import fused
from neblina.guidance.registry import register


@register("rescale", source="Lin et al. 2024, eq. 15 and 16", strength=0.0)
def rescaled(guided: Plan, plain: Plan, *, strength: float) -> Plan:
    """The guided belief, with its spread brought back towards the plain one's.

    Args:
        guided: the guided plan.
        plain: the same without guidance; what it asks is a part of what `guided` asks, so it costs nothing.
        strength: φ from 0 (as it is) to 1 (the plain belief's spread); the paper takes 0.7.
    Raises:
        SettingError: a strength outside [0, 1].
    """
    check_rescale(strength)
    if strength == 0:
        return guided

    def fuse(query: Query, beliefs: Sequence[Posterior]) -> Posterior:
        belief, target = (gaussian(one, "rescale") for one in beliefs)
        wide, right = (one.mean.flatten(1).std(1, correction=0) for one in (belief, target))
        factor = torch.where(wide > 0, strength * right / wide + 1 - strength, 1.0)
        return replace(belief, mean=expand(factor, belief.mean) * belief.mean)

    return fused([guided, plain], fuse)


def check_rescale(strength: float) -> None:
    """Refuse a strength that is not a share.

    Raises:
        SettingError: a strength outside [0, 1].
    """
    if not 0 <= strength <= 1:
        raise SettingError(
            f"the rescaling of guidance lies between 0 (none) and 1 (the whole spread), and {strength:g} does not"
        )
