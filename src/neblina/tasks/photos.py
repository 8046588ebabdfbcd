"""Photos that are edited, and the way to a network's size and back.

A network takes sizes that are multiples of a number: the codec's factor times its own. A photo of another size is not
scaled but continued, its last rows and columns mirrored at the right and at the bottom, and what is made is cut back;
so its own pixels stay where they are and what they are.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageColor
from torch import Tensor, from_numpy

from neblina.core.errors import DataError, SettingError
from neblina.data.files import Pixels
from neblina.data.pictures import to_float, to_uint8
from neblina.tasks.decoding import Given, decode

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True)
class Photo:
    """A picture that a user hands over.

    Attributes:
        pixels: sRGB, uint8 of shape (H, W, 3).
        path: where it was read from.
        sha256: of the file's bytes, in hexadecimal.
        changes: what reading did to its pixels, each as a few words; empty where they are the file's own.
    """

    pixels: Pixels
    path: Path
    sha256: str
    changes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        height, width = self.pixels.shape[:2]
        return height, width


def read_photo(given: Given, *, background: str | None = None) -> Photo:
    """Read a picture of any usual format: turned as its camera says, in sRGB, 8 bits a channel.

    Args:
        given: the file, or a picture in memory as `decoding.decode` takes it.
        background: a colour, such as white or #204060, that transparent parts are laid on; None refuses them.
    Raises:
        DataError: a file that is not one still picture, or one with transparent parts and no background.
        SettingError: a background that is not a colour.
    """
    ground = None if background is None else _colour(background)
    decoded = decode(given)
    colour, changes = decoded.colour, decoded.changes
    if decoded.alpha is not None:
        if ground is None:
            share = float((decoded.alpha < 1).mean())
            raise DataError(
                f"{decoded.path} is transparent in {share:.1%} of its pixels, and a photo to work on is not; say what "
                "lies behind it: --background white"
            )
        opacity = decoded.alpha[..., None]
        colour = opacity * colour + (1 - opacity) * ground
        changes = (*changes, f"transparent parts laid on {background}")
    return Photo(colour.round().astype(np.uint8), decoded.path, decoded.sha256, changes)


def _colour(name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    try:
        return np.asarray(ImageColor.getrgb(name)[:3], dtype=np.float32)
    except ValueError as error:
        raise SettingError(f"background {name!r} is not a colour; write one as white or #204060") from error


def resize(photo: Photo, size: tuple[int, int]) -> Photo:
    """The photo at another size (H, W), by a Lanczos filter; at its own size it is what it was.

    Raises:
        SettingError: a side below 1.
    """
    height, width = size
    if min(size) < 1:
        raise SettingError(f"a picture cannot be {width}x{height}; each side is at least 1 pixel")
    if size == photo.size:
        return photo
    scaled = Image.fromarray(photo.pixels).resize((width, height), Image.Resampling.LANCZOS)
    change = f"scaled from {photo.size[1]}x{photo.size[0]} to {width}x{height}"
    return replace(photo, pixels=np.asarray(scaled).copy(), changes=(*photo.changes, change))


@dataclass(frozen=True)
class Fit:
    """A photo's size and the one that a network takes in its place.

    Attributes:
        size: (H, W) of the photo.
        padded: (H, W) of what the network is given, no smaller.
    """

    size: tuple[int, int]
    padded: tuple[int, int]

    def pad(self, pixels: np.ndarray[Any, np.dtype[Scalar]]) -> np.ndarray[Any, np.dtype[Scalar]]:
        """Pixels or a mask, shape (H, W, …), mirrored at the right and at the bottom up to the padded size."""
        self._check(pixels.shape[:2], self.size)
        more = [(0, after - before) for before, after in zip(self.size, self.padded, strict=True)]
        return np.pad(pixels, more + [(0, 0)] * (pixels.ndim - 2), mode="reflect")

    def cut(self, pixels: np.ndarray[Any, np.dtype[Scalar]]) -> np.ndarray[Any, np.dtype[Scalar]]:
        """What of pixels of the padded size, shape (H, W, …), is the photo's."""
        self._check(pixels.shape[:2], self.padded)
        return pixels[: self.size[0], : self.size[1]]

    def _check(self, given: tuple[int, ...], wanted: tuple[int, int]) -> None:
        if given != wanted:
            raise SettingError(f"pixels of shape {given} where {wanted} belong")


def fit(size: tuple[int, int], multiple: int) -> Fit:
    """The smallest size of whole multiples that a photo of `size` (H, W) fits into."""
    height, width = (-(-side // multiple) * multiple for side in size)
    return Fit(size, (height, width))


def to_network(pixels: Pixels) -> Tensor:
    """uint8 pixels of shape (H, W, 3) as a batch of one, float32 of shape (1, 3, H, W) in [−1, 1]."""
    return to_float(from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))))[None]


def to_pixels(picture: Tensor) -> Pixels:
    """A picture of shape (3, H, W) in [−1, 1], on any device, as uint8 pixels of shape (H, W, 3)."""
    return np.ascontiguousarray(to_uint8(picture.detach()).cpu().numpy().transpose(1, 2, 0))
