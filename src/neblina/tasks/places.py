"""Where an element is: a box or a polygon as a mask of the canvas's pixels.

Coordinates are pixels, or fractions of the canvas where all of a place's numbers are at most 1. A pixel belongs to a
place if its centre does, those on a left or upper border too and those on a right or lower one not: a box is half open,
neighbours share no pixel and leave none out, and the polygon of a box is the box.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neblina.core.errors import SettingError
from neblina.tasks.masks import Values

Point = tuple[float, float]


@dataclass(frozen=True)
class Place:
    """Where something is on a canvas.

    Attributes:
        values: 1 there, 0 elsewhere, float32 of shape (H, W).
        outline: its corners as (x, y) in pixels.
    """

    values: Values
    outline: tuple[Point, ...]


def of_box(box: Sequence[float], size: tuple[int, int]) -> Place:
    """The place of [left, top, right, bottom] on a canvas of `size` (H, W), rounded to whole pixels.

    Raises:
        SettingError: the end of a sentence that begins with the element: corners the other way round, off the canvas,
            nothing within.
    """
    left, top, right, bottom = box
    if left >= right or top >= bottom:
        fix = [min(left, right), min(top, bottom), max(left, right), max(top, bottom)]
        if fix[0] == fix[2] or fix[1] == fix[3]:
            raise SettingError(f"has no area: box {shown(box)} is [left, top, right, bottom], left below right")
        raise SettingError(f"has the corners of its box {shown(box)} the other way round: box: {shown(fix)}")
    corners = _on_canvas("box", [(left, top), (right, bottom)], size)
    (left, top), (right, bottom) = ((_pixel(x), _pixel(y)) for x, y in corners)
    outline = ((left, top), (right, top), (right, bottom), (left, bottom))
    values = _filled(outline, size)
    if not values.any():
        raise SettingError(f"is less than a pixel large: box {shown(box)} on a canvas of {size[1]}x{size[0]}")
    return Place(values, outline)


def of_polygon(points: Sequence[Sequence[float]], size: tuple[int, int]) -> Place:
    """The place within the line through `points` and back; where it goes around twice is outside.

    Raises:
        SettingError: as `of_box`.
    """
    corners = _on_canvas("polygon", [(point[0], point[1]) for point in points], size)
    values = _filled(corners, size)
    if not values.any():
        raise SettingError(
            f"has no area: no pixel's centre is within its polygon {shown(points)} on a canvas of {size[1]}x{size[0]}"
        )
    return Place(values, tuple(corners))


def _on_canvas(kind: str, points: list[Point], size: tuple[int, int]) -> list[Point]:
    """Points in pixels, all of which are on the canvas."""
    numbers = [number for point in points for number in point]
    height, width = size
    wide, high = (1.0, 1.0) if max(numbers) <= 1 else (float(width), float(height))
    if 1 < max(numbers) < 2 and any(number % 1 for number in numbers):
        raise SettingError(
            f"has {max(numbers):.10g} in its {kind} {_said(kind, points)}: fractions of the canvas go from 0 to 1, and "
            "numbers above 1 are pixels"
        )
    across, down = [x for x, _ in points], [y for _, y in points]
    reach = f"which reaches from [0, 0] to {shown([wide, high])}"
    if max(across) <= 0 or min(across) >= wide or max(down) <= 0 or min(down) >= high:
        raise SettingError(f"lies off the canvas, {reach}: its {kind} is {_said(kind, points)}")
    clipped = [(min(max(x, 0.0), wide), min(max(y, 0.0), high)) for x, y in points]
    if clipped != points:
        raise SettingError(
            f"lies partly off the canvas, {reach}: its {kind} is {_said(kind, points)}; cut to the canvas it is "
            f"{kind}: {_said(kind, clipped)}"
        )
    return [(x * width / wide, y * height / high) for x, y in points]


def _pixel(coordinate: float) -> int:
    """The first pixel whose centre is not before a coordinate."""
    return math.ceil(coordinate - 0.5)


def _filled(points: Sequence[Point], size: tuple[int, int]) -> Values:
    """1 where a pixel's centre has an odd number of the polygon's edges to its left, shape `size`."""
    rows, columns = np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5
    inside = np.zeros(size, bool)
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        if y0 != y1:
            crossed = (rows >= min(y0, y1)) & (rows < max(y0, y1))
            inside[crossed] ^= columns >= (x0 + (rows[crossed] - y0) * (x1 - x0) / (y1 - y0))[:, None]
    return inside.astype(np.float32)


def _said(kind: str, points: Sequence[Point]) -> str:
    return shown([number for point in points for number in point] if kind == "box" else points)


def shown(values: Any) -> str:
    """Numbers, or lists of them, as they are written."""
    if isinstance(values, list | tuple):
        return f"[{', '.join(shown(value) for value in values)}]"
    return f"{values:.10g}"
