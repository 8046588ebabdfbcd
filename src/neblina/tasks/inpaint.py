"""Part of a picture made anew: inside a mask, or beyond the borders. What is outside keeps its bytes.

A checkpoint that was trained for it is told the mask and the picture without its inside. Any other model believes in
the picture where the mask is not (`guidance.known`), or samples with `repaint`. Where the made meets the kept, the made
is shifted by a membrane, so that no seam shows though the kept is not touched.

Rombach et al. High-Resolution Image Synthesis with Latent Diffusion Models. CVPR 2022, section 4.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.errors import SettingError
from neblina.data.files import Pixels
from neblina.samplers import samplers
from neblina.samplers.generate import Stretch
from neblina.tasks.asked import Labels, conditions_of, how_many, refuse_untold
from neblina.tasks.masks import Mask, Values, feather, to_latent
from neblina.tasks.photos import Photo, fit, to_pixels
from neblina.tasks.sampling import Layout, Work, route_of, sampled
from neblina.tasks.seams import paste_seamlessly
from neblina.tasks.settings import Settings
from neblina.tasks.sizes import check_area

if TYPE_CHECKING:
    from neblina.tasks.model import Model


def inpaint(
    model: Model,
    photo: Photo,
    mask: Mask,
    prompt: str | Sequence[str] | None,
    *,
    strength: float = 1.0,
    soften: int = 0,
    labels: Labels | None = None,
    settings: Settings,
) -> Tensor:
    """Make the inside of a mask anew, uint8 of shape (n, 3, H, W); outside it every byte is the photo's.

    Args:
        photo: what is changed; comes back at its own size.
        mask: white where it is changed, grey where the made and the kept are mixed.
        prompt: what it is to show.
        strength: above 0, at most 1; below 1 what was inside the mask shows through.
        soften: pixels inside the mask over which the made fades in.
        labels: what it is to show, of a model of classes.
        settings: how to sample; the sampler `repaint` goes back and forth.
    Raises:
        SettingError: a strength out of range, or a model that does not fit.
    """
    values = feather(mask.values, soften) if soften else mask.values
    asked = _asked(model, mask.values, prompt, labels, settings)
    return made_inside(model, photo.pixels, mask.values, values, asked, strength, settings)


@dataclass(frozen=True)
class Margins:
    """Pixels by which a picture is extended at its sides."""

    left: int = 0
    right: int = 0
    top: int = 0
    bottom: int = 0

    def __post_init__(self) -> None:
        """Refuse what extends nothing.

        Raises:
            SettingError: saying the margins.
        """
        sides = {"left": self.left, "right": self.right, "top": self.top, "bottom": self.bottom}
        if min(sides.values()) < 0 or not any(sides.values()):
            told = ", ".join(f"{name} {pixels}" for name, pixels in sides.items())
            raise SettingError(f"a picture is extended by 0 pixels or more at each side, by some at one, not {told}")


def outpaint(
    model: Model,
    photo: Photo,
    margins: Margins,
    prompt: str | Sequence[str] | None,
    *,
    labels: Labels | None = None,
    settings: Settings,
) -> Tensor:
    """Extend a photo past its borders, uint8 of shape (n, 3, H + top + bottom, W + left + right).

    Args:
        photo: every byte of it is kept.
        margins: by how much at each side.
        prompt, labels, settings: as in `inpaint`.
    """
    around = [(margins.top, margins.bottom), (margins.left, margins.right)]
    check_area(
        model.bundle, (photo.size[0] + margins.top + margins.bottom, photo.size[1] + margins.left + margins.right)
    )
    # the network sees the picture go on rather than end
    canvas = np.pad(photo.pixels, [*around, (0, 0)], mode="symmetric")
    values = np.pad(np.zeros(photo.size, np.float32), around, constant_values=1.0)
    return made_inside(model, canvas, values, values, _asked(model, values, prompt, labels, settings), 1.0, settings)


@dataclass(frozen=True)
class Asked:
    """What is asked for inside a mask.

    Attributes:
        condition: of every picture, or of one for all.
        count: how many.
        layout: what is asked for where; None for the condition everywhere.
    """

    condition: Condition
    count: int
    layout: Layout | None = None


def _asked(
    model: Model, region: Values, prompt: str | Sequence[str] | None, labels: Labels | None, settings: Settings
) -> Asked:
    """One condition everywhere."""
    refuse_untold(model.bundle, "inpaint")
    placed = fit((region.shape[0], region.shape[1]), model.multiple)
    count = how_many(settings, prompt, labels)
    return Asked(conditions_of(model.bundle, prompt, labels, settings, size=placed.padded, count=count), count)


def made_inside(
    model: Model, pixels: Pixels, region: Values, blend: Values, asked: Asked, strength: float, settings: Settings
) -> Tensor:
    """What is made inside a region of a picture, mixed with it by `blend`: uint8 of shape (n, 3, H, W).

    Args:
        pixels: of the picture, shape (H, W, 3).
        region, blend: shape (H, W), in [0, 1]; bytes where `blend` is 0 are the picture's.
        asked: for a model that is told the mask, without the maps that tell it.
        strength, settings: as in `inpaint`.
    """
    route = route_of(model.bundle, settings)
    height, width = region.shape
    placed = fit((height, width), model.multiple)
    pictures = model.from_pixels(placed.pad(pixels))
    free = (placed.pad(region) > 0).astype(np.float32)
    cells = torch.from_numpy(to_latent(free, model.bundle.codec.factor))[None, None]
    condition, layout = asked.condition, asked.layout
    latents = model.encoded(pictures)
    known: tuple[Tensor, Tensor] | None = (latents, cells.expand(latents.shape))
    start: Tensor | None = latents if strength < 1 else latents * (1 - cells)  # of what goes, nothing shows through
    if model.bundle.pipeline.joined == "mask":
        maps, known = told_mask(model, pictures, torch.from_numpy(free)[None, None], cells), None
        condition, layout = condition.with_maps(maps), None if layout is None else layout.told(maps)
    if strength == 1 and (known is None or "known" in samplers[route.sampler].choices):
        start = None  # what keeps the outside in its own way begins at noise
    stretch = Stretch() if start is None else Stretch(start, route.time_of(strength))
    work = Work(condition, model.latent_shape(placed.padded), asked.count, stretch, known, layout=layout)
    made = model.decoded(sampled(model.bundle, work, settings, device=model.device))
    pasted = [paste_seamlessly(pixels, placed.cut(to_pixels(one.expand(3, -1, -1))), blend) for one in made]
    return torch.from_numpy(np.stack(pasted)).permute(0, 3, 1, 2).contiguous()


def told_mask(model: Model, pictures: Tensor, free: Tensor, cells: Tensor) -> Tensor:
    """What a checkpoint is told: the mask (1 channel) and the picture without its inside, shape (1, 1 + C, h, w).

    Args:
        pictures: (1, C, H, W) in [−1, 1].
        free: 1 inside the mask, (1, 1, H, W).
        cells: the same on the latent grid.
    """
    outside = model.encoded(pictures * (free < 0.5))
    return torch.cat([cells, outside], dim=1)
