"""What makes one picture again: its order with every default filled in, the files with their digests, its turn alone.

A default that changes later does not change a picture that says what it was. What stays open is the walk of another
library's scheduler, which belongs to the model: there the grid is None, and the sampler is the model's own.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from neblina.bundle.sources import cached_folder
from neblina.core.errors import DataError, SettingError
from neblina.samplers import samplers
from neblina.samplers.ancestral import ddim
from neblina.tasks import compose
from neblina.tasks.fingerprint import fingerprint
from neblina.tasks.model import Model
from neblina.tasks.order import PICK, Order, in_turn, own_kinds
from neblina.tasks.provenance import Input, Provenance
from neblina.tasks.sampling import route_of
from neblina.tasks.scene_values import masks_in, plain_scene, with_masks
from neblina.tasks.settings import Settings
from neblina.tasks.upscale import NOISE_LEVEL, STRENGTH
from neblina.tasks.verbs import FILES, verbs

PARTS = ("unconditional", "autoguidance", "classifier", "vae", "tokenizer")  # arguments that are paths of models
_LORA = "lora "
_WALK = ("sampler", "steps", "grid", "guidance", "omega", "schedule", "settings")


@dataclass(frozen=True)
class Made:
    """A picture with what it takes to make it again.

    Attributes:
        picture: uint8 of shape (C, H, W).
        number: under the seed.
        provenance: of this picture alone.
    """

    picture: Tensor
    number: int
    provenance: Provenance


def recipe(order: Order, model: Model) -> Provenance:
    """How all pictures of an order are made together, with the files as they are now.

    Raises:
        SettingError: what no walk can be made of, or no JSON value.
    """
    given = _lasting({name: value for name, value in order.arguments.items() if value is not None})
    arguments = _settled(order.verb, given, model)
    files = {name: Path(given[name]) for name in FILES if name in given}
    files = {name: place for name, place in files.items() if place.exists()}  # the verb says which are missing
    inputs = {name: Input(str(place), _digest(place)) for name, place in files.items()}
    for name, mask in masks_in(given.get("scene", {})).items():
        if os.path.exists(mask):
            inputs[name] = Input(mask, _digest(Path(mask)))
    for name, place in _parts(given).items():
        inputs[name] = Input(_named(given, name), _digest(place))
    if os.path.exists(os.path.expanduser(order.model)):
        return Provenance(order.verb, lasting(order.model), fingerprint_of(order), arguments, inputs)
    name, folder = order.model, cached_folder(order.model, order.arguments.get("revision"))
    if folder is not None:
        name, arguments["revision"] = name.partition("@")[0], folder.name  # a snapshot is named after its commit
    return Provenance(order.verb, name, fingerprint_of(order), arguments, inputs)


def fingerprint_of(order: Order) -> str:
    """Of the model of an order; empty where it is neither on this machine nor in the hub's cache."""
    place = Path(order.model).expanduser()
    if place.exists():
        return fingerprint(place)
    folder = cached_folder(order.model, order.arguments.get("revision"))
    return "" if folder is None else fingerprint(folder)


def lasting(path: str) -> str:
    """A path that is the same from everywhere; of the hub, owner/name@commit; where nothing is, what was given."""
    place = os.path.abspath(os.path.expanduser(path))
    if os.path.exists(place):
        return place
    folder = cached_folder(path)
    return path if folder is None else f"{path.partition('@')[0]}@{folder.name}"


def _lasting(arguments: dict[str, Any]) -> dict[str, Any]:
    paths = {name: lasting(arguments[name]) for name in (*FILES, *PARTS) if name in arguments}
    loras = [[lasting(place), amount] for place, amount in arguments.get("loras", [])]
    scene = {"scene": plain_scene(arguments["scene"])} if "scene" in arguments else {}
    return {**arguments, **paths, **scene, **({"loras": loras} if loras else {})}


def _settled(verb: str, given: Mapping[str, Any], model: Model) -> dict[str, Any]:
    """The arguments of an order with the defaults that it leaves open, as they are now."""
    asked = Settings(**{name: given[name] for name in _WALK if name in given})
    if given.get("method") == "inversion" and asked.sampler is None and not _is_undone(model, asked):
        # what inversion walks with in place of the model's own
        asked = replace(asked, sampler="ddim", settings={**asked.settings, "eta": 0.0})
    way = route_of(model.bundle, asked)
    sampler = samplers[way.sampler]
    grid = way.grid or sampler.grid
    says = model.bundle.text is not None or "labels" in given or "scene" in given
    of_function = {name: each.default for name, each in inspect.signature(sampler.function).parameters.items()}
    settings = {**{name: of_function[name] for name in sampler.choices}, **sampler.settings, **way.settings}
    settled = {
        **{name: inspect.signature(verbs[verb]).parameters[name].default for name in own_kinds(verb)},
        "sampler": way.sampler,
        "steps": None if sampler.adaptive else way.steps,
        "guidance": asked.weight(model.bundle.sampling.guidance if says else 1.0),
        "settings": {name: value for name, value in settings.items() if isinstance(value, int | float | str)},
        "seed": 0,
        "dtype": "fp32",
    }
    if verb == "generate" and "size" not in given:
        settled["size"] = f"{model.shape[2]}x{model.shape[1]}"
    if verb == "compose" and "photo" in given:
        settled["strength"] = 1.0 if "mask" in given else compose.STRENGTH
    if verb == "upscale" and model.bundle.pipeline.joined != "low resolution":
        settled["strength"] = STRENGTH
    elif verb == "upscale" and model.bundle.small is not None:
        settled["noise_level"] = NOISE_LEVEL
    settled = {name: value for name, value in settled.items() if value not in (None, "", {}, inspect.Parameter.empty)}
    own = {name: value for name, value in given.items() if name not in ("omega", "settings")}  # held above
    return {**own, **settled, **own, "grid": grid if isinstance(grid, str) else None}  # what was asked stands first


