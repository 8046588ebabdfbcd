"""A small picture enlarged: by a checkpoint that is told the small one, or by any model, crop by crop.

A checkpoint that was trained for it reads the small picture, with a little noise whose level it is told, beside its
latents. Any other model makes the picture anew from its plain enlargement (Lanczos) with little strength, about
overlapping crops of the size that it knows.

Saharia et al. Image Super-Resolution via Iterative Refinement. TPAMI 2022.
Ho et al. Cascaded Diffusion Models for High Fidelity Image Generation. JMLR 2022, section 4 (noise conditioning).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.errors import SettingError
from neblina.core.noise import BESIDE, SampleNoise
from neblina.data.pictures import to_uint8
from neblina.processes.gaussian import GaussianProcess
from neblina.samplers.generate import Stretch
from neblina.tasks.asked import Labels, conditions_of, how_many, refuse_untold
from neblina.tasks.photos import Photo, fit, resize
from neblina.tasks.sampling import Work, route_of, sampled
from neblina.tasks.settings import Settings
from neblina.tasks.sizes import check_area

if TYPE_CHECKING:
    from neblina.tasks.model import Model

NOISE_LEVEL = 20
STRENGTH = 0.3


def upscale(
    model: Model,
    photo: Photo,
    prompt: str | Sequence[str] | None,
    *,
    factor: int = 4,
    noise_level: int | None = None,
    strength: float | None = None,
    labels: Labels | None = None,
    settings: Settings,
) -> Tensor:
    """Enlarge a photo, uint8 of shape (n, C, factor · H, factor · W).

    Args:
        photo: the small picture.
        prompt: what it shows; None for the empty prompt.
        factor: how many times as high and wide it gets.
        noise_level: steps of noise that are laid on the small picture before a checkpoint reads it; None is 20.
        strength: how much a model that was not trained for it may change; None is 0.3.
        labels: what it shows, of a model of classes.
        settings: how to sample.
    Raises:
        SettingError: a factor that the model cannot make, a number out of range, or one that has no effect.
    """
    if factor < 2:
        raise SettingError(f"a picture is enlarged by a factor of at least 2, not {factor}")
    check_area(model.bundle, (photo.size[0] * factor, photo.size[1] * factor))
    refuse_untold(model.bundle, "upscale")
    if model.bundle.pipeline.joined == "low resolution":
        if strength is not None:
            raise SettingError("this model is told the small picture and begins at noise: leave strength out")
        if labels is not None:
            raise SettingError("this model is told the small picture and reads no labels: leave them out")
        return _told(model, photo, prompt, factor, noise_level, settings)
    if noise_level is not None:
        raise SettingError("noise_level is for a checkpoint that is told the small picture, and this is none")
    return _anew(model, photo, prompt, labels, factor, STRENGTH if strength is None else strength, settings)


def _told(
    model: Model,
    photo: Photo,
    prompt: str | Sequence[str] | None,
    factor: int,
    noise_level: int | None,
    settings: Settings,
) -> Tensor:
    own = model.bundle.codec.factor
    if factor != own:
        raise SettingError(f"this model enlarges {own} times, not {factor}: take --factor {own}")
    placed = fit(photo.size, model.multiple // own)
    small = model.from_pixels(placed.pad(photo.pixels))
    height, width = placed.padded
    count = how_many(settings, prompt)
    condition = conditions_of(model.bundle, prompt, None, settings, size=(height * own, width * own), count=count)
    if model.bundle.small is None:
        if noise_level is not None:
            raise SettingError("this model reads the small picture as it is: leave noise_level out")
        condition = condition.with_maps(small)
    else:
        condition = _with_noise(
            model, condition, small, count, NOISE_LEVEL if noise_level is None else noise_level, settings
        )
    work = Work(condition, (model.bundle.channels, height, width), count)
    made = model.decoded(sampled(model.bundle, work, settings, device=model.device))
    return to_uint8(made[..., : photo.size[0] * own, : photo.size[1] * own])


def _with_noise(
    model: Model, condition: Condition, small: Tensor, count: int, level: int, settings: Settings
) -> Condition:
    """The condition with the small picture at a level of noise, and the level as the label."""
    most = int(model.bundle.settings.get("max_noise_level", 350))
    if not 0 <= level <= most:
        raise SettingError(f"noise_level lies between 0 and {most} for this model, not {level}")
    assert model.bundle.small is not None  # asked for by the caller
    schedule, _ = model.bundle.small
    noise = SampleNoise(settings.seed, range(settings.offset, settings.offset + count), stream=BESIDE)
    pictures = small.expand(count, *small.shape[1:])
    t = torch.full((count,), (level + 1) / (schedule.steps or 1000), dtype=torch.float64)
    noisy = GaussianProcess(schedule).diffuse(pictures, noise(pictures), t)
    labels = torch.full((count,), level)

    def told(one: Condition) -> Condition:
        unsaid = None if one.unsaid is None else told(one.unsaid)
        return replace(one, spatial=noisy, labels=labels, unsaid=unsaid)

    return told(condition)


def _anew(
    model: Model,
    photo: Photo,
    prompt: str | Sequence[str] | None,
    labels: Labels | None,
    factor: int,
    strength: float,
    settings: Settings,
) -> Tensor:
    size = (photo.size[0] * factor, photo.size[1] * factor)
    large = resize(photo, size)
    placed = fit(size, model.multiple)
    count = how_many(settings, prompt, labels)
    own = model.shape[1:]
    condition = conditions_of(model.bundle, prompt, labels, settings, size=(own[0], own[1]), count=count)
    start = model.encoded(model.from_pixels(placed.pad(large.pixels)))
    side = min(model.bundle.latent_shape[1:])
    work = Work(
        condition,
        model.latent_shape(placed.padded),
        count,
        Stretch(start, route_of(model.bundle, settings).time_of(strength)),
        crops=(side, side // 4),
    )
    made = model.decoded(sampled(model.bundle, work, settings, device=model.device))
    return to_uint8(made[..., : size[0], : size[1]])
