"""Checkpoints: all a run needs to go on as if nothing had happened, in a folder that is whole or is not there.

Tensors are safetensors and the rest is JSON, so nothing is unpickled. A manifest names every file with its SHA-256; a
folder whose files do not agree with it is passed over for the one before.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from neblina.core.atomic import PARTIAL, new_folder
from neblina.core.errors import CheckpointError
from neblina.core.tensors import save_tensors
from neblina.training.optimizers import named_moments, numbered_moments

_MANIFEST = "manifest.json"
_STATE = "state.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """What was stored.

    Attributes:
        step: optimiser steps done.
        net, ema: weights by name.
        optimizer: its state as `torch.optim.Optimizer.load_state_dict` wants it.
        progress: everything else, as JSON.
        state: further tensors by name, such as what importance sampling remembers.
    """

    step: int
    net: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Any]
    progress: dict[str, Any]
    state: dict[str, Tensor]


def save_checkpoint(
    folder: Path,
    step: int,
    *,
    net: nn.Module,
    ema: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Mapping[str, Any],
    state: Mapping[str, Tensor],
    keep: int,
) -> Path:
    """Store a checkpoint below `folder`, then delete all but the newest `keep`.

    Raises:
        StorageError: the disk is full or refuses; the checkpoints that were there still are.
    """
    place = folder / f"step-{step:08d}"
    moments = optimizer.state_dict()
    with new_folder(place) as aside:
        save_tensors(net.state_dict(), aside / "net.safetensors")
        save_tensors(ema.state_dict(), aside / "ema.safetensors")
        save_tensors(named_moments(moments), aside / "optimizer.safetensors")
        if state:
            save_tensors(state, aside / _STATE)
        told = {"step": step, "param_groups": moments["param_groups"], **progress}
        (aside / "progress.json").write_text(json.dumps(told, indent=2))
        manifest = {file.name: _digest(file) for file in sorted(aside.iterdir())}
        (aside / _MANIFEST).write_text(json.dumps(manifest, indent=2))
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return place


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints below `folder`, oldest first; whether they are whole is not looked at."""
    return sorted(place for place in folder.glob("step-*") if not place.name.endswith((PARTIAL, ".replaced")))


def newest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole, None if there is none, and a sentence for each one that was passed over.

    Raises:
        CheckpointError: there are checkpoints, and none is whole.
    """
    passed: list[str] = []
    for place in reversed(list_checkpoints(folder)):
        try:
            return load_checkpoint(place), passed
        except CheckpointError as error:
            passed.append(str(error))
    if passed:
        listed = "; ".join(passed)
        raise CheckpointError(f"no checkpoint is whole: {listed}. Begin again in another folder, or delete {folder}")
    return None, passed


def drop_after(folder: Path, step: int) -> None:
    """Delete checkpoints of later steps: damaged ones that were passed over, in the way of the ones to come."""
    for place in list_checkpoints(folder):
        if int(place.name.removeprefix("step-")) > step:
            shutil.rmtree(place)


def load_checkpoint(place: Path) -> Checkpoint:
    """Read one checkpoint.

    Raises:
        CheckpointError: a file is missing, cut short or altered.
    """
    try:
        manifest = json.loads((place / _MANIFEST).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"checkpoint {place} is incomplete: it has no readable {_MANIFEST}") from error
    for name, digest in manifest.items():
        if not (place / name).exists():
            raise CheckpointError(f"checkpoint {place} is incomplete: {name} is missing")
        if _digest(place / name) != digest:
            raise CheckpointError(f"checkpoint {place} is damaged: {name} is not what was written")
    progress = json.loads((place / "progress.json").read_text())
    moments = numbered_moments(load_file(place / "optimizer.safetensors"))
    return Checkpoint(
        progress.pop("step"),
        load_file(place / "net.safetensors"),
        load_file(place / "ema.safetensors"),
        {"state": moments, "param_groups": progress.pop("param_groups")},
        progress,
        load_file(place / _STATE) if _STATE in manifest else {},
    )


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
