"""An order for a model of tokens, carried out: pictures with what it takes to make them again, or texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from neblina.bundle.sources import resolve
from neblina.core.errors import SettingError
from neblina.data.pictures import to_uint8
from neblina.tasks.fingerprint import fingerprint
from neblina.tasks.making import Watch
from neblina.tasks.order import Order
from neblina.tasks.provenance import Provenance
from neblina.tasks.recipe import Made
from neblina.tasks.token_model import TokenModel, is_of_tokens, load_tokens

_OPENING = ("revision", "variant")


def asks_for_tokens(model: str) -> bool:
    """Whether a path is a model of tokens: a folder of one, or a `.pth` of VQ-Diffusion's release, with its yaml."""
    place = Path(model)
    if place.is_dir():
        return is_of_tokens(place)
    return place.suffix == ".pth" and place.is_file() and any(place.parent.glob("*.y*ml"))


def open_token_model(order: Order, *, device: str | None = None) -> TokenModel:
    """The model of an order.

    Raises:
        SettingError: another verb than generate, or an argument that a model of tokens does not have.
        CheckpointError: as `load_tokens`.
    """
    order.check()
    if order.verb != "generate":
        raise SettingError(f"a model of tokens generates, and cannot {order.verb}: take a model of pictures")
    for name in ("dtype", "prediction", "ema", "tokenizer", "vae", "loras"):
        if order.arguments.get(name) is not None:
            raise SettingError(f"{name} has no effect on a model of tokens: leave it out")
    chosen = {name: order.arguments[name] for name in _OPENING if order.arguments.get(name) is not None}
    return load_tokens(order.model, device=device, **chosen)


def pictures_of(order: Order, model: TokenModel, watch: Watch | None = None) -> Iterator[Made]:
    """The pictures of an order, one at a time, each with its recipe.

    Raises:
        SettingError: as `TokenModel.generate`.
    """
    given = _given(order)
    settings = {name: value for name, value in given.items() if name not in ("prompt", "labels")}
    sampling = model.bundle.sampling
    whole = {
        "sampler": sampling.sampler,
        "steps": sampling.steps,
        "guidance": sampling.guidance,
        "truncation": sampling.truncation,
        "seed": 0,
        **given,
    }
    if not model.conditioned and "guidance" not in given:
        del whole["guidance"]
    origin = Provenance("generate", order.model, fingerprint(resolve(order.model)), {})
    pictures = model.generate(given.get("prompt"), labels=given.get("labels"), **settings, **_watched(watch))
    first = given.get("offset", 0)
    for number, picture in enumerate(to_uint8(pictures), first):
        own = {**whole, "n": 1, "offset": number}
        yield Made(picture, number, replace(origin, arguments=own))


def texts_of(order: Order, model: TokenModel, watch: Watch | None = None) -> list[str]:
    """The texts of an order.

    Raises:
        SettingError: as `TokenModel.write`.
    """
    given = _given(order)
    if given.pop("prompt", None) is not None:
        raise SettingError("this model reads no text: leave the prompt out")
    return model.write(**given, **_watched(watch))


def _watched(watch: Watch | None) -> dict[str, Any]:
    return {} if watch is None else {field.name: getattr(watch, field.name) for field in fields(watch)}


def _given(order: Order) -> dict[str, Any]:
    return {name: value for name, value in order.arguments.items() if value is not None and name not in _OPENING}
