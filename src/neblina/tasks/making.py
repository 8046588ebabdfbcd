"""An order carried out, and every picture with what it takes to make it again.

An `Order` is complete: a verb, a model, and arguments that are JSON values. `make` carries it out and says of every
picture how it alone is made; `order_of` reads that back from a picture.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from neblina.core.errors import DataError, choose
from neblina.samplers.drive import OnStep
from neblina.tasks.classifier import load_classifier
from neblina.tasks.fingerprint import fingerprint
from neblina.tasks.model import Model, load
from neblina.tasks.provenance import Input, Provenance
from neblina.tasks.settings import Settings
from neblina.tasks.verbs import FILES, verbs

OPENING = ("dtype", "revision", "variant", "prediction", "ema", "tokenizer", "vae", "loras")
_MODELS = ("unconditional", "autoguidance")
_PICK = "pick"  # which of the pictures, where they cannot be made alone


@dataclass(frozen=True)
class Order:
    """What is asked for.

    Attributes:
        verb: a name in `verbs`.
        model: path of a folder or a file, or a hub id.
        arguments: JSON values by name: of the verb, fields of `Settings` (models by their paths), and how the model is
            opened (OPENING). What is left out is the default.
    """

    verb: str
    model: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


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


@dataclass(frozen=True)
class Watch:
    """Who is told how far the work is; attributes as in `Settings`."""

    on_begin: Callable[[int | None], None] | None = None
    on_step: OnStep | None = None
    cancelled: Callable[[], bool] | None = None


def open_model(order: Order, *, device: str | None = None) -> Model:
    """The model of an order.

    Raises:
        CheckpointError, SettingError: as `load`.
    """
    chosen = {name: order.arguments[name] for name in OPENING if order.arguments.get(name) is not None}
    return load(order.model, device=device, **chosen)


def make(order: Order, model: Model, watch: Watch | None = None) -> list[Made]:
    """The pictures of an order.

    Args:
        model: as `open_model` opened it.
        watch: is told how far it is.
    Raises:
        SettingError: an unknown verb or argument, one that is missing, or as the verb says.
        DataError: files that cannot be used.
    """
    verb, watch = verbs[order.verb], watch or Watch()
    own = [name for name in inspect.signature(verb).parameters if name not in ("model", "settings")]
    shared = [each.name for each in fields(Settings)]
    for name in order.arguments:
        choose(f"setting of {order.verb}", name, (*own, *shared, *OPENING, _PICK))
    settings = {name: order.arguments[name] for name in shared if order.arguments.get(name) is not None}
    opened = {**settings, **{each.name: getattr(watch, each.name) for each in fields(watch)}}
    for name in _MODELS:
        if name in settings:
            opened[name] = load(settings[name], device=str(model.device), dtype=order.arguments.get("dtype", "fp32"))
    if "classifier" in settings:
        opened["classifier"] = load_classifier(settings["classifier"], device=str(model.device))
    if "guidance_interval" in settings:
        opened["guidance_interval"] = tuple(settings["guidance_interval"])
    arguments = {name: order.arguments[name] for name in own if order.arguments.get(name) is not None}
    pictures = verb(model, opened, **arguments)
    chosen = order.arguments.get(_PICK)
    return list(_told(order, pictures if chosen is None else pictures[chosen : chosen + 1], chosen))


def order_of(provenance: Provenance, *, model: str | None = None, folder: Path | None = None) -> Order:
    """The order that made a picture.

    Args:
        model: where the model is now, None for where it was.
        folder: where the files are that the picture was made from, None for where they were.
    Raises:
        DataError: a file that it was made from is not there or is another one.
    """
    moved = {}
    for name, source in provenance.inputs.items():
        place = Path(source.path) if folder is None else folder / Path(source.path).name
        if not place.exists():
            raise DataError(f"{place}, which the picture was made from ({name}), is not there: say where with --inputs")
        if _digest(place) != source.sha256:
            raise DataError(f"{place} is not the file that the picture was made from ({name}): its content differs")
        moved[name] = str(place)
    return Order(provenance.verb, model or provenance.model, {**provenance.arguments, **moved})


def _told(order: Order, pictures: Tensor, chosen: int | None) -> Iterator[Made]:
    """Each picture with the order that makes it alone."""
    print_of = fingerprint(Path(order.model)) if Path(order.model).exists() else ""
    arguments = {name: value for name, value in order.arguments.items() if value is not None}
    files = {name: Path(arguments[name]) for name in FILES if name in arguments}
    inputs = {name: Input(str(place), _digest(place)) for name, place in files.items()}
    offset = arguments.get("offset", 0)
    for number, picture in enumerate(pictures):
        alone = {**arguments, "n": 1, "offset": offset + number}
        if any(place.is_dir() for place in files.values()):  # one of a folder's pictures cannot be made alone
            alone = {**arguments, _PICK: number if chosen is None else chosen}
        yield Made(
            picture, offset + (chosen or 0) + number, Provenance(order.verb, order.model, print_of, alone, inputs)
        )


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
