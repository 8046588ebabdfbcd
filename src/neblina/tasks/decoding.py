"""A picture file that a user hands over: its bytes, its colours as they are meant, and what is wrong with it.

Training looks at thousands of files and skips the bad ones (`data/files.py`); here one file is asked to be changed,
and what is handed back keeps its pixels. So nothing is decided in silence: what changes a pixel's value is in
`changes`, and what has several answers (an animation, floating point) is refused with the way out.

Sixteen bits become eight by v / 257, rounded. Pillow keeps the upper byte of 16-bit colour and drops the lower, which
is another picture by up to a level, so the file is decoded twice: once with its bytes as they are and once with the two
bytes of every value swapped.
"""

import hashlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageFile, ImageOps

from neblina.core.errors import DataError

MOST_PIXELS = 80_000_000  # 9,000 x 9,000: what a file declares before anything is unpacked
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000")  # none runs another program

IN_MEMORY = Path("the picture in memory")
Given = str | Path | Image.Image | np.ndarray[Any, np.dtype[np.uint8]]
Levels = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Decoded:
    """What a file holds.

    Attributes:
        colour: sRGB, float32 of shape (H, W, 3) in [0, 255]; whole numbers unless the file has 16 bits.
        alpha: opacity in [0, 1], float32 of shape (H, W); None where everything is opaque.
        lossy: whether the file's format changes pixels when it is written.
        path: where the file is.
        sha256: of the file's bytes, in hexadecimal.
        changes: what was done to the pixels, each as a few words.
    """

    colour: Levels
    alpha: Levels | None
    lossy: bool
    path: Path
    sha256: str
    changes: tuple[str, ...]


def decode_file(path: str | Path) -> Decoded:
    """Read one picture, turned as its camera says.

    Raises:
        DataError: missing, a folder, empty, cut short, no picture, animated, floating point, or too large to unpack.
    """
    place = Path(path)
    return _decoded(place, _content(place))


def decode(given: Given) -> Decoded:
    """Read one picture: a file, a Pillow picture, or uint8 pixels of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4).

    Raises:
        DataError: as `decode_file`, or pixels of another shape or dtype.
    """
    if isinstance(given, str | Path):
        return decode_file(given)
    if isinstance(given, np.ndarray):
        if given.dtype != np.uint8 or given.ndim not in (2, 3) or given.shape[2:] not in ((), (1,), (3,), (4,)):
            raise DataError(
                f"pixels are uint8 of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), not {given.dtype} of shape "
                f"{given.shape}"
            )
        given = Image.fromarray(given[..., 0] if given.shape[2:] == (1,) else np.ascontiguousarray(given))
    packed = io.BytesIO()  # as a file that loses nothing, so that there is one way of reading
    try:
        profile = {"icc_profile": given.info["icc_profile"]} if given.info.get("icc_profile") else {}
        given.save(packed, "PNG", exif=given.getexif(), **profile)
    except (OSError, ValueError, SystemError) as error:
        raise DataError(
            f"a picture of mode {given.mode} and size {given.size} is not read: convert it to RGB"
        ) from error
    return _decoded(IN_MEMORY, packed.getvalue())


def _decoded(place: Path, content: bytes) -> Decoded:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(content), formats=_readable()) as picture:
                _check(place, picture)
                decoded = _decode(place, picture, content)
        except DataError:
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise DataError(f"{place} unpacks to more than {MOST_PIXELS:,} pixels; scale it down first") from error
        except Exception as error:  # Pillow raises many kinds for a broken file
            raise DataError(
                f"{place} cannot be read as a picture ({len(content):,} bytes): it is cut short, damaged, or none of "
                f"{', '.join(FORMATS)} ({error})"
            ) from error
    return replace(decoded, sha256=hashlib.sha256(content).hexdigest())


