"""Writing so that a reader sees the old content or the new one, never half of either.

A folder is written beside its place under a name that no reader looks at, every file is brought to the disk, and one
rename puts it in place. Killed anywhere, the old content stands.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from neblina.core.errors import StorageError

PARTIAL = ".partial"
_REPLACED = ".replaced"


@contextmanager
def new_folder(place: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `place` at the end, replacing the folder that was there.

    Raises:
        StorageError: the disk is full or refuses, or this program runs inside `place`; `place` is as it was.
    """
    place = _named(place)
    if place.exists() and Path.cwd().is_relative_to(place.resolve()):
        raise StorageError(
            f"{place} is where this runs, and a folder is put in its place as a whole. Give a new folder inside it, or "
            "run this from elsewhere."
        )
    aside = _beside(place, PARTIAL)
    replaced = _beside(place, _REPLACED)
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        yield aside
        for file in sorted(aside.rglob("*")):
            _to_disk(file)
        _to_disk(aside)
        if place.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            place.rename(replaced)
        aside.rename(place)
        _to_disk(place.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    except BaseException as error:
        shutil.rmtree(aside, ignore_errors=True)
        if replaced.exists() and not place.exists():
            replaced.rename(place)
        if isinstance(error, OSError):
            raise _storage_error(place, error) from error
        raise


def write_file(place: Path, write: Callable[[Path], object]) -> None:
    """Have `write` make a file beside `place`, then put it there.

    Raises:
        StorageError: the disk is full or refuses; `place` is as it was.
    """
    aside = place.with_name("." + place.name + PARTIAL + place.suffix)  # the suffix tells writers the format
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write(aside)
        _to_disk(aside)
        os.replace(aside, place)
    except BaseException as error:
        aside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _storage_error(place, error) from error
        raise


def recover(place: Path) -> None:
    """Undo a replacement of `place` that was killed between its two renames."""
    place = _named(place)
    replaced = _beside(place, _REPLACED)
    if replaced.exists() and not place.exists():
        replaced.rename(place)


def _named(place: Path) -> Path:
    """A path that ends in the folder's own name, which `.` and `..` do not."""
    return place.resolve() if place.name in ("", "..") else place


def _beside(place: Path, suffix: str) -> Path:
    return place.parent / (place.name + suffix)  # of the root too, which has no name


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _storage_error(place: Path, error: OSError) -> StorageError:
    if error.errno == errno.ENOSPC:
        return StorageError(f"{place} could not be written: the disk is full. What was there before is untouched.")
    return StorageError(f"{place} could not be written: {error.strerror or error}. What was there before is untouched.")
