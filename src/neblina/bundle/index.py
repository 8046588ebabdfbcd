"""What a folder's `model_index.json` says: which class of pipeline, and of which class each of its components is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from neblina.bundle.components import Opening, kinds
from neblina.bundle.files import read_json
from neblina.bundle.pipelines import Pipeline, pipelines
from neblina.bundle.weights import STEM, has_weights
from neblina.core.errors import CheckpointError, SettingError

INDEX = "model_index.json"
SMALL = "low_res_scheduler"
SCHEDULER = "scheduler_config.json"


@dataclass(frozen=True)
class Kept:
    """A component that is not used here and is carried along when the model is saved.

    Attributes:
        written: library and class in `model_index.json`.
        folder: where it lies, None for one that the index leaves empty.
    """

    written: tuple[str | None, str | None]
    folder: Path | None


def read_index(folder: Path) -> tuple[dict[str, Any], Pipeline]:
    """The index of a folder, and what its class of pipeline is made of.

    Raises:
        CheckpointError: there is none, or it names a class that is not opened here.
    """
    if not (folder / INDEX).exists():
        raise CheckpointError(f"{folder} is not a model folder: {INDEX} is missing")
    index = read_json(folder / INDEX)
    name = index.get("_class_name")
    if not isinstance(name, str):
        raise CheckpointError(f"{folder / INDEX} does not say its _class_name")
    try:
        return index, pipelines[name]
    except SettingError as error:
        raise CheckpointError(f"{folder / INDEX}: {error}") from error


def component_place(folder: Path, name: str, file: str = "config.json") -> Path:
    """Where a component lies: in its folder, or beside the index, as in the first models of pictures themselves."""
    return folder if not (folder / name).is_dir() and (folder / file).exists() else folder / name


def mixing(folder: Path, index: Mapping[str, Any], opening: Opening) -> Opening:
    """How a folder's components are opened: where some have the variant, those that lack it are read from their plain
    files, as in diffusers; where none has it, the first that is read refuses it."""
    some = any(has_weights(folder / name, stem, opening.variant) for name in index for stem in (STEM, "model"))
    return replace(opening, mixed=some)


def class_of(folder: Path, index: Mapping[str, Any], pipeline: Pipeline, name: str) -> str:
    """The class of a component that the pipeline cannot do without.

    Raises:
        CheckpointError: the index lists none.
    """
    match index.get(name):
        case [str(), str() as kind]:
            return kind
        case listed:
            raise CheckpointError(
                f"{folder / INDEX} says {name} = {listed!r}, and a {pipeline.name} has a component of that name: "
                "write its library and its class there"
            )


def check_classes(folder: Path, index: Mapping[str, Any], pipeline: Pipeline, names: Iterable[str]) -> None:
    """Refuse components that the index says are of another class than they themselves say.

    Raises:
        CheckpointError: naming both.
    """
    for name in names:
        listed, place = class_of(folder, index, pipeline, name), component_place(folder, name) / "config.json"
        own = read_json(place).get("_class_name", listed)
        if listed != own and (listed not in kinds or own not in kinds or kinds[listed] is not kinds[own]):
            raise CheckpointError(f"{folder / INDEX} says that {name} is a {listed}, and {place} says a {own}")


def kept_components(folder: Path, index: Mapping[str, Any], pipeline: Pipeline) -> dict[str, Kept]:
    """Components that are not used here: a safety checker, a depth estimator. One without a folder is as if the index
    left it empty: diffusers would not open what is written of it.

    Raises:
        CheckpointError: an entry of the index that is neither a component nor followed.
    """
    used = {pipeline.network, pipeline.codec, pipeline.embedder, "scheduler", SMALL, *pipeline.settings}
    used |= pipeline.text_parts
    needed = used - {None, SMALL, *pipeline.settings} - index.keys()  # safety_checker is no requires_safety_checker
    kept = {}
    for name, value in index.items():
        if name.startswith("_") or name in used:
            continue
        if not (isinstance(value, list) and len(value) == 2):
            raise CheckpointError(
                f"{folder / INDEX}: {name} = {value!r} is no component, and no setting that this version knows of a "
                f"{pipeline.name}"
            )
        meant = get_close_matches(name, [str(part) for part in needed], n=1)
        if meant:
            raise CheckpointError(
                f"{folder / INDEX}: {name} is no component of a {pipeline.name}. Did you mean {meant[0]}?"
            )
        there = (folder / name).is_dir() and value[0] is not None
        kept[name] = Kept((value[0], value[1]) if there else (None, None), folder / name if there else None)
    return kept