@cache
def _readable() -> tuple[str, ...]:
    """The formats that this build of Pillow has."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _content(place: Path) -> bytes:
    if place.is_dir():
        raise DataError(f"{place} is a folder; give one picture")
    if not place.exists():
        raise DataError(f"{place} is missing")
    if not place.is_file():
        raise DataError(f"{place} is not a file")
    try:
        content = place.read_bytes()
    except OSError as error:
        raise DataError(f"{place} cannot be read: {error.strerror or error}") from error
    if not content:
        raise DataError(f"{place} is empty (0 bytes)")
    return content


def _check(place: Path, picture: ImageFile.ImageFile) -> None:
    """Refuse, from the header alone, what has no pixels, too many, or several pictures."""
    if not picture.width or not picture.height:
        raise DataError(f"{place} is {picture.width}x{picture.height}: it has no pixels")
    if picture.width * picture.height > MOST_PIXELS:
        raise DataError(
            f"{place} is {picture.width}x{picture.height}, more than {MOST_PIXELS:,} pixels; scale it down first"
        )
    frames = getattr(picture, "n_frames", 1)
    if frames > 1 and picture.format != "MPO":  # a camera's JPEG that carries a preview beside the photo
        what = "pages" if picture.format == "TIFF" else "frames"
        raise DataError(f"{place} has {frames} {what}; save the one you want as a picture of its own")


def _decode(place: Path, picture: ImageFile.ImageFile, content: bytes) -> Decoded:
    changes = []
    kind = picture.format
    deep = _is_deep(picture)  # looks at how the file is packed, which Pillow forgets as soon as anything is unpacked
    if deep:
        changes.append("16 bits a channel to 8, rounded")
        colour, alpha = _sixteen(place, picture, content)
    elif picture.mode in ("I", "F"):
        raise DataError(f"{place} has more than 16 bits a channel; convert it to 8 bits, so that you choose how")
    else:
        upright = ImageOps.exif_transpose(picture)
        alpha = _alpha(upright)
        flat, changed = _srgb(place, upright)
        colour = np.asarray(flat, dtype=np.float32)
        changes += changed
    if picture.getexif().get(0x0112, 1) not in (0, 1):  # the orientation's number among EXIF's tags
        changes.append("turned as the camera says")
    if alpha is not None and bool((alpha == 1).all()):
        alpha = None
    lossy = kind in ("JPEG", "MPO", "AVIF", "JPEG2000") or (kind == "WEBP" and b"VP8L" not in content[:64])
    return Decoded(colour, alpha, lossy, place, "", tuple(changes))


def _alpha(picture: Image.Image) -> Levels | None:
    if not picture.has_transparency_data:
        return None
    opacity = np.asarray(picture.convert("RGBA").getchannel("A"), dtype=np.float32)
    return opacity / np.float32(255)


def _srgb(place: Path, picture: Image.Image) -> tuple[Image.Image, list[str]]:
    """As sRGB of 8 bits, by the colour profile in the file if it has one, and what that changed."""
    mode = picture.mode
    profile = picture.info.get("icc_profile")
    if mode in ("RGB", "RGBA", "RGBX", "CMYK", "P", "PA"):
        flat = picture if mode == "CMYK" else picture.convert("RGB")
        try:
            named = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else None
            if named is not None and named.profile.xcolor_space.strip() == flat.mode:
                words = (named.profile.profile_description or "its own").strip()
                if flat.mode == "RGB" and "srgb" in words.lower():
                    return flat, []
                converted = ImageCms.profileToProfile(flat, named, ImageCms.createProfile("sRGB"), outputMode="RGB")
                if converted is not None:
                    return converted, [f"colours from the profile {words} to sRGB"]
        except (ImageCms.PyCMSError, OSError):
            return flat.convert("RGB"), ["a damaged colour profile left aside"]
        return flat.convert("RGB"), ["print colours (CMYK) without a profile to RGB"] if mode == "CMYK" else []
    if mode in ("1", "L", "LA", "YCbCr"):
        return picture.convert("RGB"), []
    raise DataError(f"{place} has the colour mode {mode}; convert it to 8-bit RGB or grey")


def _is_deep(picture: ImageFile.ImageFile) -> bool:
    return picture.mode.startswith("I;16") or any(";16" in _raw_mode(tile) for tile in picture.tile)


def _raw_mode(tile: Any) -> str:
    """How a piece of the file is packed, as Pillow names it."""
    arguments = tile[3]
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _sixteen(place: Path, picture: ImageFile.ImageFile, content: bytes) -> tuple[Levels, Levels | None]:
    """Colour in [0, 255] and opacity in [0, 1] of a picture with 16 bits a channel."""
    key = picture.info.get("transparency")
    if picture.mode.startswith("I;16"):
        values = np.asarray(ImageOps.exif_transpose(picture)).astype(np.int64)[..., None]
    elif picture.mode in ("RGB", "RGBA") and all(_raw_mode(tile) in _SWAPPED for tile in picture.tile):
        upper = np.asarray(ImageOps.exif_transpose(picture), dtype=np.int64)
        with Image.open(io.BytesIO(content), formats=_readable()) as again:
            again.tile = [_other_byte(tile) for tile in again.tile]
            values = 256 * upper + np.asarray(ImageOps.exif_transpose(again), dtype=np.int64)
    else:
        raise DataError(f"{place} has 16 bits a channel in a form that is not read; convert it to 8 bits")
    levels = (np.round(values / 257)).astype(np.float32)
    colour = np.broadcast_to(levels[..., :3], (*levels.shape[:2], 3)).copy()
    if levels.shape[-1] == 4:
        return colour, (values[..., 3] / 65535).astype(np.float32)
    if key is not None:
        return colour, (values != np.asarray(key)).any(-1).astype(np.float32)
    return colour, None


_SWAPPED = {"RGB;16B": "RGB;16L", "RGB;16L": "RGB;16B", "RGBA;16B": "RGBA;16L", "RGBA;16L": "RGBA;16B"}


def _other_byte(tile: Any) -> Any:
    arguments = tile[3]
    swap: Callable[[str], str] = _SWAPPED.__getitem__
    return tile._replace(args=(swap(arguments[0]), *arguments[1:]) if isinstance(arguments, tuple) else swap(arguments))
