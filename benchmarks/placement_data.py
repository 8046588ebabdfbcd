"""Canvases with one handwritten digit at a random place and scale, or with none: what there is to be placed.

    python benchmarks/placement_data.py PATH_TO_MNIST OUT
    neblina train scattered --data.source OUT

OUT then holds IDX files like MNIST's own: 66,000 canvases of the training digits and 11,000 of the test digits, every
digit once. A canvas is black, 56x56; the longer side of the digit's ink is uniform on 24 … 32 pixels and the ink lies
anywhere on the canvas, whole. One canvas in eleven is blank, of class 10. The same arguments give the same bytes.
"""

import argparse
import gzip
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from neblina.data.sources import open_pictures

SIDE = 56  # of a canvas
SIZES = (24, 32)  # of the longer side of a digit's ink
BLANK = 10  # the class of a canvas without a digit
INK = 64  # pixels at least this bright are ink

Grey = np.ndarray[Any, np.dtype[np.uint8]]
Corners = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels, the last two excluded."""


@dataclass(frozen=True)
class Digits:
    """Handwritten digits.

    Attributes:
        pixels: uint8, shape (N, 28, 28), black around.
        labels: shape (N,).
    """

    pixels: Grey
    labels: Grey


def read_digits(folder: Path, *, held_out: bool = False) -> Digits:
    """The training digits of a folder of MNIST's IDX files, or the test digits."""
    part = "t10k" if held_out else "train"
    pictures, _ = open_pictures(str(next(iter(sorted(folder.glob(f"{part}-images*"))))))
    assert pictures.labels is not None
    return Digits(pictures.read(range(len(pictures))).numpy()[:, 0], pictures.labels.numpy().astype(np.uint8))


def ink_box(picture: Grey, level: int = INK) -> Corners | None:
    """The smallest box around the ink of a picture of shape (H, W); None where there is none."""
    rows, columns = np.flatnonzero((picture >= level).any(1)), np.flatnonzero((picture >= level).any(0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def scaled(digit: Grey, longer: int) -> Grey:
    """The ink of a digit alone, scaled so that its longer side has so many pixels."""
    x0, y0, x1, y1 = ink_box(digit, 1) or (0, 0, *digit.shape)
    factor = longer / max(x1 - x0, y1 - y0)
    size = max(1, round((x1 - x0) * factor)), max(1, round((y1 - y0) * factor))
    ink = Image.fromarray(digit[y0:y1, x0:x1]).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(ink, np.uint8)


def put(canvas: Grey, digit: Grey, longer: int, within: Corners, random: np.random.Generator) -> None:
    """Draw a digit of that size anywhere inside a box of the canvas, whole; ink adds to what is there."""
    ink, (x0, y0, x1, y1) = scaled(digit, longer), within
    height, width = ink.shape
    x, y = int(random.integers(x0, x1 - width + 1)), int(random.integers(y0, y1 - height + 1))
    place = canvas[y : y + height, x : x + width]
    np.maximum(place, ink, out=place)


def canvases(digits: Digits, seed: int) -> Digits:
    """Every digit once on a canvas of its own, and a blank canvas for every ten, in a random order."""
    # not the generator of the trainer's order (data/order.py): by the same seed blank canvases would all come last
    random = np.random.default_rng(seed)
    count = len(digits.labels)
    pixels = np.zeros((count + count // 10, SIDE, SIDE), np.uint8)
    labels = np.full(len(pixels), BLANK, np.uint8)
    places = random.permutation(len(pixels))[:count]
    for place, digit, label in zip(places, digits.pixels, digits.labels, strict=True):
        longer = int(random.integers(SIZES[0], SIZES[1] + 1))
        put(pixels[place], digit, longer, (0, 0, SIDE, SIDE), random)
        labels[place] = label
    return Digits(pixels, labels)


def write(folder: Path, part: str, made: Digits) -> None:
    """The two IDX files of a part, gzip."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in (("images-idx3", made.pixels), ("labels-idx1", made.labels)):
        head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
        content = gzip.compress(head + values.tobytes(), compresslevel=6, mtime=0)
        (folder / f"{part}-{name}-ubyte.gz").write_bytes(content)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("mnist", type=Path, help="folder of MNIST's four IDX files")
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    for part, held_out, seed in (("train", False, 0), ("t10k", True, 1)):
        made = canvases(read_digits(given.mnist, held_out=held_out), seed)
        write(given.out, part, made)
        print(f"{len(made.labels):,} canvases, {(made.labels == BLANK).sum():,} of them blank: {given.out}/{part}-…")


if __name__ == "__main__":
    main()
