"""The log of a run: one JSON object a line.

`log.jsonl` holds what the run is determined by its recipe to say, so an interrupted and resumed run ends with the same
bytes as one that was not; the clock's readings go to `timing.jsonl`, and to TensorBoard where it is installed.
"""

import json
import os
from pathlib import Path
from typing import Any

import yaml

from neblina.core.atomic import write_file
from neblina.core.errors import StorageError
from neblina.training.recipe import Recipe


class Journal:
    """Appends to the log of a run whose first `step` steps stand."""

    def __init__(self, folder: Path, step: int) -> None:
        self._log = folder / "log.jsonl"
        self._timing = folder / "timing.jsonl"
        self._cut_back(step)
        self._board = _tensorboard(folder / "tensorboard", step)

    def write(self, record: dict[str, Any], timing: dict[str, Any]) -> None:
        """Append one record, and what the clock said about it.

        Raises:
            StorageError: the disk is full or refuses.
        """
        _append(self._log, record)
        _append(self._timing, timing)
        if self._board is not None:
            try:
                self._draw({**record, **timing})
            except OSError as error:
                raise StorageError(f"{self._board.log_dir} could not be written: {error}") from error

    def _draw(self, figures: dict[str, Any]) -> None:
        for name, value in figures.items():
            for at, one in enumerate(value if isinstance(value, list) else [value]):
                if name != "step" and one is not None:
                    tag = f"{name}/{at}" if isinstance(value, list) else name
                    self._board.add_scalar(tag, one, figures["step"])

    def _cut_back(self, step: int) -> None:
        """Forget what a run that was cut off had written after its last checkpoint, half lines included."""
        for place in (self._log, self._timing):
            kept = [record for record in read_log(place) if record["step"] <= step]
            text = "".join(json.dumps(record) + "\n" for record in kept)
            write_file(place, lambda aside, text=text: aside.write_text(text))  # type: ignore[misc]


def open_journal(folder: Path, recipe: Recipe, step: int) -> Journal:
    """The log of a run that has done `step` steps, beside the recipe it is done by."""
    folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
    write_file(folder / "recipe.yaml", lambda aside: aside.write_text(text))
    return Journal(folder, step)


def read_log(place: Path) -> list[dict[str, Any]]:
    """The whole records of a log."""
    records: list[dict[str, Any]] = []
    if place.exists():
        for line in place.read_text().splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:  # the line a kill cut in half
                break
    return records


def _append(place: Path, record: dict[str, Any]) -> None:
    try:
        with place.open("a") as stream:
            stream.write(json.dumps(record) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise StorageError(f"{place} could not be written: {error.strerror or error}") from error


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)
