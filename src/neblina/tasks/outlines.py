"""A picture with the places of a scene drawn on: what was asked for where, over what was made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from PIL import Image, ImageColor, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from neblina.core.atomic import write_file
from neblina.data.sheets import enlarged, to_image
from neblina.tasks.keeping import names, says
from neblina.tasks.masks import Values
from neblina.tasks.scenes import Placed, Scene

OUTLINES = "neblina outlines"  # the text by which such a picture is known
_SIDE = 768  # pixels that a small picture is enlarged to, so that words can be read on it
# told apart by people with any colour vision: Okabe and Ito's, but for black
_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")


def outlined(picture: Tensor, scene: Scene) -> Image.Image:
    """A picture, uint8 of shape (C, H, W), with the border of every element, its number and its prompt.

    A picture smaller than 768 pixels comes back enlarged by a whole number.
    """
    small = to_image(picture)
    image = enlarged(small, _SIDE).convert("RGB")
    scale = image.width // small.width
    draw = ImageDraw.Draw(image)
    line = max(3, max(image.size) // 256)
    font = _font(max(12, min(image.size) // 28))
    for number, element in enumerate(scene.elements):
        _border(image, draw, element, _colour(number), scale, line)
    taken: list[tuple[float, float, float, float]] = []
    for number, element in enumerate(scene.elements):  # above all borders
        words = element.name.removeprefix("element ")
        taken.append(_words(draw, image, words, _corner(element, scale), _colour(number), font, taken))
    return image


def save_outlined(picture: Tensor, scene: Scene, place: Path) -> Path:
    """Write the drawing beside a picture, and say where: PICTURE-boxes.png, or PICTURE-boxes-2.png and on.

    An earlier drawing is replaced, nothing else is.

    Args:
        place: where the picture itself is.
    Raises:
        StorageError: the disk is full or refuses; what there was is untouched.
    """
    first = place.with_name(f"{place.stem}-boxes.png")
    drawn = next(one for one in names(first) if not one.exists() or says(one, OUTLINES))
    texts = PngInfo()
    texts.add_text(OUTLINES, f"{len(scene.elements)} places")
    image = outlined(picture, scene)
    write_file(drawn, lambda aside: image.save(aside, format="PNG", pnginfo=texts))
    return drawn


def _font(size: int) -> ImageFont.FreeTypeFont:
    """matplotlib's: Pillow's own knows the letters of few languages."""
    return ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _border(image: Image.Image, draw: ImageDraw.ImageDraw, element: Placed, colour: str, scale: int, line: int) -> None:
    """A line along the inside of an element's place, black on both sides, so that it is seen on any ground."""
    if element.outline is None:
        edges = {width: _edge(element.mask, scale, width) for width in (line + 2, line)}
        for width, ink in ((line + 2, "black"), (line, colour)):
            image.paste(ImageColor.getrgb(ink), mask=Image.fromarray(edges[width]))
        return
    corners = [
        (min(max(x * scale, 1), image.width - 2), min(max(y * scale, 1), image.height - 2)) for x, y in element.outline
    ]
    for width, ink in ((line + 2, "black"), (line, colour)):
        draw.line([*corners, *corners[:2]], fill=ink, width=width, joint="curve")


def _edge(mask: Values, scale: int, width: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """255 within `width` pixels of the border of a mask drawn at `scale`, inside it; 0 elsewhere."""
    inside = (mask > 0).repeat(scale, 0).repeat(scale, 1)
    core = inside
    for _ in range(width):
        padded = np.pad(core, 1)
        core = padded[1:-1, 1:-1] & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.where(inside & ~core, np.uint8(255), np.uint8(0))


def _corner(element: Placed, scale: int) -> tuple[float, float]:
    """The left upper corner of a place, in pixels of the drawing."""
    rows, columns = (element.mask > 0).any(1), (element.mask > 0).any(0)
    return float(columns.argmax() * scale), float(rows.argmax() * scale)


def _words(
    draw: ImageDraw.ImageDraw,
    image: Image.Image,
    words: str,
    corner: tuple[float, float],
    colour: str,
    font: ImageFont.FreeTypeFont,
    taken: list[tuple[float, float, float, float]],
) -> tuple[float, float, float, float]:
    """Write words on a ground of a colour near a corner, beside what is written already; the room that they take."""
    while draw.textlength(words, font) > 0.9 * image.width and len(words) > 1:
        words = f"{words.rstrip('…')[:-1]}…"
    left, top, right, bottom = draw.textbbox((0, 0), words, font)
    pad = 3.0
    wide, high = right - left + 2 * pad, bottom - top + 2 * pad
    x, y = min(corner[0], image.width - wide), min(corner[1], image.height - high)
    for _ in taken:  # each may push them down once
        hit = next(
            (one for one in taken if x < one[2] and one[0] < x + wide and y < one[3] and one[1] < y + high), None
        )
        if hit is None or hit[3] + high > image.height:
            break
        y = hit[3]
    draw.rectangle((x, y, x + wide, y + high), fill=colour, outline="black")
    red, green, blue = ImageColor.getrgb(colour)[:3]
    ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "white"
    draw.text((x + pad - left, y + pad - top), words, fill=ink, font=font)
    return x, y, x + wide, y + high
