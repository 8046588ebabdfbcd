"""An axis covered by overlapping tiles, and weights that fade from one into the next.

Along an axis of L cells, n tiles of one size s ≥ (L + (n − 1) o) / n start at evenly spaced places; n is the smallest
that keeps s within the limit, so that no tile is a remnant and they overlap by o cells or more. A tile's weight rises
linearly over what it shares with its neighbour, and weights are divided by their sum at every place: what two tiles
agree on is kept exactly, and between them one fades into the other.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True)
class Span:
    """One tile along one axis.

    Attributes:
        start, stop: the cells it covers.
        rise, fall: cells it shares with the tile before and after.
    """

    start: int
    stop: int
    rise: int = 0
    fall: int = 0

    def ramp(self, dtype: torch.dtype, scale: int = 1) -> Tensor:
        """Rising and falling over what is shared, 1 between, above 0 everywhere: at each sample, `scale` a cell."""
        size, rise, fall = ((cells * scale) for cells in (self.stop - self.start, self.rise, self.fall))
        place = torch.arange(size, dtype=dtype) + 0.5
        ramp = torch.ones(size, dtype=dtype)
        if rise:
            ramp = torch.minimum(ramp, place / rise)
        if fall:
            ramp = torch.minimum(ramp, place.flip(0) / fall)
        return ramp


def spans(length: int, limit: int, overlap: int, *, whole: bool = False) -> list[Span]:
    """Tiles of one size that cover `length` cells.

    Args:
        length: cells, at least one.
        limit: cells that a tile may have, more than `overlap`.
        overlap: cells that neighbours share, at least.
        whole: tiles have as many cells as they may, and share more, where it is not memory that limits them.
    """
    if length <= limit:
        return [Span(0, length)]
    count = -(-(length - overlap) // (limit - overlap))
    size = limit if whole else -(-(length + (count - 1) * overlap) // count)
    starts = [number * (length - size) // (count - 1) for number in range(count)]
    shared = [before + size - after for before, after in pairwise(starts)]
    return [
        Span(start, start + size, rise, fall)
        for start, rise, fall in zip(starts, [0, *shared], [*shared, 0], strict=True)
    ]


def weights(tiles: list[Span], scale: int, like: Tensor) -> list[Tensor]:
    """The weight of every tile at its own samples, `scale` of them a cell; over all tiles they sum to one at every
    sample. Shape (size · scale,) each, on the device of `like`, float32."""
    total = torch.zeros(tiles[-1].stop * scale)
    ramps = [tile.ramp(torch.float32, scale) for tile in tiles]
    for tile, ramp in zip(tiles, ramps, strict=True):
        total[tile.start * scale : tile.stop * scale] += ramp
    return [
        (ramp / total[tile.start * scale : tile.stop * scale]).to(like.device)
        for ramp, tile in zip(ramps, tiles, strict=True)
    ]
