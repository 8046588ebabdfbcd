"""An order carried out, and every picture with what it takes to make it again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from itertools import chain

from torch import Tensor

from neblina.core.errors import SettingError
from neblina.samplers.drive import OnStep
from neblina.tasks.asked import how_many
from neblina.tasks.classifier import load_classifier
from neblina.tasks.loading import load
from neblina.tasks.model import Model
from neblina.tasks.order import OPENING, PICK, SHARED, Order, in_turn, own_kinds
from neblina.tasks.provenance import Provenance
from neblina.tasks.recipe import Made, alone, recipe, together
from neblina.tasks.sampling import comfortable_batch
from neblina.tasks.settings import LeftOut, Settings
from neblina.tasks.verbs import verbs

_MODELS = ("unconditional", "autoguidance")
_PORTION = 4  # batches that are made before they are kept


@dataclass(frozen=True)
class Watch:
    """Who is told how far the work is; attributes as in `Settings`."""

    on_begin: Callable[[int | None], None] | None = None
    on_step: OnStep | None = None
    cancelled: Callable[[], bool] | None = None


def open_model(order: Order, *, device: str | None = None) -> Model:
    """The model of an order.

    Raises:
        SettingError: what cannot be carried out whatever the model, before it is read; or as `load`.
        CheckpointError: as `load`.
    """
    order.check()
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
    order.check()
    verb, watch = verbs[order.verb], watch or Watch()
    whole = recipe(order, model)
    settings = {name: order.arguments[name] for name in SHARED if order.arguments.get(name) is not None}
    opened = {**settings, **{each.name: getattr(watch, each.name) for each in fields(watch)}}
    for name in _MODELS:
        if name in settings:
            opened[name] = load(settings[name], device=str(model.device), dtype=order.arguments.get("dtype", "fp32"))
    if "classifier" in settings:
        opened["classifier"] = load_classifier(settings["classifier"], device=str(model.device))
    if "guidance_interval" in settings:
        opened["guidance_interval"] = tuple(settings["guidance_interval"])
    arguments = {name: order.arguments[name] for name in own_kinds(order.verb) if order.arguments.get(name) is not None}
    if together(arguments):
        yield _picked(whole, verb(model, opened, **arguments), order.arguments.get(PICK))
        return
    numbered = Settings(n=settings.get("n"), offset=settings.get("offset", 0))
    with warnings.catch_warnings():
        if "offset" in settings:
            warnings.simplefilter("ignore", LeftOut)  # who says a number knows which one is made, as a recipe does
        count = how_many(numbered, *in_turn(order.verb, arguments).values())
    batch = settings.get("batch") or _batch(model)
    for start in range(0, count, _PORTION * batch):
        size = min(_PORTION * batch, count - start)
        now = {**opened, "n": size, "offset": settings.get("offset", 0) + start}
        now["on_begin"] = _begin(watch, count / size) if start == 0 else None  # said once, for all of them
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LeftOut)  # how_many said it of the whole
            pictures = verb(model, now, **arguments)
        yield [_told(whole, picture, number) for number, picture in enumerate(pictures, start)]


def _picked(whole: Provenance, pictures: Tensor, chosen: int | None) -> list[Made]:
    """All pictures that were made together, or the one that is asked for."""
    if chosen is not None and not 0 <= chosen < len(pictures):
        raise SettingError(f"pick {chosen} is none of the {len(pictures)} pictures that are made: 0 is the first")
    numbers = range(len(pictures)) if chosen is None else [chosen]
    return [_told(whole, pictures[number], number) for number in numbers]


def _told(whole: Provenance, picture: Tensor, number: int) -> Made:
    """A picture with what makes it alone; the first of the order is number 0."""
    return Made(picture, whole.arguments.get("offset", 0) + number, alone(whole, number))


def _batch(model: Model) -> int:
    """Pictures of the model's own size that are made together, 1 where it does not say its size."""
    if model.bundle.net.config.sample_size is None:
        return 1
    return comfortable_batch(model.bundle.latent_shape, latent=model.bundle.codec.factor > 1)


def _begin(watch: Watch, times: float) -> Callable[[int | None], None] | None:
    """Tells how many answers all portions take, from those of the first."""
    told = watch.on_begin
    return None if told is None else lambda total: told(None if total is None else round(total * times))
