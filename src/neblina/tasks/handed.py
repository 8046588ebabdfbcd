"""What is handed over to a verb: photos opened, and what reading did to their pixels said."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from neblina.tasks.decoding import Given
from neblina.tasks.photos import Photo, read_photo
from neblina.tasks.settings import Noticed


def opened_photo(given: Given | Photo, *, background: str | None = None) -> Photo:
    """A photo of whatever was handed over; what reading did to its pixels is said in a warning (`Noticed`).

    Raises:
        DataError, SettingError: as `read_photo`.
    """
    if isinstance(given, Photo):
        return given
    photo = read_photo(given, background=background)
    notice(photo.path, photo.changes)
    return photo


def notice(path: Path, changes: Sequence[str]) -> None:
    """Say what was done to something that was handed over."""
    for change in changes:
        warnings.warn(Noticed(f"{path}: {change}"), stacklevel=3)
