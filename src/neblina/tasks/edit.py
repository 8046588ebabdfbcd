"""Pictures from a picture: noised half of the way and made anew under another prompt, or inverted and walked back.

Noise (SDEdit) keeps the composition and forgets the rest: the more strength, the more is forgotten. Inversion walks the
deterministic sampler backwards from the photo under a prompt that describes it, and forwards under the new one: what
the prompts have in common stays, to the accuracy of the steps.

Meng et al. SDEdit: Guided Image Synthesis and Editing with Stochastic Differential Equations. ICLR 2022, algorithm 1.
Song, Meng, Ermon. Denoising Diffusion Implicit Models. ICLR 2021, section 4.3 (inversion).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neblina.core.errors import SettingError, choose
from neblina.data.pictures import to_uint8
from neblina.denoisers.told import on_walk
from neblina.guidance.settings import GuidanceSettings
from neblina.processes.gaussian import GaussianProcess
from neblina.processes.grids import truncate
from neblina.samplers import samplers
from neblina.samplers.ancestral import ddim, ddim_invert
from neblina.samplers.drive import sample
from neblina.samplers.generate import Stretch
from neblina.tasks.asked import Labels, conditions_of, how_many, refuse_untold
from neblina.tasks.photos import Photo, fit
from neblina.tasks.sampling import Work, route_of, sampled
from neblina.tasks.settings import Settings

if TYPE_CHECKING:
    from neblina.tasks.model import Model

METHODS = ("noise", "inversion")


def edit(
    model: Model,
    photo: Photo,
    prompt: str | Sequence[str] | None,
    *,
    strength: float = 0.6,
    method: str = "noise",
    source: str = "",
    labels: Labels | None = None,
    settings: Settings,
) -> Tensor:
    """Change a photo, uint8 of shape (n, C, H, W).

    Args:
        photo: what is changed; comes back at its own size.
        prompt: what it is to be.
        strength: above 0, at most 1, which leaves nothing of it; how far towards noise it is taken.
        method: noise, or inversion for faithful edits; that samples with DDIM.
        source: what the photo shows, for inversion; the empty prompt leaves it to the model.
        labels: what it is to be, of a model of classes.
        settings: how to sample.
    Raises:
        SettingError: a strength out of range, an unknown method, inversion with another sampler.
    """
    choose("way to edit", method, METHODS)
    refuse_untold(model.bundle, "edit")
    if method == "noise" and source:
        raise SettingError("a source prompt says what inversion begins with: give --method inversion too")
    route = route_of(model.bundle, settings)
    t_start = route.time_of(strength)
    placed = fit(photo.size, model.multiple)
    pictures = model.from_pixels(placed.pad(photo.pixels))
    count = how_many(settings, prompt, labels)
    condition = conditions_of(model.bundle, prompt, labels, settings, size=placed.padded, count=count)
    shape = model.latent_shape(placed.padded)
    stretch = Stretch(model.encoded(pictures), t_start)
    if method == "inversion":
        if samplers[route.sampler].function is not ddim or route.settings.get("eta", 0.0):
            settings = replace(settings, sampler="ddim")
            route = route_of(model.bundle, settings)
        stretch = replace(stretch, start=_inverted(model, stretch, source, placed.padded, settings), noised=True)
    made = model.decoded(sampled(model.bundle, Work(condition, shape, count, stretch), settings, device=model.device))
    return to_uint8(made[..., : photo.size[0], : photo.size[1]])


def _inverted(model: Model, stretch: Stretch, source: str, size: tuple[int, int], settings: Settings) -> Tensor:
    """The noisy latents that DDIM would have come from, under the source prompt and without guidance."""
    if stretch.start is None:
        raise SettingError("inversion begins at a photo")
    route = route_of(model.bundle, settings)
    reads = model.bundle.text is not None
    unguided = replace(settings, n=1, guidance=1.0, omega=None, negative=None, offset=0)
    condition = conditions_of(model.bundle, source if reads else None, None, unguided, size=size, count=1)
    walk = route.walk
    times = truncate(walk.times, stretch.t_start, 0.0).flip(0)
    if settings.on_begin is not None:
        settings.on_begin(len(times) - 1)
    denoiser = on_walk(model.bundle.denoiser(), walk)
    plan = GuidanceSettings(clip=model.bundle.sampling.clip).plan(denoiser, condition)
    walking = ddim_invert(GaussianProcess(route.schedule), stretch.start.to(model.device), times)
    with torch.no_grad():
        return sample(walking, plan, on_step=settings.on_step, cancelled=settings.cancelled).cpu()
