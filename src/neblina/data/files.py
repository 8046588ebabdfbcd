"""Pictures from a folder or a zip archive, each looked at before any training starts.

Labels come from a `metadata.jsonl` (keys `file_name`, and `label`, `text` where they are) or else from sub-folders, one
a class; captions from its `text`, or else from a text file beside each picture: apple.txt of apple.png. A file that
cannot be used is named with what is wrong with it.
"""

import io
import json
import threading
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from neblina.core.errors import DataError
from neblina.data.pictures import InMemory, Pictures, Record, checked_labels

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
IN_MEMORY = 2 * 2**30  # bytes of pixels up to which a set is decoded once and kept

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
OnRead = Callable[[int, int], None]  # pictures read so far, pictures in all


@dataclass(frozen=True)
class Archive:
    """A folder, a zip file, or one picture: names, and their bytes."""

    path: Path

    def names(self) -> list[str]:
        """Every file, as a relative path with forward slashes, sorted."""
        if self.path.is_dir():
            files = (file for file in self.path.rglob("*") if file.is_file())
            return sorted(file.relative_to(self.path).as_posix() for file in files)
        if self.is_picture:
            return [self.path.name]
        try:
            with zipfile.ZipFile(self.path) as archive:
                return sorted(entry.filename for entry in archive.infolist() if not entry.is_dir())
        except zipfile.BadZipFile as error:
            raise DataError(f"{self.path} is not a zip archive, or it is cut short: {error}") from error

    def read(self, name: str) -> bytes:
        """The content of one file; from any thread."""
        if self.path.is_dir():
            return (self.path / name).read_bytes()
        if self.is_picture:
            return self.path.read_bytes()
        return _opened(self.path, self.path.stat().st_mtime_ns, threading.get_ident()).read(name)

    def show(self, name: str) -> str:
        """How a person finds the file."""
        if self.is_picture:
            return f"{self.path}"
        return f"{self.path / name}" if self.path.is_dir() else f"{self.path}: {name}"

    @property
    def is_picture(self) -> bool:
        """Whether the path is one picture's."""
        return self.path.suffix.lower() in SUFFIXES and self.path.is_file()


@cache
def _pool() -> ThreadPoolExecutor:
    """The threads that read and decode; Pillow lets other threads run while it does."""
    return ThreadPoolExecutor()


@lru_cache(maxsize=64)
def _opened(path: Path, changed: int, thread: int) -> zipfile.ZipFile:
    """An archive opened once a thread: its list of files is long, and reading moves a position in the file."""
    return zipfile.ZipFile(path)


@dataclass(frozen=True)
class Decoded:
    """Pictures decoded when they are read, for sets that do not fit in memory."""

    archive: Archive
    names: tuple[str, ...]
    shape: tuple[int, int, int]
    labels: Tensor | None = None
    label_names: tuple[str, ...] = ()
    records: tuple[Record, ...] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def read(self, numbers: Sequence[int]) -> Tensor:
        return torch.from_numpy(np.stack(list(_pool().map(self._one, (self.names[number] for number in numbers)))))

    def _one(self, name: str) -> Pixels:
        return decode(self.archive.read(name), self.shape[1:], self.shape[0])


