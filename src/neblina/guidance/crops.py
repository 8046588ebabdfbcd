"""A canvas larger than what a network was trained on: ask about overlapping windows, believe their weighted mean.

    x̂_0 = Σ_i w_i ⊙ place_i( x̂_0(window_i x) ),    Σ_i place_i(w_i) = 1

with weights that fall linearly towards a window's borders, so that no edge of one shows. Windows have the size that the
network knows; every cell of the canvas lies in one by construction, and the windows of one step are one network call.

Bar-Tal et al. MultiDiffusion: Fusing Diffusion Paths for Controlled Image Generation. ICML 2023, eq. 3 to 5.
"""

from collections.abc import Sequence

from torch import Tensor

from neblina.core.plan import Combine, Leaf, Plan, Query
from neblina.core.posterior import Posterior
from neblina.core.windows import Cover, check_windows, cover
from neblina.guidance.composing import averaged, gathered, once_moved
from neblina.guidance.registry import register


@register("crops", source="Bar-Tal et al. 2023, eq. 3 to 5", changes="both", size=64, overlap=0)
def crops(plan: Plan, *, size: int, overlap: int, around: bool = False, even: bool = False) -> Plan:
    """Ask `plan` about square windows of a batch, (B, C, H, W) or tokens (B, H, W): the weighted mean of its beliefs.

    Args:
        plan: of windows; a canvas no larger than one is asked about as it is. Conditions that are maps are cut with it.
        size: side of a window in cells.
        overlap: cells that neighbouring windows share at least.
        around: the right border of the canvas meets the left.
        even: windows count as much at their borders as in their middle, as in the paper.
    Raises:
        SettingError: windows of nothing, or that share as much as they hold.
    """
    check_windows(size, overlap)
    of_canvas: dict[tuple[int, int], Plan] = {}

    def cropped(query: Query) -> tuple[list[Leaf], Combine]:
        height, width = query.x.shape[-2:]
        if (height, width) not in of_canvas:
            shares = cover((height, width), size, overlap, around=around, even=even)
            of_canvas[height, width] = windowed(plan, shares)
        return of_canvas[height, width](query)

    return cropped


def windowed(plan: Plan, shares: Cover) -> Plan:
    """Ask `plan` about these windows and take the weighted mean of its beliefs; 0 is believed where no window is.

    Args:
        plan: of windows.
        shares: windows of the canvas with their weights, which sum to 1 wherever the belief is wanted.
    """

    weights = once_moved([share.weight for share in shares])

    def asked(query: Query) -> tuple[list[Leaf], Combine]:
        shape = query.x.shape
        if len(shares) == 1 and shares[0].window.holds(shape[-2], shape[-1]):
            return plan(query)
        leaves, beliefs = gathered([plan(query.cut(share.window)) for share in shares])

        def placed(values: Sequence[Tensor]) -> Tensor:
            canvas = values[0].new_zeros(*values[0].shape[:2], *shape[-2:])
            for share, weight, value in zip(shares, weights(canvas), values, strict=True):
                share.window.add(canvas, weight * value)
            return canvas

        def fuse(posteriors: Sequence[Posterior]) -> Posterior:
            return averaged(beliefs(posteriors), placed)

        return leaves, fuse

    return asked
