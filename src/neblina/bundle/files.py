"""The files of a model's or a classifier's folder: reading and writing JSON, and leaving what is not ours alone."""

import json
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from neblina.core.errors import CheckpointError
from neblina.version import __version__

CARD = "neblina.json"
FORMAT = 1


def refuse_strangers(folder: Path, own: Set[str], what: str) -> None:
    """Refuse to write where something else lies.

    Args:
        folder: to be written, there or not.
        own: names of the files and folders that saving replaces.
        what: is saved, such as "a model".
    Raises:
        CheckpointError: naming the first other entry.
    """
    strange = {entry.name for entry in folder.iterdir()} - own if folder.exists() else set()
    if strange:
        raise CheckpointError(
            f"{folder} holds {min(strange)}, which saving {what} would delete; it is left alone. Choose another place."
        )


def read_json(place: Path) -> dict[str, Any]:
    """The object that a file holds.

    Raises:
        CheckpointError: it is missing, damaged, or holds something else.
    """
    try:
        content = json.loads(place.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"{place} is missing") from error
    except RecursionError as error:
        raise CheckpointError(f"{place} is damaged or cut short: it is brackets in brackets without end") from error
    except ValueError as error:  # no JSON, or no text
        raise CheckpointError(f"{place} is damaged or cut short: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{place} holds a {type(content).__name__} where names and values belong")
    return content


def write_json(place: Path, content: Mapping[str, Any]) -> None:
    """Write an object, making the folder that it is in."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(content, indent=2) + "\n")


def write_card(folder: Path, content: Mapping[str, Any]) -> None:
    """Write what only this package reads, after the format and the version that wrote it."""
    write_json(folder / CARD, {"format": FORMAT, "version": __version__, **content})
