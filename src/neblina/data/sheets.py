"""Pictures side by side in one file, for people to look at."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from neblina.core.atomic import write_file

SHEET = "neblina sheet"  # the text by which a sheet is known for one


def save_sheet(pictures: Tensor, place: Path, *, columns: int, scale: int | None = None) -> None:
    """Write uint8 pictures of shape (N, C, H, W), row by row, as one PNG.

    Args:
        pictures: what to show.
        place: where.
        columns: pictures a row.
        scale: how many pixels wide a pixel is drawn; None makes small pictures about 48 pixels large.
    """
    count, channels, height, width = pictures.shape
    scale = scale or max(1, 48 // max(height, width))
    gap = max(1, scale // 2)
    rows = -(-count // columns)
    sheet = torch.full(
        (channels, rows * (height * scale + gap) + gap, columns * (width * scale + gap) + gap),
        255,
        dtype=torch.uint8,
    )
    for number, picture in enumerate(pictures):
        top = gap + number // columns * (height * scale + gap)
        left = gap + number % columns * (width * scale + gap)
        large = picture.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
        sheet[:, top : top + height * scale, left : left + width * scale] = large
    texts = PngInfo()
    texts.add_text(SHEET, f"{count} pictures")
    write_file(place, lambda aside: to_image(sheet).save(aside, format="PNG", pnginfo=texts))


def to_image(picture: Tensor) -> Image.Image:
    """A uint8 picture of shape (C, H, W), C of 1 or 3, as a Pillow image."""
    pixels = picture.cpu().numpy()
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def enlarged(image: Image.Image, side: int) -> Image.Image:
    """A picture smaller than `side` pixels as large as that allows, each pixel a square; another one as it is."""
    factor = max(1, side // max(image.size))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
