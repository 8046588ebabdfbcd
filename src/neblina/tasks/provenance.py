"""How a picture was made, kept in the picture: what it takes to make it again, and to know that it is the same.

A PNG carries two texts: `neblina`, a JSON object that is read back, and `parameters`, a few lines for people and for
the programs that show what AUTOMATIC1111's web interface writes. The JSON is ASCII, so that no program's idea of a text
chunk's encoding changes a prompt.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor, from_numpy

from neblina.core.atomic import write_file
from neblina.core.errors import DataError, SettingError, choose
from neblina.data.pictures import to_uint8
from neblina.data.sheets import to_image
from neblina.version import __version__

FORMAT = 1
CHUNK = "neblina"
VERBS = ("generate", "edit", "inpaint", "outpaint", "upscale", "compose", "panorama")


@dataclass(frozen=True)
class Input:
    """A file that a picture was made from.

    Attributes:
        path: where it was.
        sha256: of its bytes, in hexadecimal.
    """

    path: str
    sha256: str


@dataclass(frozen=True)
class Provenance:
    """What it takes to make a picture again.

    Attributes:
        verb: what was asked for, one of VERBS.
        model: path of the model, or its name on the hub.
        fingerprint: of the model's files.
        arguments: what was asked, by name, JSON values: prompt, negative, sampler, grid, steps, guidance, seed, number
            (of the picture under the seed), size, strength, settings, loras, clip_skip, …
        inputs: the files it was made from, by what they were: photo, mask, mask of element 2.
        version: of neblina.
        torch: version of PyTorch.
    """

    verb: str
    model: str
    fingerprint: str
    arguments: Mapping[str, Any]
    inputs: Mapping[str, Input] = field(default_factory=dict)
    version: str = __version__
    torch: str = str(torch.__version__)

    def __post_init__(self) -> None:
        """Refuse what would not be read back as it is.

        Raises:
            SettingError: an unknown verb, or an argument that is not a JSON value.
        """
        choose("verb", self.verb, VERBS)
        for name, value in self.arguments.items():
            _check_json(name, value)


def _check_json(name: str, value: Any) -> None:
    if isinstance(value, Mapping):
        for key, part in value.items():
            if not isinstance(key, str):
                raise SettingError(f"{name} has the key {key!r}; a picture's metadata names everything by words")
            _check_json(f"{name}.{key}", part)
    elif isinstance(value, list):
        for part in value:
            _check_json(name, part)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise SettingError(f"{name} is {value}; a picture's metadata holds finite numbers")
    elif not (value is None or isinstance(value, str | int)):
        raise SettingError(
            f"{name} is a {type(value).__name__}; a picture's metadata holds texts, numbers, lists and objects"
        )


def save_picture(picture: np.ndarray[Any, Any] | Tensor, path: str | Path, provenance: Provenance) -> None:
    """Write a PNG that says how it was made; the whole file or none.

    Args:
        picture: uint8 array of shape (H, W, 1 or 3), or a float tensor of shape (1 or 3, H, W) in [−1, 1].
        path: ends in .png, the only format that keeps the metadata.
        provenance: how it was made.
    Raises:
        SettingError: another suffix, shape or dtype.
        StorageError: the disk is full or refuses; what was there before is untouched.
    """
    place = Path(path)
    if place.suffix.lower() != ".png":
        raise SettingError(f"{place} does not end in .png, the format that keeps how a picture was made")
    pixels = to_uint8(picture.detach()) if isinstance(picture, Tensor) else from_numpy(_channels_first(picture))
    if pixels.dtype != torch.uint8 or pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or not pixels.numel():
        raise SettingError(f"a picture has 1 or 3 channels of uint8, not shape {tuple(picture.shape)} {picture.dtype}")
    image = to_image(pixels)
    texts = PngInfo()
    texts.add_text(CHUNK, json.dumps(_to_json(provenance), allow_nan=False))
    texts.add_text("parameters", describe(provenance).encode("utf-8", "replace").decode())
    write_file(place, lambda aside: image.save(aside, format="PNG", pnginfo=texts))


def _channels_first(picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(np.moveaxis(picture, -1, 0)) if picture.ndim == 3 else picture


def _to_json(provenance: Provenance) -> dict[str, Any]:
    return {"format": FORMAT, **asdict(provenance)}


def read_provenance(path: str | Path) -> Provenance:
    """How a picture was made, by what it says itself.

    Raises:
        DataError: no PNG; nothing of ours in it; damaged; written by a newer version.
    """
    text = _chunk(Path(path))
    try:
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError(f"a {type(content).__name__} where names and values belong")
        number = content.pop("format")
        if number != FORMAT:
            raise DataError(
                f"{path} says how it was made in format {number!r}, written by neblina {content.get('version')}; this "
                f"is {__version__} and reads format {FORMAT}. Update neblina"
            )
        inputs = {name: Input(**one) for name, one in content.pop("inputs").items()}
        _check_kinds(content, inputs)
        return Provenance(**content, inputs=inputs)
    except DataError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} has damaged metadata: {type(error).__name__}, {error}") from error


def read_pixels(path: str | Path) -> Tensor:
    """A picture's pixels as they are in its file, uint8 of shape (C, H, W).

    Raises:
        DataError: a file that cannot be read, or whose channels are not 8 bits.
    """
    try:
        with Image.open(path) as picture:
            pixels = np.array(picture)
    except Exception as error:  # Pillow raises many kinds for a broken file
        raise DataError(f"{path} cannot be read as a picture: {error}") from error
    if pixels.dtype != np.uint8:
        raise DataError(f"{path} has pixels of {pixels.dtype}, and this program writes 8 bits a channel")
    return from_numpy(np.ascontiguousarray(np.moveaxis(np.atleast_3d(pixels), -1, 0)))


def _check_kinds(content: Mapping[str, Any], inputs: Mapping[str, Input]) -> None:
    """Refuse values of another kind than they are written with."""
    for name in ("verb", "model", "fingerprint", "version", "torch"):
        if not isinstance(content[name], str):
            raise TypeError(f"{name} is no text")
    if not isinstance(content["arguments"], dict):
        raise TypeError("arguments is no object")
    for name, one in inputs.items():
        if not (isinstance(one.path, str) and isinstance(one.sha256, str)):
            raise TypeError(f"{name} is no file")


def _chunk(place: Path) -> str:
    if not place.is_file():
        raise DataError(f"{place} is a folder; give one picture" if place.is_dir() else f"{place} is missing")
    try:
        with Image.open(place) as picture:
            if picture.format != "PNG":
                raise DataError(f"{place} is a {picture.format}; how a picture was made is kept in PNG files only")
            if CHUNK not in picture.info:
                picture.load()  # another program may have put it behind the pixels
            text = picture.info.get(CHUNK)
    except DataError:
        raise
    except Exception as error:  # Pillow raises many kinds for a broken file
        raise DataError(f"{place} cannot be read as a picture: {error}") from error
    if not isinstance(text, str):
        raise DataError(f"{place} does not say how it was made: it was not written by neblina, or was saved anew since")
    return text


def describe(provenance: Provenance) -> str:
    """The same for people, laid out as AUTOMATIC1111's web interface does: prompt, negative prompt, settings."""
    arguments = dict(provenance.arguments)
    prompt, negative = arguments.pop("prompt", None), arguments.pop("negative", None)
    settings = {_TITLES.get(name, name.replace("_", " ").capitalize()): value for name, value in arguments.items()}
    settings |= {
        "Model": provenance.model,
        "Model hash": provenance.fingerprint[:10],
        **{name.capitalize(): one.path for name, one in provenance.inputs.items()},
        "Version": f"neblina {provenance.version}",
    }
    lines = [] if prompt is None else [str(prompt)]
    lines += [] if not negative else [f"Negative prompt: {negative}"]
    lines.append(", ".join(f"{name}: {_shown(value)}" for name, value in settings.items() if value is not None))
    return "\n".join(lines)


_TITLES = {"guidance": "CFG scale", "grid": "Schedule type", "strength": "Denoising strength"}


def _shown(value: Any) -> str:
    words = value if isinstance(value, str) else json.dumps(value)
    return json.dumps(words, ensure_ascii=False) if any(mark in words for mark in ",:\n") else words
