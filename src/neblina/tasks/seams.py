"""Pasting without a seam: the made picture is shifted to meet the photo at the mask's border, and the photo kept.

Codecs and networks shift colours, so what is made meets the photo in a step. With f the photo, g what was made, and Ω
the mask's inside, g + c is pasted, where c is the membrane through the differences at the border:

    Δc = 0 in Ω,    c = f − g on the pixels beside Ω,    no flow through the picture's own border.

A difference that is the same all along the border vanishes altogether; otherwise c is the smoothest surface between the
differences. On the pixel grid it is L c = b with L the graph Laplacian of Ω: each pixel the mean of its neighbours.

The equations are solved by conjugate gradients, preconditioned by one cycle of multigrid: cells of 2 × 2 pixels, a
cell known where one of its pixels is, corrections interpolated bilinearly. So a coarse grid exists for a mask of any
shape, lines and points included, and about ten cycles are enough at any size. The preconditioned residual is the error
itself up to a share, which says when to stop.

Pérez, Gangnet, Blake. Poisson Image Editing. SIGGRAPH 2003, eq. 4 and 5 (membrane), eq. 7 (discrete).
Tatebe. The Multigrid Preconditioned Conjugate Gradient Method. 1993.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from neblina.data.files import Pixels
from neblina.tasks.masks import Values, check_layers, paste

_ACCURACY = 0.02  # levels of 255
_MOST_CYCLES = 100
_SWEEPS = 2
_DAMPING = 0.8
_SMALLEST = 4  # cells a side, where sweeping alone solves


def paste_seamlessly(original: Pixels, made: np.ndarray[Any, Any], values: Values) -> Pixels:
    """`paste`, the made picture shifted to meet the original at the mask's border.

    Args:
        original: uint8 of shape (H, W, 3).
        made: uint8, or float in [0, 255], of the same shape, outside the mask too.
        values: the mask, shape (H, W); where it is 0 the original keeps its bytes.
    Raises:
        SettingError: shapes that differ.
        DivergenceError: a made picture that is not finite.
    """
    check_layers(original, made, values)
    levels = made.astype(np.float32)
    return paste(original, levels + membrane(original - levels, values > 0), values)


def membrane(
    difference: np.ndarray[Any, np.dtype[np.float32]], inside: np.ndarray[Any, np.dtype[np.bool_]]
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The smoothest surface inside the mask through the differences beside it, to a fiftieth of a level.

    Args:
        difference: photo less made picture, in levels, shape (H, W, C); only what lies beside the mask is looked at.
        inside: the mask, shape (H, W). With nothing beside it there is nothing to meet, and the surface is 0.
    Returns:
        float32 of shape (H, W, C), 0 outside the mask.
    """
    surface = np.zeros_like(difference)
    if not inside.any() or inside.all():
        return surface
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    box = (slice(max(rows[0] - 1, 0), rows[-1] + 2), slice(max(columns[0] - 1, 0), columns[-1] + 2))
    beside = torch.from_numpy(np.ascontiguousarray(difference[box].transpose(2, 0, 1))).double()
    free = torch.from_numpy(inside[box]).double()
    known = 1 - free
    force = free * _beside(known * beside)
    solved = _conjugate_gradients(_grid(free, known), _levels(free.float(), known.float()), force)
    surface[box] = solved.permute(1, 2, 0).numpy()
    return surface


@dataclass(frozen=True)
class _Grid:
    """The Laplacian of a rectangle's free cells: neighbours' number times the cell − the free neighbours.

    Attributes:
        free: 1 for a cell that is sought, 0 for a known or absent one, shape (H, W).
        neighbours: how many neighbours a free cell has, free or known, shape (H, W).
        step: damping over that number, 0 where no cell is free, shape (H, W).
    """

    free: Tensor
    neighbours: Tensor
    step: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """L x on the free cells, of x that is 0 elsewhere, shape (C, H, W); what stands elsewhere means nothing."""
        result = self.neighbours * x
        result[:, :-1] -= x[:, 1:]
        result[:, 1:] -= x[:, :-1]
        result[:, :, :-1] -= x[:, :, 1:]
        result[:, :, 1:] -= x[:, :, :-1]
        return result


def _grid(free: Tensor, known: Tensor) -> _Grid:
    neighbours = free * _beside(free + known)
    return _Grid(free, neighbours, free * _DAMPING / neighbours.clamp(min=1))


