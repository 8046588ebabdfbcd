"""A canvas larger than what a network was trained on: ask about overlapping crops, believe their weighted mean.

    x̂_0 = Σ_i w_i ⊙ place_i( x̂_0(crop_i x) ),    Σ_i place_i(w_i) = 1

with weights that fall linearly towards a crop's borders, so that no edge of a crop shows. Crops have the size that the
network knows; every cell of the canvas lies in one by construction, and the crops of one step are one network call.

Bar-Tal et al. MultiDiffusion: Fusing Diffusion Paths for Controlled Image Generation. ICML 2023, eq. 3 to 5.
"""

from collections.abc import Sequence
from itertools import product

from torch import Tensor

from neblina.core.errors import SettingError
from neblina.core.plan import Combine, Leaf, Plan, Query
from neblina.core.posterior import Posterior
from neblina.core.tiles import spans, weights
from neblina.guidance.composing import gathered


def crops(plan: Plan, size: int, overlap: int) -> Plan:
    """Ask `plan` about square crops of a batch of shape (B, C, H, W) and take the weighted mean of its beliefs.

    Args:
        plan: of crops; a canvas no larger than a crop is asked about as it is. Its conditions hold no maps of the
            canvas's size, since they are not cut.
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
        down, along = (spans(length, size, overlap, whole=True) for length in query.x.shape[-2:])
        if len(down) == len(along) == 1:
            return plan(query)
        places = [(..., slice(row.start, row.stop), slice(one.start, one.stop)) for row, one in product(down, along)]
        leaves, beliefs = gathered([plan(Query(query.x[place], query.t, query.rows)) for place in places])
        shares = [row[:, None] * one for row, one in product(weights(down, 1, query.x), weights(along, 1, query.x))]

        def fuse(posteriors: Sequence[Posterior]) -> Posterior:
            given = beliefs(posteriors)

            def mean(values: Sequence[Tensor | None]) -> Tensor | None:
                total: Tensor | None = None
                for place, share, value in zip(places, shares, values, strict=True):
                    if value is None:
                        return None
                    if total is None:
                        total = value.new_zeros(query.x.shape)
                    total[place] += share.to(value.dtype) * value
                return total

            whole = mean([one.mean for one in given])
            assert whole is not None  # every belief has a mean
            return Posterior(
                whole,
                unclipped_mean=mean([one.unclipped_mean for one in given]),
                variance_fraction=mean([one.variance_fraction for one in given]),
            )

        return leaves, fuse

    return cropped