def read_files(
    path: Path,
    *,
    resolution: int | None = None,
    channels: int | None = None,
    skip_bad: bool = False,
    on_read: OnRead | None = None,
) -> tuple[Pictures, list[str]]:
    """Open a folder or a zip archive of pictures, or one picture.

    Args:
        path: the folder or the archive.
        resolution: side to which each picture's centre square is scaled; None takes them as they are, if all agree.
        channels: 1 (grey) or 3 (colour); None is 3 unless every picture is grey.
        skip_bad: leave bad files out instead of refusing the set.
        on_read: told how many pictures have been looked at.
    Returns:
        The pictures, and one sentence for each bad file that was left out.
    Raises:
        DataError: no pictures; a bad file (the first ten are named); sizes that differ without a resolution; labels
            that are not complete.
    """
    archive = Archive(path)
    names = archive.names()
    records = _metadata(archive, names)
    pictures = [name for name in names if PurePosixPath(name).suffix.lower() in SUFFIXES]
    if records is not None:
        for name in records:
            if name not in names:
                raise DataError(f"{archive.show('metadata.jsonl')} lists {name}, which is not there")
        pictures = [name for name in pictures if name in records]
    if not pictures:
        raise DataError(f"{path} holds no pictures. Pictures end in {', '.join(SUFFIXES)}")

    facts, bad = _inspect(archive, pictures, on_read)
    if bad and not skip_bad:
        more = f"\n… and {len(bad) - 10} more" if len(bad) > 10 else ""
        raise DataError("\n".join(bad[:10]) + more + "\nReplace them, or pass --skip-bad to leave them out.")
    good = list(facts)
    if not good:
        raise DataError(f"{path} holds no picture that can be used: {bad[0]}")
    channels = channels or (1 if all(mode in _GREY for _, mode in facts.values()) else 3)
    height, width = (resolution, resolution) if resolution else _common_size(path, facts)
    labels, label_names = _labels(archive, good, records)
    said = _beside(archive, good, names) if records is None else tuple(records[name] for name in good)
    lazy = Decoded(archive, tuple(good), (channels, height, width), labels, label_names, said)
    if len(good) * channels * height * width > IN_MEMORY:
        return lazy, bad
    decoded = list(_pool().map(lambda name: decode(archive.read(name), (height, width), channels), good))
    return InMemory(torch.from_numpy(np.stack(decoded)), labels, label_names, said), bad


def decode(content: bytes, size: tuple[int, int], channels: int) -> Pixels:
    """One picture, its centre scaled to `size` with a Lanczos filter: uint8 of shape (C, H, W).

    It is turned as its camera says, and transparency is laid on white.
    """
    with Image.open(io.BytesIO(content)) as picture:
        flat = on_white(ImageOps.exif_transpose(picture)).convert("L" if channels == 1 else "RGB")
    flat = scaled(flat, *size)
    pixels = np.asarray(flat, dtype=np.uint8)
    return pixels[None].copy() if channels == 1 else pixels.transpose(2, 0, 1).copy()


def scaled(picture: Image.Image, height: int, width: int) -> Image.Image:
    """A picture at another size: the largest part in its middle that has the size's shape."""
    if picture.size == (width, height):
        return picture
    scale = max(width / picture.width, height / picture.height)
    crop_width, crop_height = width / scale, height / scale
    left, top = (picture.width - crop_width) / 2, (picture.height - crop_height) / 2
    box = (left, top, left + crop_width, top + crop_height)
    return picture.resize((width, height), Image.Resampling.LANCZOS, box=box)


_GREY = ("1", "L", "LA")
_USABLE = (*_GREY, "P", "RGB", "RGBA")


def on_white(picture: Image.Image) -> Image.Image:
    """A picture whose transparent parts are white; others as they are."""
    if "A" in picture.getbands() or "transparency" in picture.info:
        with_alpha = picture.convert("RGBA")
        white = Image.new("RGBA", with_alpha.size, "white")
        return Image.alpha_composite(white, with_alpha)
    return picture


def _inspect(
    archive: Archive, names: list[str], on_read: OnRead | None
) -> tuple[dict[str, tuple[tuple[int, int], str]], list[str]]:
    """(height, width) and mode of each good picture, and a sentence for each bad one, in the order of names."""
    facts: dict[str, tuple[tuple[int, int], str]] = {}
    bad: list[str] = []
    looks = _pool().map(lambda name: _look(archive, name), names)
    for number, (name, seen) in enumerate(zip(names, looks, strict=True)):
        if isinstance(seen, str):
            bad.append(f"{archive.show(name)} {seen}")
        else:
            facts[name] = seen
        if on_read is not None:
            on_read(number + 1, len(names))
    return facts, bad


def _look(archive: Archive, name: str) -> tuple[tuple[int, int], str] | str:
    """Size and mode of a picture, or what is wrong with it."""
    try:
        content = archive.read(name)
    except Exception as error:  # a bad checksum, a password, no permission
        return f"cannot be read: {error}."
    if not content:
        return "is empty (0 bytes)."
    try:
        with Image.open(io.BytesIO(content)) as picture:
            if picture.mode not in _USABLE:
                return f"has the colour mode {picture.mode}; {_MODE_ADVICE.get(picture.mode, _CONVERT)}"
            if any("16" in str(tile[3]) for tile in picture.tile):  # Pillow would drop the lower byte of 16-bit colour
                return f"has {_MODE_ADVICE['I;16']}"
            picture.load()
            upright = ImageOps.exif_transpose(picture)
            return (upright.height, upright.width), picture.mode
    except Exception as error:  # Pillow raises many kinds for a broken file
        return f"cannot be read as a picture ({len(content):,} bytes): {error}."