def _is_undone(model: Model, asked: Settings) -> bool:
    """Whether inversion walks with the model's own sampler."""
    way = route_of(model.bundle, asked)
    own = samplers[way.sampler]
    return own.function is ddim and not {**own.settings, **way.settings}.get("eta", 0.0)


def alone(whole: Provenance, number: int) -> Provenance:
    """What makes one picture alone; the first of the order is number 0."""
    arguments = dict(whole.arguments)
    if together(arguments):
        return replace(whole, arguments={**arguments, PICK: number})
    number += arguments.get("offset", 0)
    return replace(whole, arguments={**arguments, **_turn(whole.verb, arguments, number), "n": 1, "offset": number})


def together(arguments: Mapping[str, Any]) -> bool:
    """Whether the pictures are made from a folder's, so that one cannot be made alone."""
    return any(Path(arguments[name]).is_dir() for name in FILES if arguments.get(name) is not None)


def _turn(verb: str, arguments: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Of prompts and labels that are taken in turn, those whose turn it is."""
    if arguments.get("long_prompt") == "chunk":
        return {}  # in pieces, a prompt is as long as the longest beside it: the number alone says whose turn it is
    own = {}
    for name, given in in_turn(verb, arguments).items():
        if isinstance(given, list):
            own[name] = given[number % len(given)]
            negative = arguments.get("negative")
            if isinstance(negative, list):
                own["negative"] = negative[number % len(given) % len(negative)]
    return own


def order_of(provenance: Provenance, *, model: str | None = None, folder: Path | None = None) -> Order:
    """The order that made a picture.

    Args:
        model: where the model is now, None for where it was.
        folder: where the files are that the picture was made from, None for where they were.
    Raises:
        DataError: a recipe that was not written here; a file that it was made from is not there, or a picture among
            them is another one.
    """
    arguments = dict(provenance.arguments)
    if model is not None:
        arguments.pop("revision", None)  # of where it was
    order = Order(provenance.verb, model or provenance.model, arguments)
    try:
        order.check()
    except SettingError as error:
        raise DataError(f"the recipe in the picture is damaged: {error}") from error
    moved: dict[str, Any] = {}
    masks = masks_in(arguments.get("scene") or {})
    pictures = (*FILES, *masks)
    loras = {f"{_LORA}{number}": list(one) for number, one in enumerate(arguments.get("loras") or [], 1)}
    for name, source in provenance.inputs.items():
        if name not in (*pictures, *PARTS, *loras):
            raise DataError(
                f"the recipe in the picture is damaged: it was made from {source.path}, which is its {name}"
            )
        place = Path(source.path)
        if folder is not None and (name in pictures or (folder / place.name).exists()):
            place = folder / place.name
        if not os.path.exists(place):
            if name in PARTS and not place.is_absolute():
                continue  # on the hub
            raise DataError(f"{place}, which the picture was made from ({name}), is not there: say where with --inputs")
        if name in pictures and _digest(place) != source.sha256:
            raise DataError(f"{place} is not the file that the picture was made from ({name}): its content differs")
        if name in loras:
            loras[name][0] = str(place)
        elif name in masks:
            masks[name] = str(place)
        else:
            moved[name] = str(place)
    if masks:
        moved["scene"] = with_masks(arguments["scene"], masks)
    if loras:
        moved["loras"] = list(loras.values())
    return replace(order, arguments={**arguments, **moved, **({} if PICK in arguments else {"n": 1})})


def changed_parts(provenance: Provenance, order: Order) -> Iterator[str]:
    """Paths of the LoRAs and other models of an order that are not what the picture was made with."""
    now = _parts(order.arguments)
    for name, source in provenance.inputs.items():
        if name in now and _digest(now[name]) != source.sha256:
            yield _named(order.arguments, name)


def _parts(arguments: Mapping[str, Any]) -> dict[str, Path]:
    """LoRA files and models beside the model, by what they are; of the hub, what is in its cache."""
    names = [name for name in PARTS if arguments.get(name) is not None]
    names += [f"{_LORA}{number}" for number, _ in enumerate(arguments.get("loras") or [], 1)]
    found = {}
    for name in names:
        given = _named(arguments, name)
        place = Path(given).expanduser() if os.path.exists(os.path.expanduser(given)) else cached_folder(given)
        if place is not None:
            found[name] = place
    return found


def _named(arguments: Mapping[str, Any], name: str) -> str:
    """The path of a LoRA or of a model beside the model."""
    if name.startswith(_LORA):
        return str(arguments["loras"][int(name.removeprefix(_LORA)) - 1][0])
    return str(arguments[name])


def _digest(place: Path) -> str:
    """Of a file's bytes, or of the names and bytes of a folder's files."""
    digest = hashlib.sha256()
    for file in [place] if place.is_file() else sorted(each for each in place.rglob("*") if each.is_file()):
        if place.is_dir():
            digest.update(file.relative_to(place).as_posix().encode())
        with file.open("rb") as content:
            while part := content.read(1 << 20):
                digest.update(part)
    return digest.hexdigest()
