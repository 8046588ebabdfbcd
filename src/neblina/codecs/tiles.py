"""A large picture is coded in overlapping tiles, so that memory does not grow with it.

Along an axis of L cells, n tiles of one size s ≥ (L + (n − 1) o) / n start at evenly spaced places; n is the smallest
that keeps s within the limit, so that no tile is a remnant and they overlap by o cells or more. A tile's weight rises
linearly over what it shares with its neighbour, and weights are divided by their sum at every place: what two tiles
agree on is kept exactly, and between them one fades into the other.

Tiles change what looks over the whole picture: normalisations over a feature map and the attention see their tile only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, product

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


def spans(length: int, limit: int, overlap: int) -> list[Span]:
    """Tiles of one size that cover `length` cells.

    Args:
        length: cells, at least one.
        limit: cells that a tile may have, more than `overlap`.
        overlap: cells that neighbours share, at least.
    """
    if length <= limit:
        return [Span(0, length)]
    count = -(-(length - overlap) // (limit - overlap))
    size = -(-(length + (count - 1) * overlap) // count)
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
    ramps = []
    for tile in tiles:
        size, rise, fall = ((cells * scale) for cells in (tile.stop - tile.start, tile.rise, tile.fall))
        place = torch.arange(size) + 0.5
        ramp = torch.ones(size)
        if rise:
            ramp = torch.minimum(ramp, place / rise)
        if fall:
            ramp = torch.minimum(ramp, place.flip(0) / fall)
        ramps.append(ramp)
        total[tile.start * scale : tile.stop * scale] += ramp
    return [
        (ramp / total[tile.start * scale : tile.stop * scale]).to(like.device)
        for ramp, tile in zip(ramps, tiles, strict=True)
    ]


def in_tiles(
    code: Callable[[Tensor], Tensor], x: Tensor, *, limit: int, overlap: int, reads: int = 1, writes: int = 1
) -> Tensor:
    """Run a half of an autoencoder tile by tile.

    Args:
        code: (B, C, height · reads, width · reads) to (B, C', height · writes, width · writes) for any number of cells.
        x: shape (B, C, H · reads, W · reads).
        limit, overlap: as in `spans`, cells.
        reads, writes: samples a cell of what goes in and of what comes out; one of them is 1.
    Returns:
        float32 of shape (B, C', H · writes, W · writes).
    """
    height, width = x.shape[-2] // reads, x.shape[-1] // reads
    rows, columns = spans(height, limit, overlap), spans(width, limit, overlap)
    if len(rows) == len(columns) == 1:
        return code(x).float()
    out: Tensor | None = None
    row_weights, column_weights = weights(rows, writes, x), weights(columns, writes, x)
    for (row, row_weight), (column, column_weight) in product(
        zip(rows, row_weights, strict=True), zip(columns, column_weights, strict=True)
    ):
        tile = code(x[..., row.start * reads : row.stop * reads, column.start * reads : column.stop * reads]).float()
        if out is None:
            out = tile.new_zeros(*tile.shape[:2], height * writes, width * writes)
        place = (..., slice(row.start * writes, row.stop * writes), slice(column.start * writes, column.stop * writes))
        out[place] += tile * row_weight[:, None] * column_weight
    assert out is not None
    return out
