"""An order carried out, and every picture with what it takes to make it again.

An `Order` is complete: a verb, a model, and arguments that are JSON values. `make` carries it out and says of every
picture how it alone is made; `keep` writes them where nothing is written over; `order_of` reads an order back from a
picture.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import chain
from itertools import count as numbers_from
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neblina.core.errors import DataError, StorageError, choose
from neblina.samplers.drive import OnStep
from neblina.tasks.asked import how_many
from neblina.tasks.classifier import load_classifier
from neblina.tasks.fingerprint import fingerprint
from neblina.tasks.model import Model, load
from neblina.tasks.provenance import Input, Provenance, read_pixels, read_provenance, save_picture
from neblina.tasks.sampling import comfortable_batch
from neblina.tasks.settings import LeftOut, Settings
from neblina.tasks.verbs import FILES, verbs

OPENING = ("dtype", "revision", "variant", "prediction", "ema", "tokenizer", "vae", "loras")
PARTS = ("unconditional", "autoguidance", "classifier", "vae", "tokenizer")  # arguments that are paths of models
_MODELS = ("unconditional", "autoguidance")
_PORTION = 4  # batches that are made before they are kept
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

    def __post_init__(self) -> None:
        """Paths become texts and tuples lists, as they are read back."""
        object.__setattr__(self, "arguments", {name: _plain(value) for name, value in self.arguments.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value


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
    """The pictures of an order; arguments and errors as of `in_portions`."""
    return list(chain.from_iterable(in_portions(order, model, watch)))


def in_portions(order: Order, model: Model, watch: Watch | None = None) -> Iterator[list[Made]]:
    """The pictures of an order, some at a time: what is made can be kept before the rest is.

    Args:
        model: as `open_model` opened it.
        watch: is told how far it is.
    Raises:
        SettingError: an unknown verb or argument, one that is missing or is no JSON value, or as the verb says.
        DataError: files that cannot be used.
    """
    verb, watch = verbs[order.verb], watch or Watch()
    own = [name for name in inspect.signature(verb).parameters if name not in ("model", "settings")]
    shared = [each.name for each in fields(Settings)]
    for name in order.arguments:
        choose(f"setting of {order.verb}", name, (*own, *shared, *OPENING, _PICK))
    whole = _of_all(order)
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
    if _together(arguments):
        pictures = verb(model, opened, **arguments)
        chosen = order.arguments.get(_PICK)
        yield list(_told(whole, pictures if chosen is None else pictures[chosen : chosen + 1], 0))
        return
    numbered = Settings(n=settings.get("n"), offset=settings.get("offset", 0))
    count = how_many(numbered, arguments.get("prompt"), arguments.get("labels"))
    batch = settings.get("batch") or _batch(model)
    for start in range(0, count, _PORTION * batch):
        size = min(_PORTION * batch, count - start)
        now = {**opened, "n": size, "offset": settings.get("offset", 0) + start}
        now["on_begin"] = _begin(watch, count / size) if start == 0 else None  # said once, for all of them
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LeftOut)  # how_many said it of the whole
            pictures = verb(model, now, **arguments)
        yield list(_told(whole, pictures, start))


def _batch(model: Model) -> int:
    """Pictures of the model's own size that are made together, 1 where it does not say its size."""
    if model.bundle.net.config.sample_size is None:
        return 1
    return comfortable_batch(model.bundle.latent_shape, latent=model.bundle.codec.factor > 1)


def _begin(watch: Watch, times: float) -> Callable[[int | None], None] | None:
    """Tells how many answers all portions take, from those of the first."""
    told = watch.on_begin
    return None if told is None else lambda total: told(None if total is None else round(total * times))


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


def keep(made: Sequence[Made], folder: Path) -> list[Path]:
    """Write each picture with its recipe as SEED-NUMBER.png, and say where.

    Where a picture that differs, or that was made otherwise, has that name already, it stays, and the new one is called
    SEED-NUMBER-2.png or on.

    Raises:
        StorageError: the disk is full or refuses; what there was is untouched.
    """
    places = []
    for one in made:
        name = f"{one.provenance.arguments.get('seed', 0)}-{one.number:05d}"
        names = (name if number == 1 else f"{name}-{number}" for number in numbers_from(1))
        place = next(place for each in names if not (place := folder / f"{each}.png").exists() or _holds(place, one))
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


