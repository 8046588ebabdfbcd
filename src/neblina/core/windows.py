"""Windows of a canvas that cover it, and how much each has to say at every cell.

A canvas of H × W cells is looked at through windows of one size. Along an axis they start at evenly spaced places and
share a number of cells with their neighbours or more; around a canvas whose right border meets its left, they start at
evenly spaced places of a circle, two at least, so that no border is left. A window's share falls linearly over what it
has in common with its neighbours, and shares are divided by their sum at every cell, so that every cell is covered by
construction and what all windows agree on is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import EllipsisType

import torch
from torch import Tensor

from neblina.core.errors import SettingError
from neblina.core.tiles import Span, spans


@dataclass(frozen=True)
class Window:
    """A rectangle of cells; to the right of a canvas it goes on at the left."""

    top: int
    left: int
    height: int
    width: int

    def holds(self, height: int, width: int) -> bool:
        """Whether it is the whole of a canvas of that size, as it lies."""
        return self == Window(0, 0, height, width)

    def of(self, canvas: Tensor) -> Tensor:
        """What of a canvas of shape (*, H, W) is in it, shape (*, height, width)."""
        parts = [canvas[part] for _, part in self._parts(canvas)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def add(self, canvas: Tensor, values: Tensor) -> None:
        """Add values of shape (*, height, width) to a canvas of shape (*, H, W), in place."""
        for own, part in self._parts(canvas):
            canvas[part] += values[..., own]

    def _parts(self, canvas: Tensor) -> list[tuple[slice, tuple[EllipsisType, slice, slice]]]:
        """Columns of the window, and where they are on the canvas."""
        rows, whole = slice(self.top, self.top + self.height), canvas.shape[-1]
        inside = min(self.width, whole - self.left)
        parts: list[tuple[slice, tuple[EllipsisType, slice, slice]]]
        parts = [(slice(0, inside), (..., rows, slice(self.left, self.left + inside)))]
        if inside < self.width:
            parts.append((slice(inside, self.width), (..., rows, slice(0, self.width - inside))))
        return parts


@dataclass(frozen=True, eq=False)
class Share:
    """A window and how much it has to say.

    Attributes:
        window: where.
        weight: at each of its cells, float64 of shape (height, width) on the CPU; over all windows they sum to 1.
    """

    window: Window
    weight: Tensor


Cover = tuple[Share, ...]


def cover(size: tuple[int, int], side: int, overlap: int, *, around: bool = False, even: bool = False) -> Cover:
    """Windows that cover a canvas.

    Args:
        size: (H, W) of the canvas in cells.
        side: of a window; a canvas that is shorter has shorter windows.
        overlap: cells that neighbours share at least.
        around: the right border meets the left.
        even: windows have as much to say at their borders as in their middle (MultiDiffusion's own weights).
    Raises:
        SettingError: windows of nothing, or that share as much as they hold.
    """
    check_windows(side, overlap)
    height, width = size
    down = spans(height, side, overlap, whole=True)
    along = _circle(width, side, overlap) if around else spans(width, side, overlap, whole=True)
    return _shares(size, down, along, even=even)


def cover_of(place: Tensor, side: int, overlap: int) -> Cover:
    """Windows that cover all cells of a place, around the middle of it where one window holds it.

    Args:
        place: shape (H, W); above 0 where it is.
        side, overlap: as in `cover`.
    """
    check_windows(side, overlap)
    rows, columns = (place.amax(axis).nonzero()[:, 0] for axis in (1, 0))
    axes = [
        _reaching(int(one[0]), int(one[-1]) + 1, length, side, overlap)
        for one, length in zip((rows, columns), place.shape, strict=True)
    ]
    shares = _shares((place.shape[0], place.shape[1]), axes[0], axes[1], even=False)
    return touching(shares, place)


def touching(shares: Cover, place: Tensor) -> Cover:
    """Of windows that cover a canvas, those that have something of a place of shape (H, W), where it is above 0."""
    return tuple(share for share in shares if bool((share.window.of(place) > 0).any()))


def check_windows(side: int, overlap: int) -> None:
    """Refuse windows that cover nothing.

    Raises:
        SettingError: windows of nothing, or that share as much as they hold.
    """
    if side < 1 or not 0 <= overlap < side:
        raise SettingError(
            f"windows of side {side} share from 0 to {max(side, 1) - 1} cells with their neighbours, not {overlap}"
        )


def _reaching(start: int, stop: int, length: int, side: int, overlap: int) -> list[Span]:
    """Windows along an axis that reach from `start` to `stop`."""
    if length <= side:
        return [Span(0, length)]
    if stop - start <= side:
        first = min(max((start + stop - side) // 2, 0), length - side)
        return [Span(first, first + side)]
    inner = spans(stop - start, side, overlap, whole=True)
    return [Span(start + one.start, start + one.stop, one.rise, one.fall) for one in inner]


def _circle(length: int, side: int, overlap: int) -> list[Span]:
    """Windows around an axis that has no ends."""
    if length < side:
        side, overlap = length, min(overlap, length // 2)
    count = max(2, -(-length // (side - min(overlap, side - 1))))
    starts = [number * length // count for number in range(count)]
    shared = [max(before + side - after, 0) for before, after in pairwise([*starts, length])]
    return [Span(start, start + side, shared[number - 1], shared[number]) for number, start in enumerate(starts)]


def _shares(size: tuple[int, int], down: Sequence[Span], along: Sequence[Span], *, even: bool) -> Cover:
    """All windows of two axes, their weights divided by the sum over all at every cell."""
    raw = [
        (
            Window(row.start, column.start, row.stop - row.start, column.stop - column.start),
            _ramp(row, even)[:, None] * _ramp(column, even),
        )
        for row in down
        for column in along
    ]
    total = torch.zeros(size, dtype=torch.float64)
    for window, weight in raw:
        window.add(total, weight)
    return tuple(Share(window, weight / window.of(total)) for window, weight in raw)


def _ramp(span: Span, even: bool) -> Tensor:
    """How much a window has to say along an axis before anything is divided, above 0 everywhere."""
    return torch.ones(span.stop - span.start, dtype=torch.float64) if even else span.ramp(torch.float64)
