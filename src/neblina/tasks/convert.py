"""Any model as a folder that diffusers also opens: a single file, a repository, or a folder with something changed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neblina.core.errors import CheckpointError
from neblina.core.shards import Filing, bytes_of
from neblina.tasks.loading import load


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        model: its folder.
        files: how many files hold its weights.
        size: bytes of all its files.
    """

    model: Path
    files: int
    size: int


def convert(
    model: str | Path,
    folder: str | Path,
    *,
    save_variant: str | None = None,
    max_shard: str | None = None,
    **opening: Any,
) -> Converted:
    """Write a model, as it is opened, into a folder; the weights in the dtype that they are opened in.

    Args:
        model: a folder, a single file, or the id of a repository.
        folder: a new or an empty one.
        save_variant: of the weight files that are written, such as fp16.
        max_shard: most that one of them holds, such as 5GB; None for one file a component.
        opening: as in `load`, such as dtype, tokenizer, vae and loras.
    Raises:
        CheckpointError: something is in the folder already, or the model does not open.
        SettingError: a variant or a size that no file can have, or as in `load`.
        StorageError: the disk is full or refuses.
    """
    place = Path(folder)
    filing = Filing(save_variant, None if max_shard is None else bytes_of(max_shard))
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise CheckpointError(f"{place} is there already, and nothing is written over: choose a new folder")
    load(model, **{"device": "cpu", **opening}).save(place, variant=filing.variant, max_shard=filing.max_shard)
    written = [file for file in place.rglob("*") if file.is_file()]
    weights = [file for file in written if file.suffix == ".safetensors"]
    return Converted(place, len(weights), sum(file.stat().st_size for file in written))
