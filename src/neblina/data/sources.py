"""Where pictures come from, by the name or the path a user gives."""

import gzip
import struct
import zlib
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from neblina.core.errors import DataError
from neblina.core.registry import Registry
from neblina.data.files import SUFFIXES, OnRead, read_files, scaled
from neblina.data.pictures import InMemory, Pictures, checked_labels

_MADE = {"noto-emoji-64.zip": "neblina data emoji"}  # archives that recipes of the package name, and what makes them
Source = Callable[[], Pictures]
sources: Registry[Source] = Registry("data source")


def open_pictures(
    source: str,
    *,
    resolution: int | None = None,
    channels: int | None = None,
    skip_bad: bool = False,
    on_read: OnRead | None = None,
) -> tuple[Pictures, list[str]]:
    """Open a named source, a folder, a zip archive, one picture, or IDX files.

    Args:
        source: "digits", or a path. A path to IDX pictures ("…-images-idx3-ubyte", gzip or not) takes its labels from
            the file beside it; a folder that holds them stands for its training part.
        resolution: side to scale to.
        channels: 1 or 3 (folders and archives); named sources and IDX files are grey whatever is said.
        skip_bad: leave bad files out instead of refusing the set.
        on_read: told how many pictures have been looked at.
    Returns:
        The pictures, and one sentence for each bad file that was left out.
    Raises:
        DataError: nothing there, or nothing usable.
    """
    if source in sources:
        return _at(sources[source](), resolution), []
    path = Path(source).expanduser()
    if not path.exists():
        close = get_close_matches(source, list(sources), n=1)
        if path.name in _MADE:
            raise DataError(
                f"{source} does not exist. Make it with: {_MADE[path.name]}, or say where pictures are: "
                "--data.source PATH (a folder or a zip)"
            )
        hint = f"Did you mean {close[0]}?" if close else "Say where the pictures are: --data.source PATH"
        raise DataError(f"{source} does not exist. {hint} (a folder or a zip of pictures, or IDX files)")
    idx = _idx_pictures(path)
    if idx is not None:
        return _at(read_idx(idx), resolution), []
    if path.is_file() and path.suffix.lower() not in (".zip", *SUFFIXES):
        raise DataError(f"{path} is neither a folder, a zip archive, a picture nor an IDX file")
    return read_files(path, resolution=resolution, channels=channels, skip_bad=skip_bad, on_read=on_read)


def _at(pictures: Pictures, side: int | None) -> Pictures:
    """Grey pictures in memory at the side that is asked for."""
    if side is None or pictures.shape[1:] == (side, side):
        return pictures
    small = np.empty((len(pictures), 1, side, side), np.uint8)
    for number in range(len(pictures)):
        picture = Image.fromarray(pictures.read([number])[0, 0].numpy())
        small[number, 0] = np.asarray(scaled(picture, side, side))
    return InMemory(torch.from_numpy(small), pictures.labels, pictures.label_names)


def digits() -> Pictures:
    """The 1,797 handwritten digits of scikit-learn: grey, 8x8, levels 0 … 16 spread over 0 … 255."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    levels = np.round(pixels.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    return InMemory(torch.from_numpy(levels), torch.from_numpy(labels.astype(np.int64)), tuple("0123456789"))


sources.add(digits, "digits")


def read_idx(pictures: Path) -> Pictures:
    """Grey pictures of an IDX file, with the labels of the file beside it where there is one.

    Raises:
        DataError: not an IDX file, cut short, or as many labels as there are pictures are not there.
    """
    pixels = _idx(pictures)
    if pixels.ndim != 3:
        raise DataError(f"{pictures} holds {pixels.ndim}-dimensional data, not pictures")
    beside = pictures.with_name(pictures.name.replace("images", "labels").replace("idx3", "idx1"))
    stacked = torch.from_numpy(pixels[:, None].copy())
    if beside == pictures or not beside.exists():
        return InMemory(stacked)
    labels = _idx(beside)
    if len(labels) != len(pixels):
        raise DataError(f"{beside} holds {len(labels)} labels for {len(pixels)} pictures")
    classes = int(labels.max()) + 1
    return InMemory(stacked, checked_labels(labels.tolist(), classes, str(beside)), tuple(map(str, range(classes))))


def _idx_pictures(path: Path) -> Path | None:
    """The IDX pictures that a path means, if it means any."""
    if path.is_file():
        return path if "idx3" in path.name else None
    found = sorted(path.glob("*images*idx3*"))
    if not found:
        return None
    training = [file for file in found if "train" in file.name]
    if len(found) > 1 and len(training) != 1:
        raise DataError(
            f"{path} holds several sets of IDX pictures: name one of {', '.join(file.name for file in found)}"
        )
    return training[0] if training else found[0]


def _idx(path: Path) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    try:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        zero, kind, dimensions = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise DataError(f"{path} cannot be read as an IDX file: {error}") from error
    if zero != 0 or kind != 8:
        raise DataError(f"{path} is not an IDX file of unsigned bytes")
    body = content[4 + 4 * dimensions :]
    if len(body) != np.prod(shape):
        raise DataError(f"{path} is cut short: {len(body):,} of {int(np.prod(shape)):,} bytes")
    return np.frombuffer(body, np.uint8).reshape(shape)
