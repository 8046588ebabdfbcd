"""Whether a run is the one that a checkpoint is of: by its recipe, its pictures, and who shares the work."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neblina.core.errors import SettingError
from neblina.data.pictures import Pictures
from neblina.training.checkpoint import Checkpoint, list_checkpoints
from neblina.training.recipe import Recipe, build_recipe, differences


def refuse_second_run(folder: Path, checkpoints: Path, *, resume: bool) -> None:
    """Refuse to begin in a folder where a run is, unless it is to be gone on with.

    Raises:
        SettingError: there are checkpoints and `resume` is off.
    """
    if not resume and list_checkpoints(checkpoints):
        raise SettingError(f"{folder} holds a run already. Pass --resume to go on with it, or choose another folder.")


def setting_of(pictures: Pictures, classes: Sequence[str], *, processes: int = 1) -> dict[str, Any]:
    """What the course of a run depends on beside its recipe, as a checkpoint stores it under "setting"."""
    return {
        "pictures": len(pictures),
        "their shape": list(pictures.shape),
        "classes": list(classes),
        "processes": processes,
    }


def check_same_run(checkpoint: Checkpoint, recipe: Recipe, setting: dict[str, Any]) -> None:
    """Refuse to go on with another run.

    Raises:
        SettingError: the checkpoint was made by another recipe, on other pictures or by another number of processes;
            every difference is named.
    """
    was = build_recipe(checkpoint.progress["recipe"], "the checkpoint's recipe")
    changed = list(differences(was, recipe))
    for name, value in checkpoint.progress["setting"].items():
        if value != setting[name]:
            changed.append(f"{name}: {value!r} there, {setting[name]!r} here")
    if changed:
        raise SettingError(
            "this is not the run that the checkpoint is of; it differs in "
            + "; ".join(changed)
            + ". Undo the change, or choose another folder with --out"
        )