def order_of(provenance: Provenance, *, model: str | None = None, folder: Path | None = None) -> Order:
    """The order that made a picture.

    Args:
        model: where the model is now, None for where it was.
        folder: where the files are that the picture was made from, None for where they were.
    Raises:
        DataError: a file that it was made from is not there, or a picture among them is another one.
    """
    moved: dict[str, Any] = {}
    loras = [list(one) for one in provenance.arguments.get("loras", [])]
    for name, source in provenance.inputs.items():
        place = Path(source.path)
        if folder is not None and (name in FILES or (folder / place.name).exists()):
            place = folder / place.name
        if not place.exists():
            raise DataError(f"{place}, which the picture was made from ({name}), is not there: say where with --inputs")
        if name in FILES and _digest(place) != source.sha256:
            raise DataError(f"{place} is not the file that the picture was made from ({name}): its content differs")
        if name.startswith(_LORA):
            loras[int(name.removeprefix(_LORA)) - 1][0] = str(place)
        else:
            moved[name] = str(place)
    if loras:
        moved["loras"] = loras
    return Order(provenance.verb, model or provenance.model, {**provenance.arguments, **moved})


def changed_parts(provenance: Provenance, order: Order) -> Iterator[str]:
    """Paths of the LoRAs and other models of an order that are not what the picture was made with."""
    now = _parts(order.arguments)
    for name, source in provenance.inputs.items():
        if name in now and _digest(now[name]) != source.sha256:
            yield str(now[name])


_LORA = "lora "


def _parts(arguments: Mapping[str, Any]) -> dict[str, Path]:
    """LoRA files and models beside the model, by what they are; what is on the hub is not looked at."""
    named = {name: Path(arguments[name]) for name in PARTS if arguments.get(name) is not None}
    named |= {f"{_LORA}{number}": Path(place) for number, (place, _) in enumerate(arguments.get("loras") or [], 1)}
    return {name: place for name, place in named.items() if place.exists()}


def _of_all(order: Order) -> Provenance:
    """How all pictures of an order are made together, with the files as they are now."""
    arguments = {name: value for name, value in order.arguments.items() if value is not None}
    files = {name: Path(arguments[name]) for name in FILES if name in arguments}
    files = {name: place for name, place in files.items() if place.exists()}  # the verb says which are missing
    inputs = {name: Input(str(place), _digest(place)) for name, place in {**files, **_parts(arguments)}.items()}
    print_of = fingerprint(Path(order.model)) if Path(order.model).exists() else ""
    return Provenance(order.verb, order.model, print_of, arguments, inputs)


def _together(arguments: Mapping[str, Any]) -> bool:
    """Whether the pictures are made from a folder's, so that one cannot be made alone."""
    return any(Path(arguments[name]).is_dir() for name in FILES if arguments.get(name) is not None)


def _told(whole: Provenance, pictures: Tensor, start: int) -> Iterator[Made]:
    """Each picture with what makes it alone; the first of them is number `start` of the order."""
    arguments = whole.arguments
    offset, chosen = arguments.get("offset", 0), arguments.get(_PICK)
    for number, picture in enumerate(pictures, start + (chosen or 0)):
        if _together(arguments):
            alone = {**arguments, _PICK: number}
        else:
            alone = {**arguments, **_turn(arguments, offset + number), "n": 1, "offset": offset + number}
        yield Made(picture, offset + number, replace(whole, arguments=alone))


def _turn(arguments: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Of prompts and labels that are taken in turn, those whose turn it is."""
    own = {}
    for name in ("prompt", "labels"):
        given = arguments.get(name)
        if isinstance(given, list):
            own[name] = given[number % len(given)]
            negative = arguments.get("negative")
            if isinstance(negative, list):
                own["negative"] = negative[number % len(given) % len(negative)]
    return own


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
