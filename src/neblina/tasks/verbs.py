"""What can be asked of a model, by name and with plain values: what commands, a picture's recipe and a server share.

A verb takes a model, the settings of sampling and its own arguments, all JSON values; files are given by their paths.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from neblina.core.errors import SettingError
from neblina.core.registry import Registry
from neblina.data.pictures import to_float, to_uint8
from neblina.data.sources import open_pictures
from neblina.tasks.asked import Labels
from neblina.tasks.handed import opened_photo
from neblina.tasks.model import Model
from neblina.tasks.photos import Photo, resize
from neblina.tasks.sizes import check_area

Settings = Mapping[str, Any]
Prompt = str | Sequence[str] | None
verbs: Registry[Callable[..., Tensor]] = Registry("verb")
FILES = ("photo", "mask", "depth", "start")  # arguments that are paths of pictures
_SIZE = re.compile(r"(\d+)x(\d+)")


def generate(
    model: Model,
    settings: Settings,
    *,
    prompt: Prompt = None,
    labels: Labels | None = None,
    size: str | None = None,
    start: str | None = None,
    t_start: float = 1.0,
    t_end: float = 0.0,
) -> Tensor:
    """Pictures from words or classes; arguments as in `Model.generate`, `size` as 768x512, `start` a path."""
    pixels = None if size is None else read_size(size)
    begin = None
    if start is not None:
        channels, height, width = model.shape
        if pixels not in (None, (height, width)):
            raise SettingError("pictures to start from are read at the model's own size: leave size out")
        given, _ = open_pictures(start, resolution=height, channels=channels)
        begin = to_float(given.read(range(len(given))))
        if len(begin) > 1:
            settings = {"n": len(begin), **{name: value for name, value in settings.items() if value is not None}}
    made = model.generate(prompt, labels=labels, size=pixels, start=begin, t_start=t_start, t_end=t_end, **settings)
    return to_uint8(made)


def edit(
    model: Model,
    settings: Settings,
    *,
    photo: str,
    prompt: Prompt = None,
    labels: Labels | None = None,
    strength: float = 0.6,
    method: str = "noise",
    source: str = "",
    iterations: int = 1,
    depth: str | None = None,
    size: str | None = None,
    background: str | None = None,
) -> Tensor:
    """A photo changed; arguments as in `tasks.edit.edit`."""
    opened = _photo(model, photo, size, background)
    return model.edit(
        opened,
        prompt,
        labels=labels,
        strength=strength,
        method=method,
        source=source,
        iterations=iterations,
        depth=None if depth is None else _photo(model, depth, size, None),
        **settings,
    )


def inpaint(
    model: Model,
    settings: Settings,
    *,
    photo: str,
    mask: str,
    prompt: Prompt = None,
    labels: Labels | None = None,
    strength: float = 1.0,
    soften: int = 0,
    background: str | None = None,
) -> Tensor:
    """The inside of a mask made anew; arguments as in `tasks.inpaint.inpaint`."""
    opened = _photo(model, photo, None, background)
    return model.inpaint(opened, mask, prompt, labels=labels, strength=strength, soften=soften, **settings)


def outpaint(
    model: Model,
    settings: Settings,
    *,
    photo: str,
    prompt: Prompt = None,
    labels: Labels | None = None,
    left: int = 0,
    right: int = 0,
    top: int = 0,
    bottom: int = 0,
    background: str | None = None,
) -> Tensor:
    """A photo extended past its borders; arguments as in `tasks.inpaint.outpaint`."""
    opened = _photo(model, photo, None, background)
    if all(isinstance(side, int) for side in (left, right, top, bottom)):  # `outpaint` refuses what is none
        extended = opened.size[0] + top + bottom, opened.size[1] + left + right
        _check_share(model, extended, f"{photo} extended", "extend it by less")
    return model.outpaint(opened, prompt, labels=labels, left=left, right=right, top=top, bottom=bottom, **settings)


def upscale(
    model: Model,
    settings: Settings,
    *,
    photo: str,
    prompt: Prompt = None,
    labels: Labels | None = None,
    factor: int = 4,
    noise_level: int | None = None,
    strength: float | None = None,
    background: str | None = None,
) -> Tensor:
    """A photo enlarged; arguments as in `tasks.upscale.upscale`."""
    opened = opened_photo(photo, background=background)
    return model.upscale(
        opened, prompt, labels=labels, factor=factor, noise_level=noise_level, strength=strength, **settings
    )


def compose(
    model: Model,
    settings: Settings,
    *,
    scene: Mapping[str, Any],
    photo: str | None = None,
    mask: str | None = None,
    strength: float | None = None,
    window: int | None = None,
    overlap: int | None = None,
    background: str | None = None,
) -> Tensor:
    """Every element of a scene in its place; arguments as in `Model.compose`, the scene as its plain values."""
    if background is not None and photo is None:
        raise SettingError(
            f"background {background!r} is what transparent parts of a photo are laid on, and there is none; what is "
            "behind the elements stands in the scene"
        )
    opened = None if photo is None else opened_photo(photo, background=background)
    return model.compose(scene, photo=opened, mask=mask, strength=strength, window=window, overlap=overlap, **settings)


def panorama(
    model: Model,
    settings: Settings,
    *,
    size: str,
    prompt: Prompt = None,
    labels: Labels | None = None,
    wrap: bool = False,
    window: int | None = None,
    overlap: int | None = None,
    even: bool = False,
) -> Tensor:
    """A large picture; arguments as in `Model.panorama`, `size` as 2048x512."""
    return model.panorama(
        prompt, labels=labels, size=read_size(size), wrap=wrap, window=window, overlap=overlap, even=even, **settings
    )


for _verb in (generate, edit, inpaint, outpaint, upscale, compose, panorama):
    verbs.add(_verb, _verb.__name__)


def read_size(size: str) -> tuple[int, int]:
    """(height, width) of what is written as width x height, such as 768x512.

    Raises:
        SettingError: anything else.
    """
    found = _SIZE.fullmatch(size)
    if found is None:
        raise SettingError(f"size {size!r} is not width x height in pixels, such as 768x512")
    return int(found[2]), int(found[1])


# a photo much larger than what a model knows takes hours, and shows its subject many times over
_LARGEST = 8


def _photo(model: Model, photo: str, size: str | None, background: str | None) -> Photo:
    """A photo at its own size, or at the one that is asked for.

    Raises:
        SettingError: it is many times as large as the model's own pictures.
    """
    opened = opened_photo(photo, background=background)
    if size is not None:
        check_area(model.bundle, read_size(size))
        return resize(opened, read_size(size))
    _, height, width = model.shape
    share = (height * width / (opened.size[0] * opened.size[1])) ** 0.5
    near = f"{round(opened.size[1] * share)}x{round(opened.size[0] * share)}"
    _check_share(model, opened.size, photo, f"make it smaller first (edit takes --size {near})")
    return opened


def _check_share(model: Model, size: tuple[int, int], what: str, advice: str) -> None:
    """Refuse a picture of (height, width) that is many times as large as the model's own.

    Raises:
        SettingError: saying how many, and what to do.
    """
    _, height, width = model.shape
    times = size[0] * size[1] / (height * width)
    if times > _LARGEST:
        raise SettingError(
            f"{what} is {size[1]}x{size[0]}, {times:,.0f} times the {width}x{height} that this model was trained on: "
            f"{advice}"
        )
