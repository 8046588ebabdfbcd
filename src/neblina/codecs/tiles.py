"""A large picture is coded in overlapping tiles (`core.tiles`), so that memory does not grow with it.

Tiles change what looks over the whole picture: normalisations over a feature map and the attention see their tile only.
"""

from collections.abc import Callable
from itertools import product

from torch import Tensor

from neblina.core.tiles import spans, weights


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
