"""Curves as SVG, small enough to stand in a page."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

_WIDTH, _HEIGHT = 340, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 8, 24, 26  # of the axes
_MOST = 400  # points that a curve is drawn with
Point = tuple[float, float | None]


@dataclass(frozen=True)
class Curve:
    """Points (x, y) in the order of x; y is None where nothing was measured."""

    points: Sequence[Point]
    name: str = ""
    colour: str = "#2a6f97"


def draw(curves: Sequence[Curve], title: str, *, log: bool = False) -> str:
    """Curves over one x as an SVG element.

    Args:
        log: a logarithmic y axis, where every y is above 0.
    """
    drawn = [(curve, _thinned([(x, y) for x, y in curve.points if y is not None])) for curve in curves]
    xs = [x for _, points in drawn for x, _ in points]
    ys = [y for _, points in drawn for _, y in points]
    log = log and min(ys) > 0
    scale = math.log10 if log else float
    low, high = scale(min(ys)), scale(max(ys))
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    first, last = min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1

    def place(x: float, y: float) -> tuple[float, float]:
        across = _LEFT + (x - first) / (last - first) * (_WIDTH - _LEFT - _RIGHT)
        return across, _TOP + (high - scale(y)) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><title>{html.escape(title)}</title>',
        _words(_LEFT, 14, title, "start", 12),
    ]
    for share in (0.0, 0.5, 1.0):
        value = low + share * (high - low)
        height = _TOP + (1 - share) * (_HEIGHT - _TOP - _BOTTOM)
        parts.append(f'<path d="M{_LEFT} {height:.1f}H{_WIDTH - _RIGHT}" stroke="#ddd"/>')
        parts.append(_words(_LEFT - 4, height + 4, f"{10**value if log else value:.3g}", "end"))
    parts.append(_words(_LEFT, _HEIGHT - 8, f"{first:,.0f}", "start"))
    parts.append(_words(_WIDTH - _RIGHT, _HEIGHT - 8, f"{last:,.0f} images", "end"))
    for number, (curve, points) in enumerate(drawn):
        line = " ".join(f"{across:.1f},{down:.1f}" for across, down in (place(x, y) for x, y in points))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{curve.colour}" stroke-width="1.3"/>')
        if curve.name:
            parts.append(_words(_WIDTH - _RIGHT, _TOP + 10 + 12 * number, curve.name, "end", colour=curve.colour))
    return "".join([*parts, "</svg>"])


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    stride = -(-len(points) // _MOST) or 1
    return [*points[:-1:stride], *points[-1:]]


def _words(x: float, y: float, words: str, anchor: str, size: int = 10, colour: str = "#555") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}" '
        f'font-family="system-ui, sans-serif">{html.escape(words)}</text>'
    )
