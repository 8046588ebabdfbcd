"""Masks: where a photo is changed. White is changed, black is kept, grey is between the two.

A network works on a latent grid of `factor` × `factor` pixels a cell, and a cell is changed as soon as one of its
pixels is (the maximum over the cell): thinned out to one pixel a cell, as is usual elsewhere, a line narrower than a
cell vanishes from the grid and nothing is made there. The pixels around it come back in `paste`, to the byte: where the
mask is 0 the photo's own bytes are handed back, whatever was made there.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neblina.core.errors import DataError, DivergenceError, SettingError
from neblina.data.files import Pixels
from neblina.tasks.decoding import Given, decode

Values = np.ndarray[Any, np.dtype[np.float32]]

_COLOURED = 16  # levels between a pixel's channels beyond which it is no grey


@dataclass(frozen=True)
class Mask:
    """Where a photo is changed.

    Attributes:
        values: 1 changed, 0 kept, float32 of shape (H, W).
        path: where it was read from.
        sha256: of the file's bytes, in hexadecimal.
        changes: what reading did to it, each as a few words.
    """

    values: Values
    path: Path
    sha256: str
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Sense:
    """What a mask is laid on, and what its colours mean, in words."""

    whole: str
    white: str
    black: str


_CHANGED = _Sense("photo", "where the photo is changed", "where it is kept")
_PLACED = _Sense("canvas", "where an element is", "where it is not")


def read_mask(given: Given, size: tuple[int, int]) -> Mask:
    """Read a mask for a photo of `size` (H, W): white is changed, black is kept.

    Transparent parts are black: white strokes on a transparent layer are a mask. A lossy format (JPEG) blurs the edge
    and dirties the black beside it, so its values are rounded to black and white.

    Args:
        given: the file, or a picture in memory as `decoding.decode` takes it.
        size: the photo's.
    Raises:
        DataError: a file that is not one still picture; another size than the photo's; a coloured picture; nothing
            marked, or everything.
    """
    mask = _marked(given, size, _CHANGED)
    if bool((mask.values == 1).all()):
        raise DataError(
            f"the mask {mask.path} is white all over: nothing of the photo would be kept. Make a new picture with "
            "neblina generate, or change all of this one with neblina edit"
        )
    return mask


def read_place(given: Given, size: tuple[int, int]) -> Mask:
    """Read where an element of a canvas of `size` (H, W) is: white is here, black is elsewhere; as `read_mask`.

    Raises:
        DataError: as `read_mask`; but an element may be everywhere.
    """
    return _marked(given, size, _PLACED)


def _marked(given: Given, size: tuple[int, int], sense: _Sense) -> Mask:
    decoded = decode(given)
    path, whole = decoded.path, sense.whole
    height, width = decoded.colour.shape[:2]
    if (height, width) != size:
        raise DataError(
            f"the mask {path} is {width}x{height} and the {whole} is {size[1]}x{size[0]}; they lie one on the other, "
            f"so save the mask at the {whole}'s size"
        )
    seen = decoded.colour if decoded.alpha is None else decoded.colour * decoded.alpha[..., None]
    spread = seen.max(-1) - seen.min(-1)
    if spread.max() > _COLOURED:
        row, column = np.unravel_index(int(spread.argmax()), spread.shape)
        hint = "" if decoded.alpha is None else "; to use its transparency, save that as a picture of its own"
        raise DataError(
            f"the mask {path} is coloured (at column {column}, row {row}); a mask is white {sense.white} and black "
            f"{sense.black}{hint}"
        )
    values = (seen.mean(-1) / 255).astype(np.float32)
    changes = decoded.changes
    if decoded.lossy:
        values = (values >= 0.5).astype(np.float32)
        changes = (*changes, "rounded to black and white, since its format is lossy")
    if not values.any():
        raise DataError(f"the mask {path} is black all over: it marks nothing. White is {sense.white}")
    return Mask(values, path, decoded.sha256, changes)


def to_latent(values: Values, factor: int) -> Values:
    """The mask on the latent grid: the largest value of each cell, shape (H / factor, W / factor).

    Args:
        values: shape (H, W), sides multiples of factor.
        factor: pixels a cell is wide and high.
    Raises:
        SettingError: a side that is not a multiple.
    """
    height, width = values.shape
    if height % factor or width % factor:
        raise SettingError(f"a mask of {width}x{height} does not divide into cells of {factor}x{factor} pixels")
    cells: Values = values.reshape(height // factor, factor, width // factor, factor).max(axis=(1, 3))
    return cells


def thinness(values: Values, factor: int) -> str | None:
    """What to say of a mask that is nowhere as large as one latent cell; None for one that is.

    Such a mask works: its cells are made anew and all of them but the marked pixels come back. But the network makes
    things larger than that, and most of what it makes is cut off.

    Args:
        values: shape (H, W).
        factor: pixels a cell is wide and high.
    """
    marked = np.pad((values > 0).astype(np.int64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    inside = (
        marked[factor:, factor:] - marked[:-factor, factor:] - marked[factor:, :-factor] + marked[:-factor, :-factor]
    )
    if (inside == factor**2).any():
        return None
    return (
        f"the mask is nowhere {factor} pixels wide and high, the least that this model makes at once, and what is made "
        "is cut to it. Widen the mask if something is to be seen there"
    )


def feather(values: Values, radius: int) -> Values:
    """The mask fading towards its border over `radius` pixels, inwards: 0 stays 0.

    A pixel d pixels from the nearest unmarked one keeps the share d / (radius + 1) of its value, up to all of it. The
    picture's own border is none of the mask's. A part narrower than twice the radius does not reach all of it.

    Args:
        values: shape (H, W).
        radius: in pixels; 0 changes nothing.
    Raises:
        SettingError: a radius below 0.
    """
    if radius < 0:
        raise SettingError(f"feathering goes over a number of pixels, at least 0, not {radius}")
    share = np.minimum(_depth(values > 0, radius + 1) / (radius + 1), 1)
    return (values * share).astype(np.float32)


def _depth(inside: np.ndarray[Any, np.dtype[np.bool_]], most: int) -> Values:
    """Euclidean distance to the nearest pixel that is not inside, up to `most`: along columns, then along rows."""
    along = np.where(inside, float(most), 0.0)
    for _ in range(most - 1):
        along[1:] = np.minimum(along[1:], along[:-1] + 1)
        along[:-1] = np.minimum(along[:-1], along[1:] + 1)
    squared = along**2
    nearest = squared.copy()
    for shift in range(1, min(most, inside.shape[1])):
        np.minimum(nearest[:, shift:], squared[:, :-shift] + shift**2, out=nearest[:, shift:])
        np.minimum(nearest[:, :-shift], squared[:, shift:] + shift**2, out=nearest[:, :-shift])
    depth: Values = np.sqrt(np.minimum(nearest, float(most) ** 2))
    return depth


def paste(original: Pixels, made: np.ndarray[Any, Any], values: Values) -> Pixels:
    """The made picture inside the mask, the original's own bytes where the mask is 0, and a mixture between.

    Args:
        original: uint8 of shape (H, W, 3).
        made: uint8, or float in [0, 255], of the same shape.
        values: the mask, shape (H, W).
    Raises:
        SettingError: shapes that differ.
        DivergenceError: a made picture that is not finite.
    """
    check_layers(original, made, values)
    weight = values[..., None]
    mixed = original + weight * (made.astype(np.float32) - original)
    return np.where(weight > 0, mixed.round().clip(0, 255).astype(np.uint8), original)


def check_layers(original: Pixels, made: np.ndarray[Any, Any], values: Values) -> None:
    """Refuse what `paste` cannot lay on each other.

    Raises:
        SettingError: shapes that differ.
        DivergenceError: a made picture that is not finite.
    """
    if original.shape != made.shape or original.shape[:2] != values.shape:
        raise SettingError(
            f"a picture of shape {made.shape} and a mask of shape {values.shape} do not lie on one of {original.shape}"
        )
    if not np.isfinite(made).all():
        raise DivergenceError("the picture that was made is not finite; the model, or the precision it runs in, fails")
