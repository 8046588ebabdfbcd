"""A picture whose elements are where a scene says: every place under its own prompt, on a background.

What is asked for where is a `Layout`: masks on the latent grid, conditions, and the windows in which a canvas larger
than the model's own pictures is looked at: a grid of them for the background, and for each element one around it, so
that no element is cut by a window that it fits into.

Bar-Tal et al. MultiDiffusion: Fusing Diffusion Paths for Controlled Image Generation. ICML 2023.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import ImageColor
from torch import Tensor

from neblina.core.conditions import NULL_LABEL, Condition
from neblina.core.errors import SettingError
from neblina.core.windows import Cover, cover, cover_of, touching
from neblina.data.pictures import to_uint8
from neblina.guidance.regions import joined, owners
from neblina.guidance.settings import Place
from neblina.samplers.generate import Stretch
from neblina.tasks.asked import conditions_of, refuse_untold
from neblina.tasks.inpaint import Asked, made_inside
from neblina.tasks.masks import Mask, Values, to_latent
from neblina.tasks.photos import Photo
from neblina.tasks.sampling import Layout, Work, route_of, sampled, says_something
from neblina.tasks.scenes import Background, Placed, Scene
from neblina.tasks.settings import Settings

if TYPE_CHECKING:
    from neblina.tasks.model import Model

STRENGTH = 0.6
_COLOUR_SIDE = 32  # cells of the picture of one colour whose middle is looked at


def compose(
    model: Model,
    scene: Scene,
    *,
    photo: Photo | None = None,
    mask: Mask | None = None,
    strength: float | None = None,
    window: int | None = None,
    overlap: int | None = None,
    settings: Settings,
) -> Tensor:
    """Place every element of a scene, uint8 of shape (n, C, H, W).

    Args:
        scene: what is where.
        photo: of the scene's size, to begin at in place of noise.
        mask: of the photo; the scene is placed inside it, and outside every byte stays.
        strength: how far towards noise the photo is taken, above 0, at most 1; None is 0.6, or 1 inside a mask.
        window: side, in pixels, of the windows in which a larger canvas is looked at; None is that of the model's own
            pictures.
        overlap: pixels that windows of the background share at least; None is half a window.
        settings: how to sample.
    Raises:
        SettingError: a size that the model cannot make, an element without a cell of its own, what the model does not
            read.
    """
    if model.bundle.pipeline.joined == "mask" and mask is None:
        raise SettingError("this model is told a mask: give a photo, and a mask of the part that the scene goes into")
    refuse_untold(model.bundle, "compose" if mask is None else "inpaint")
    _check_photo(scene, photo, mask, strength)
    windows = windows_of(model, scene.size, window, overlap)
    shape = model.latent_shape(scene.size)
    conditions = _conditions(model, scene, settings, windows.size)
    layout = _layout(model, scene, settings, windows, conditions, mask)
    count = settings.n or 1
    if photo is not None and mask is not None:
        asked, strength = Asked(conditions[0], count, layout), 1.0 if strength is None else strength
        return made_inside(model, photo.pixels, mask.values, mask.values, asked, strength, settings)
    stretch = Stretch()
    if photo is not None:
        start = model.encoded(model.from_pixels(photo.pixels))
        stretch = Stretch(start, route_of(model.bundle, settings).time_of(STRENGTH if strength is None else strength))
    work = Work(conditions[0], shape, count, stretch, layout=layout)
    return to_uint8(model.decoded(sampled(model.bundle, work, settings, device=model.device)))


def _check_photo(scene: Scene, photo: Photo | None, mask: Mask | None, strength: float | None) -> None:
    """Refuse a photo of another size, and what is about a photo where there is none."""
    if photo is None:
        for name, given in (("mask", mask), ("strength", strength)):
            if given is not None:
                raise SettingError(f"{name} is about a photo that the scene is placed in: give one, or leave it out")
    elif photo.size != scene.size:
        (height, width), (tall, wide) = photo.size, scene.size
        raise SettingError(f"the photo is {width}x{height} and the scene {wide}x{tall}: make them of one size")


@dataclass(frozen=True)
class Windows:
    """How a canvas is looked at.

    Attributes:
        canvas: (h, w) in cells.
        side, overlap: of the windows, in cells.
        size: (height, width) in pixels of what a network is shown at once.
        whole: whether that is the canvas.
    """

    canvas: tuple[int, int]
    side: int
    overlap: int
    size: tuple[int, int]
    whole: bool


def windows_of(model: Model, size: tuple[int, int], window: int | None, overlap: int | None) -> Windows:
    """The windows that a canvas of (height, width) pixels is looked at through.

    Raises:
        SettingError: a size or a window that the model cannot make, or an overlap that leaves nothing.
    """
    factor = model.bundle.codec.factor
    _, height, width = model.latent_shape(size)
    if window is not None:
        model.latent_shape((window, window))
    if window is None:
        own = model.bundle.latent_shape[1:]
        side = max(height, width) if height <= own[0] and width <= own[1] else min(own)
    else:
        side = window // factor
    if overlap is not None and (overlap < 0 or overlap % factor or overlap // factor >= side):
        raise SettingError(
            f"windows of {side * factor} pixels share a multiple of {factor} pixels below that, not {overlap}"
        )
    shown = min(side, height) * factor, min(side, width) * factor
    shared, whole = side // 2 if overlap is None else overlap // factor, max(height, width) <= side
    return Windows((height, width), side, shared, shown, whole)


def _layout(
    model: Model,
    scene: Scene,
    settings: Settings,
    windows: Windows,
    conditions: Sequence[Condition],
    mask: Mask | None,
) -> Layout:
    """Masks on the latent grid, windows and colours of a scene.

    Raises:
        SettingError: an element without a cell of its own.
    """
    factor = model.bundle.codec.factor
    masks = [_on_grid(placed.mask, factor) for placed in scene.elements]
    behind = None if scene.background.mask is None else _on_grid(scene.background.mask, factor)
    claimed = joined(masks, behind)
    _refuse_vanished(scene, claimed, factor, None if mask is None else _on_grid(mask.values, factor) > 0)
    own: list[Cover | None] = [None] * len(masks)
    back: Cover | None = None
    if not windows.whole:
        own = [cover_of(mask, windows.side, windows.overlap) for mask in masks]
        back = touching(cover(windows.canvas, windows.side, windows.overlap), claimed[0])
    places = tuple(
        Place(condition, mask, placed.weight, _weight(model, placed.guidance, settings, condition), windowed)
        for placed, condition, mask, windowed in zip(scene.elements, conditions[1:], masks, own, strict=True)
    )
    share = scene.bootstrap.share
    colours = _colours(model, scene.bootstrap.colours, windows.side) if share > 0 else None
    weight = _weight(model, scene.background.guidance, settings, conditions[0])
    return Layout(places, behind, back, weight, colours, share)


def _on_grid(mask: Values, factor: int) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(to_latent(mask, factor)))


def _refuse_vanished(scene: Scene, masks: Tensor, factor: int, free: Tensor | None) -> None:
    """Refuse an element that is nowhere what counts most, or not where the photo is made anew."""
    weights = torch.tensor([1.0, *(placed.weight for placed in scene.elements)], dtype=torch.float64)
    owned = owners(weights[:, None, None] * masks, masks)[1:]
    for placed, cells in zip(scene.elements, owned, strict=True):
        if not bool(cells.any()):
            raise SettingError(
                f"{placed.name} has no cell of {factor}x{factor} pixels in which it counts most: others cover it, or "
                "its mask is too faint. Enlarge it, feather it less, or give it more weight"
            )
        if free is not None and not bool(cells[free].any()):
            raise SettingError(
                f"{placed.name} lies where the photo's mask is black and all is kept: move one of the two"
            )


def _conditions(model: Model, scene: Scene, settings: Settings, shown: tuple[int, int]) -> list[Condition]:
    """Of the background and of every element; those that guidance leads away from the same share it.

    Raises:
        SettingError: words for a model of classes, classes for a model of words, or a model that reads neither.
    """
    bundle = model.bundle
    said: list[Background | Placed] = [scene.background, *scene.elements]
    names = ["the background", *(placed.name for placed in scene.elements)]
    if bundle.text is None and not bundle.label_names:
        raise SettingError(
            "this model reads neither words nor classes, so nothing can be asked for in one place and not in another: "
            "take a model that does, or neblina generate"
        )
    one = replace(settings, n=1, offset=0)
    if bundle.text is None:
        for each, name in zip(said, names, strict=True):
            if each.prompt is not None or each.negative is not None:
                raise SettingError(f"this model reads classes, not words: give {name} a label in place of words")
        unsaid = Condition(torch.tensor([NULL_LABEL]))
        found = []
        for each, name in zip(said, names, strict=True):
            if each.guidance is not None and each.label is None:
                raise SettingError(f"{name} has a guidance of {each.guidance:g} and no label that it could follow")
            with _about(name):
                found.append(replace(conditions_of(bundle, None, each.label, one, size=shown, count=1), unsaid=unsaid))
        return found
    for each, name in zip(said, names, strict=True):
        if each.label is not None:
            raise SettingError(f"this model reads words, not classes: give {name} a prompt in place of a label")
    return _texts(model, said, names, one, shown)


@contextmanager
def _about(name: str) -> Iterator[None]:
    """Errors begin with whom they are about."""
    try:
        yield
    except SettingError as error:
        raise SettingError(f"{name}: {error}") from error


def _texts(
    model: Model,
    said: Sequence[Background | Placed],
    names: Sequence[str],
    settings: Settings,
    shown: tuple[int, int],
) -> list[Condition]:
    """Conditions of prompts, each encoded by itself as `generate` would."""
    shared: dict[object, Condition | None] = {}
    conditions = []
    for each, name in zip(said, names, strict=True):
        own = settings if each.guidance is None else replace(settings, guidance=each.guidance, omega=None)
        guides = own.weight(model.bundle.sampling.guidance) != 1
        # what the whole goes away from is nothing where there is no guidance
        negative = each.negative if each.negative is not None else settings.negative if guides else None
        with _about(name):
            own = replace(own, negative=negative)
            condition = conditions_of(model.bundle, each.prompt or "", None, own, size=shown, count=1)
        length = None if condition.text is None else condition.text.shape[1]  # in pieces, both branches are as long
        key = (tuple(negative) if isinstance(negative, Sequence) else negative, length)
        conditions.append(replace(condition, unsaid=shared.setdefault(key, condition.unsaid)))
    return conditions


def _weight(model: Model, own: float | None, settings: Settings, condition: Condition) -> float:
    """The weight of the guidance at a place: its own, else that of the whole; none where nothing is asked for, but
    autoguidance, which needs no condition."""
    if not says_something(condition) and settings.autoguidance is None:
        return 1.0
    return settings.weight(model.bundle.sampling.guidance) if own is None else own


def _colours(model: Model, wanted: int | tuple[str, ...], most: int) -> Tensor:
    """Clean latents of pictures of one colour, shape (n, C): their middle, away from every border."""
    if isinstance(wanted, int):
        colours = torch.rand(wanted, 3, generator=torch.Generator().manual_seed(0)) * 255
    else:
        colours = torch.tensor([ImageColor.getrgb(name)[:3] for name in wanted])
    side = min(_COLOUR_SIDE, most)
    pixels = model.bundle.codec.factor * side
    pictures = colours.round().to(torch.uint8)[:, None, None].expand(-1, pixels, pixels, 3).contiguous().numpy()
    latents = torch.cat([model.encoded(model.from_pixels(picture)) for picture in pictures])
    return latents[..., side // 2, side // 2]
