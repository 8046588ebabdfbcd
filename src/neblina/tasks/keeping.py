"""Pictures written where nothing is written over."""

import os
from collections.abc import Iterator, Sequence
from itertools import count as numbers_from
from pathlib import Path

import torch
from PIL import Image

from neblina.core.errors import DataError, StorageError
from neblina.data.sheets import SHEET, save_sheet
from neblina.tasks.provenance import read_pixels, read_provenance, save_picture
from neblina.tasks.recipe import Made


def ready(folder: Path) -> None:
    """Refuse a folder that pictures cannot be written to, before they are made.

    Raises:
        StorageError: a file is in the way, or nobody may write there.
    """
    standing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not standing.is_dir():
        raise StorageError(f"{standing} is a file, so {folder} cannot be a folder of pictures: choose another --out")
    if not os.access(standing, os.W_OK | os.X_OK):
        raise StorageError(f"{standing} may not be written to: choose another --out")


def names(place: Path) -> Iterator[Path]:
    """A path, and then the same with -2, -3, … behind its name."""
    yield place
    for number in numbers_from(2):
        yield place.with_name(f"{place.stem}-{number}{place.suffix}")


def keep(made: Sequence[Made], folder: Path) -> list[Path]:
    """Write each picture with its recipe as SEED-NUMBER.png, and say where.

    Where a picture that differs, or that was made otherwise, has that name already, it stays, and the new one is called
    SEED-NUMBER-2.png or on.

    Raises:
        StorageError: the disk is full or refuses; what there was is untouched.
    """
    places = []
    for one in made:
        first = folder / f"{one.provenance.arguments.get('seed', 0)}-{one.number:05d}.png"
        place = next(place for place in names(first) if not place.exists() or _holds(place, one))
        if not place.exists():
            save_picture(one.picture.permute(1, 2, 0).numpy(), place, one.provenance)
        places.append(place)
    return places


def _holds(place: Path, made: Made) -> bool:
    """Whether a file is this very picture, made in this very way."""
    try:
        return read_provenance(place) == made.provenance and torch.equal(read_pixels(place), made.picture)
    except DataError:
        return False


def keep_sheet(made: Sequence[Made], folder: Path, *, columns: int) -> Path:
    """Write all pictures of an order side by side, and say where: sheet.png, or sheet-2.png and on where that is taken.

    An earlier sheet is replaced, nothing else is.

    Raises:
        StorageError: the disk is full or refuses; what there was is untouched.
    """
    place = next(place for place in names(folder / "sheet.png") if not place.exists() or says(place, SHEET))
    save_sheet(torch.stack([one.picture for one in made]), place, columns=columns)
    return place


def says(place: Path, text: str) -> bool:
    """Whether a file is a picture with a text of this name in it."""
    try:
        with Image.open(place) as picture:
            return text in picture.info
    except Exception:  # Pillow raises many kinds for what is no picture
        return False