_CONVERT = "convert it to 8-bit RGB or grey."
_MODE_ADVICE = {
    "CMYK": "it is made for print; convert it to RGB.",
    "I;16": "16 bits a channel; convert it to 8 bits, so that you choose how.",
    "I": "more than 8 bits a channel; convert it to 8 bits, so that you choose how.",
}


def _common_size(path: Path, facts: dict[str, tuple[tuple[int, int], str]]) -> tuple[int, int]:
    sizes: dict[tuple[int, int], str] = {}
    for name, (size, _) in facts.items():
        sizes.setdefault(size, name)
    if len(sizes) > 1:
        (first, one), (second, other) = list(sizes.items())[:2]
        raise DataError(
            f"{path}: pictures differ in size ({one} is {first[1]}x{first[0]}, {other} is {second[1]}x{second[0]}). "
            "Say which side to scale them to: --data.resolution 64"
        )
    return next(iter(sizes))


def _metadata(archive: Archive, names: list[str]) -> dict[str, dict[str, Any]] | None:
    if "metadata.jsonl" not in names:
        return None
    records: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(archive.read("metadata.jsonl").decode().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            records[record["file_name"]] = record
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise DataError(
                f"{archive.show('metadata.jsonl')}, line {number}: needs a JSON object with file_name"
            ) from error
    return records


def _beside(archive: Archive, pictures: list[str], names: list[str]) -> tuple[Record, ...] | None:
    """The captions in text files beside the pictures, white space and line ends as one space; None where there is none.

    Raises:
        DataError: one that is not UTF-8.
    """
    there = set(names)
    places = {name: str(PurePosixPath(name).with_suffix(".txt")) for name in pictures}
    if not any(place in there for place in places.values()):
        return None
    said = []
    for name, place in places.items():
        record: dict[str, Any] = {"file_name": name}
        if place in there:
            try:
                record["text"] = " ".join(archive.read(place).decode("utf-8-sig").split())
            except UnicodeDecodeError as error:
                raise DataError(f"{archive.show(place)} is no text in UTF-8: save it as one") from error
        said.append(record)
    return tuple(said)


def _labels(
    archive: Archive, names: list[str], records: dict[str, dict[str, Any]] | None
) -> tuple[Tensor | None, tuple[str, ...]]:
    given: list[Any]
    if records is not None:
        given = [records[name].get("label_name", records[name].get("label")) for name in names]
        known = [value for value in given if value is not None]
        if not known:
            return None, ()
        if len(known) < len(given):
            missing = names[given.index(None)]
            raise DataError(f"{archive.show('metadata.jsonl')} gives labels to some pictures but none to {missing}")
        numbered = [records[name].get("label") for name in names]
        if all(isinstance(value, int) for value in numbered):
            return _numbered(archive, names, numbered, given)  # type: ignore[arg-type]
    else:
        given = [str(PurePosixPath(name).parent) for name in names]
        if set(given) == {"."}:
            return None, ()
        if "." in given:
            stray = names[given.index(".")]
            raise DataError(f"{archive.show(stray)} lies beside class folders; put it into one, or flatten the folders")
    classes = sorted({str(value) for value in given})
    place = {name: number for number, name in enumerate(classes)}
    return torch.tensor([place[str(value)] for value in given]), tuple(classes)


def _numbered(
    archive: Archive, names: list[str], numbers: list[int], given: list[Any]
) -> tuple[Tensor, tuple[str, ...]]:
    """Integer labels stay what they are; classes without a name are called by their number."""
    classes = max(numbers) + 1
    called = {number: str(name) for number, name in zip(numbers, given, strict=True)}
    if min(numbers) < 0 or classes > 10 * len(set(numbers)) + 10:
        wrong = min(numbers) if min(numbers) < 0 else max(numbers)
        raise DataError(
            f"{archive.show('metadata.jsonl')}: label {wrong} of {names[numbers.index(wrong)]} is out of range; "
            f"labels are 0, 1, 2, … and there are {len(set(numbers))} different ones"
        )
    labels = checked_labels(numbers, classes, archive.show("metadata.jsonl"))
    return labels, tuple(called.get(number, str(number)) for number in range(classes))