def _beside(x: Tensor) -> Tensor:
    """Sum over the up to four neighbours of each cell."""
    result = torch.zeros_like(x)
    result[..., :-1, :] = x[..., 1:, :]
    result[..., 1:, :] += x[..., :-1, :]
    result[..., :-1] += x[..., 1:]
    result[..., 1:] += x[..., :-1]
    return result


def _levels(free: Tensor, known: Tensor) -> list[_Grid]:
    """The grid and ever coarser ones, each with an even number of cells a side but the last.

    A coarse cell with a known pixel is known: corrections then fade out before the border wherever it runs, and what is
    left beside it is for the finer grids, where it is near.
    """
    levels = []
    while max(free.shape) > _SMALLEST:
        height, width = free.shape
        free, known = (F.pad(part, (0, width % 2, 0, height % 2)) for part in (free, known))
        levels.append(_grid(free, known))
        known = F.max_pool2d(known[None], 2)[0]
        free = F.max_pool2d(free[None], 2)[0] * (1 - known)
        if not free.any():
            return levels
    return [*levels, _grid(free, known)]


def _cycle(levels: list[_Grid], residual: Tensor) -> Tensor:
    """About the error that a residual comes from, by one V-cycle; linear and symmetric in the residual."""
    grid = levels[0]
    height, width = residual.shape[1:]
    residual = grid.free * F.pad(residual, (0, grid.free.shape[1] - width, 0, grid.free.shape[0] - height))
    error = grid.step * residual
    for _ in range(_SWEEPS - 1):
        error.addcmul_(grid.step, residual - grid.apply(error))
    if len(levels) > 1:
        coarse = _cycle(levels[1:], _spread_back(grid.free * (residual - grid.apply(error))))
        error.addcmul_(grid.free, _spread(coarse))
    for _ in range(_SWEEPS):
        error.addcmul_(grid.step, residual - grid.apply(error))
    return error[:, :height, :width]


def _spread(coarse: Tensor) -> Tensor:
    """Bilinear between the cells' centres, twice the cells a side; beyond the outermost centres it is constant."""
    for axis in (1, 2):
        padded = torch.cat([coarse.narrow(axis, 0, 1), coarse, coarse.narrow(axis, coarse.shape[axis] - 1, 1)], axis)
        cells = coarse.shape[axis]
        lower = 0.75 * coarse + 0.25 * padded.narrow(axis, 0, cells)
        upper = 0.75 * coarse + 0.25 * padded.narrow(axis, 2, cells)
        coarse = torch.stack([lower, upper], axis + 1).flatten(axis, axis + 1)
    return coarse


def _spread_back(fine: Tensor) -> Tensor:
    """The transpose of `_spread`."""
    for axis in (2, 1):
        cells = fine.shape[axis] // 2
        lower, upper = fine.reshape(*fine.shape[:axis], cells, 2, *fine.shape[axis + 1 :]).unbind(axis + 1)
        result = 0.75 * (lower + upper)
        result.narrow(axis, 0, cells - 1).add_(lower.narrow(axis, 1, cells - 1), alpha=0.25)
        result.narrow(axis, 1, cells - 1).add_(upper.narrow(axis, 0, cells - 1), alpha=0.25)
        result.narrow(axis, 0, 1).add_(lower.narrow(axis, 0, 1), alpha=0.25)
        result.narrow(axis, cells - 1, 1).add_(upper.narrow(axis, cells - 1, 1), alpha=0.25)
        fine = result
    return fine


def _conjugate_gradients(grid: _Grid, levels: list[_Grid], force: Tensor) -> Tensor:
    """x with L x = force, each channel by itself, float64 of shape (C, H, W)."""

    def product(one: Tensor, other: Tensor) -> Tensor:
        return (one * other).sum((1, 2), keepdim=True)

    x = torch.zeros_like(force)
    residual = force.clone()
    direction = torch.zeros_like(force)
    before = torch.ones(len(force), 1, 1, dtype=force.dtype)
    for number in range(_MOST_CYCLES):
        error = _cycle(levels, residual.float()).double()
        if float(error.abs().max()) < _ACCURACY / 4:
            return x + error
        now = product(residual, error)
        share = torch.where(before > 0, now / before.clamp(min=1e-300), 0.0) if number else torch.zeros_like(now)
        direction = error + share * direction
        image = grid.apply(direction)
        reach = now / product(direction, image).clamp(min=1e-300)
        x += reach * direction
        residual -= reach * image
        before = now
    return x
