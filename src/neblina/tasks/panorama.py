"""A picture of any size, made through overlapping windows of the size that a model knows, also all around.

Several prompts divide the width among them; over a stretch at every border one fades into the next, and around, the
last into the first. A picture that goes around is decoded with a margin of its other end at both sides, so that the
codec sees no border either.

Bar-Tal et al. MultiDiffusion: Fusing Diffusion Paths for Controlled Image Generation. ICML 2023, section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.errors import SettingError
from neblina.core.windows import cover, touching
from neblina.data.pictures import to_uint8
from neblina.guidance.settings import Place
from neblina.tasks.asked import Labels, conditions_of, refuse_untold
from neblina.tasks.compose import windows_of
from neblina.tasks.sampling import Layout, Work, sampled
from neblina.tasks.settings import Settings

if TYPE_CHECKING:
    from neblina.tasks.model import Model

_MARGIN = 16  # cells of the other end that a codec is shown beside a picture that goes around


def panorama(
    model: Model,
    prompt: str | Sequence[str] | None,
    *,
    labels: Labels | None = None,
    size: tuple[int, int],
    wrap: bool = False,
    window: int | None = None,
    overlap: int | None = None,
    even: bool = False,
    settings: Settings,
) -> Tensor:
    """A large picture, uint8 of shape (n, C, H, W).

    Args:
        prompt: what it shows; several divide its width from left to right.
        labels: the same as classes, of a model of classes.
        size: (height, width) in pixels.
        wrap: whether the right border meets the left without a seam.
        window, overlap: as in `compose`.
        even: windows count as much at their borders as in their middle, as in the paper; else they fade into another.
        settings: how to sample.
    Raises:
        SettingError: a size that the model cannot make, more prompts than there are columns of cells.
    """
    refuse_untold(model.bundle, "panorama")
    windows = windows_of(model, size, window, overlap)
    shape = model.latent_shape(size)
    conditions = _along(model, prompt, labels, settings, windows.size)
    masks = stretches(len(conditions), shape[2], wrap=wrap)[:, None].expand(-1, shape[1], -1)
    grid = cover(windows.canvas, windows.side, windows.overlap, around=wrap, even=even)
    places = tuple(
        Place(condition, mask, cover=touching(grid, mask), alone=False)
        for condition, mask in zip(conditions[1:], masks[1:], strict=True)
    )
    layout = Layout(places, cover=touching(grid, masks[0]))
    work = Work(conditions[0], shape, settings.n or 1, layout=layout)
    latents = sampled(model.bundle, work, settings, device=model.device)
    if not wrap:
        return to_uint8(model.decoded(latents))
    margin = min(_MARGIN, shape[2])
    around = model.decoded(torch.cat([latents[..., -margin:], latents, latents[..., :margin]], dim=-1))
    cut = margin * model.bundle.codec.factor
    return to_uint8(around[..., cut:-cut])


def stretches(count: int, width: int, *, wrap: bool) -> Tensor:
    """How much of every column is whose, of `count` that divide a width from left to right: float64 (count, width).

    Each has an equal part, and fades into its neighbour over half a part around their border; they sum to 1.

    Raises:
        SettingError: more than there are columns.
    """
    if count > width:
        raise SettingError(f"{count} prompts do not go side by side into {width} cells: give fewer, or a wider picture")
    if count == 1:
        return torch.ones(1, width, dtype=torch.float64)
    place = (torch.arange(width, dtype=torch.float64) + 0.5) / width * count  # in parts
    if not wrap:
        place = place.clamp(0.5, count - 0.5)  # nothing fades at the ends
    away = (place - (torch.arange(count, dtype=torch.float64) + 0.5)[:, None]).abs()
    away = torch.minimum(away, count - away) if wrap else away
    return ((0.75 - away) / 0.5).clamp(0, 1)


def _along(
    model: Model, prompt: str | Sequence[str] | None, labels: Labels | None, settings: Settings, shown: tuple[int, int]
) -> list[Condition]:
    """The condition of every stretch; they share what guidance goes away from."""
    count = max(_length(prompt), _length(labels))
    together = replace(settings, n=count, offset=0)
    said = conditions_of(model.bundle, prompt, labels, together, size=shown, count=count)
    each = [said.take(torch.tensor([number])) for number in range(count)]
    if said.labels is not None:
        return [replace(one, unsaid=each[0].null()) for one in each]
    away = [settings.negative] if settings.negative is None or isinstance(settings.negative, str) else settings.negative
    shared: dict[object, Condition | None] = {}  # in pieces, both branches are as long
    keys = [(away[number % len(away)], _pieces(one)) for number, one in enumerate(each)]
    return [replace(one, unsaid=shared.setdefault(key, one.unsaid)) for key, one in zip(keys, each, strict=True)]


def _pieces(condition: Condition) -> int:
    return 0 if condition.text is None else condition.text.shape[1]


def _length(given: object) -> int:
    return len(given) if isinstance(given, Sequence) and not isinstance(given, str) else 1
