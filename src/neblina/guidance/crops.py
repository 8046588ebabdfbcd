"""A canvas larger than what a network was trained on: ask about overlapping crops, believe their weighted mean.

    x̂_0 = Σ_i w_i ⊙ place_i( x̂_0(crop_i x) ) / Σ_i w_i ⊙ place_i(1)

with weights that fall linearly towards a crop's borders, so that no edge of a crop shows. Every cell of the canvas lies
in a crop by construction, and the crops of one step are one call of the network.

Bar-Tal et al. MultiDiffusion: Fusing Diffusion Paths for Controlled Image Generation. ICML 2023, eq. 3 to 5.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from neblina.core.errors import SettingError
from neblina.core.plan import Combine, Leaf, Plan, Query
from neblina.core.posterior import Posterior
from neblina.guidance.composing import gathered


def crops(plan: Plan, size: int, overlap: int) -> Plan:
    """Ask `plan` about square crops of a batch of shape (B, C, H, W) and take the weighted mean of their means.

    Args:
        plan: of crops; a canvas no larger than a crop is asked about as it is.
        size: side of a crop in cells.
        overlap: cells that neighbouring crops share at least.
    Raises:
        SettingError: crops of nothing, or that share as much as they hold.
    """
    if size < 1 or not 0 <= overlap < size:
        raise SettingError(
            f"crops of side {size} share from 0 to {size - 1} cells with their neighbours, not {overlap}"
        )

    def cropped(query: Query) -> tuple[list[Leaf], Combine]:
        height, width = query.x.shape[-2:]
        if height <= size and width <= size:
            return plan(query)
        places = [
            (slice(top, top + min(size, height)), slice(left, left + min(size, width)))
            for top in starts(height, size, overlap)
            for left in starts(width, size, overlap)
        ]
        leaves, beliefs = gathered(
            [plan(Query(query.x[..., rows, columns], query.t, query.rows)) for rows, columns in places]
        )
        return leaves, lambda posteriors: _fused(query.x, places, beliefs(posteriors), overlap)

    return cropped


def starts(length: int, size: int, overlap: int) -> list[int]:
    """Where crops of `size` begin along `length`: evenly, the first at 0 and the last at the end."""
    if length <= size:
        return [0]
    count = -(-(length - overlap) // (size - overlap))
    return [round(number * (length - size) / (count - 1)) for number in range(count)]


def _fused(x: Tensor, places: Sequence[tuple[slice, slice]], beliefs: Sequence[Posterior], overlap: int) -> Posterior:
    total, weights = torch.zeros_like(x), torch.zeros_like(x[:1, :1])
    for (rows, columns), belief in zip(places, beliefs, strict=True):
        weight = _ramp(rows, overlap)[:, None] * _ramp(columns, overlap)
        weight = weight.to(x)
        total[..., rows, columns] += weight * belief.mean
        weights[..., rows, columns] += weight
    return Posterior(total / weights)


def _ramp(span: slice, overlap: int) -> Tensor:
    """Weights along a crop: rising over the cells that neighbours share, from above 0 to 1, and falling likewise."""
    place = torch.arange(span.stop - span.start, dtype=torch.float64)
    distance = torch.minimum(place, place.flip(0)) + 1
    return (distance / (overlap + 1)).clamp(max=1)
