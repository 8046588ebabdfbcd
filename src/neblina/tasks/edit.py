"""Pictures from a picture: noised half of the way and made anew under another prompt, or inverted and walked back.

Noise (SDEdit) keeps the composition and forgets the rest: the more strength, the more is forgotten. Inversion walks the
deterministic sampler backwards from the photo under a prompt that describes it, and forwards under the new one: what
the prompts have in common stays, to the accuracy of the steps.

Meng et al. SDEdit: Guided Image Synthesis and Editing with Stochastic Differential Equations. ICLR 2022, algorithm 1.
Song, Meng, Ermon. Denoising Diffusion Implicit Models. ICLR 2021, section 4.3 (inversion).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
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
from neblina.tasks.photos import Fit, Photo, fit
from neblina.tasks.sampling import Work, route_of, sampled
from neblina.tasks.settings import Noticed, Settings

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
    iterations: int = 1,
    depth: Photo | None = None,
    labels: Labels | None = None,
    settings: Settings,
) -> Tensor:
    """Change a photo, uint8 of shape (n, C, H, W).

    Args:
        photo: what is changed; comes back at its own size.
        prompt: what it is to be.
        strength: above 0, at most 1, which leaves nothing of it; how far towards noise it is taken.
        method: noise, or inversion for faithful edits; that samples with DDIM, whatever the model's own sampler is.
        source: what the photo shows, for inversion: a prompt, or a class of a model of classes; empty leaves it open.
        iterations: of every step of an inversion; more come closer to the photo, and take as much longer.
        depth: how near each place is, the brighter the nearer, of the photo's size; for a model that is told it.
        labels: what it is to be, of a model of classes.
        settings: how to sample.
    Raises:
        SettingError: a strength out of range, an unknown method, a sampler that inversion does not undo, a depth
            missing, not wanted or of another size.
    """
    choose("way to edit", method, METHODS)
    refuse_untold(model.bundle, "edit")
    if method == "noise" and source:
        raise SettingError("a source prompt says what inversion begins with: give --method inversion too")
    if method == "noise" and iterations != 1:
        raise SettingError("iterations are of inversion: give --method inversion too")
    if iterations < 1:
        raise SettingError(f"inversion takes at least 1 iteration a step, not {iterations}")
    if method == "inversion":
        settings = _undoable(model, settings)
    t_start = route_of(model.bundle, settings).time_of(strength)
    placed = fit(photo.size, model.multiple)
    pictures = model.from_pixels(placed.pad(photo.pixels))
    count = how_many(settings, prompt, labels)
    condition = conditions_of(model.bundle, prompt, labels, settings, size=placed.padded, count=count)
    shape = model.latent_shape(placed.padded)
    stretch = Stretch(model.encoded(pictures), t_start)
    maps = _depth_map(model, photo, depth, placed)
    if maps is not None:
        condition = condition.with_maps(maps)
    if method == "inversion":
        if count > len({prompt} if prompt is None or isinstance(prompt, str) else set(prompt)) and labels is None:
            warnings.warn(
                Noticed("inversion draws no noise: pictures of one prompt are the same whatever the seed"), stacklevel=2
            )
        inverted = _inverted(model, stretch, source, maps, iterations, placed.padded, settings)
        stretch = replace(stretch, start=inverted, noised=True)
    made = model.decoded(sampled(model.bundle, Work(condition, shape, count, stretch), settings, device=model.device))
    return to_uint8(made[..., : photo.size[0], : photo.size[1]])


def _undoable(model: Model, settings: Settings) -> Settings:
    """The settings with the sampler that inversion undoes: deterministic DDIM in place of the model's own."""
    route = route_of(model.bundle, settings)
    chosen = samplers[route.sampler]
    if chosen.function is ddim and not {**chosen.settings, **route.settings}.get("eta", 0.0):
        return settings
    if settings.sampler is not None and (chosen.function is not ddim or chosen.settings.get("eta", 0.0)):
        raise SettingError(
            f"inversion walks deterministic DDIM backwards and forwards, and {settings.sampler} is another sampler: "
            "leave it out, or name ddim"
        )
    if settings.settings.get("eta", 0.0):
        raise SettingError(
            f"inversion walks back the way that it came, and eta {settings.settings['eta']} draws noise on it: "
            "leave eta out"
        )
    return replace(settings, sampler="ddim", settings={**settings.settings, "eta": 0.0})


def _depth_map(model: Model, photo: Photo, depth: Photo | None, placed: Fit) -> Tensor | None:
    """The photo's depth on the latent grid, from −1 for the farthest to 1 for the nearest place, (1, 1, h, w)."""
    told = model.bundle.pipeline.joined == "depth"
    if depth is None:
        if told:
            raise SettingError(
                "this model is told the depth of the photo: give a picture of it, the brighter the nearer, with --depth"
            )
        return None
    if not told:
        raise SettingError("this model is not told a depth: leave it out")
    if depth.size != photo.size:
        (height, width), (tall, wide) = depth.size, photo.size
        raise SettingError(f"the depth is {width}x{height} and the photo is {wide}x{tall}: save it at the photo's size")
    near = torch.from_numpy(placed.pad(depth.pixels.astype(np.float32).mean(-1)))[None, None]
    _, height, width = model.latent_shape(placed.padded)
    grid = F.interpolate(near, size=(height, width), mode="bicubic", align_corners=False)
    low, high = grid.amin(), grid.amax()
    if float(high) == float(low):
        raise SettingError("the depth is the same everywhere, which says nothing: check the file")
    return 2 * (grid - low) / (high - low) - 1


def _inverted(
    model: Model,
    stretch: Stretch,
    source: str,
    maps: Tensor | None,
    iterations: int,
    size: tuple[int, int],
    settings: Settings,
) -> Tensor:
    """The noisy latents that DDIM would have come from, under the source prompt and without guidance."""
    if stretch.start is None:
        raise SettingError("inversion begins at a photo")
    route = route_of(model.bundle, settings)
    unguided = replace(settings, n=1, guidance=1.0, omega=None, negative=None, offset=0)
    prompt, label = (source, None) if model.bundle.text is not None else (None, source or None)
    condition = conditions_of(model.bundle, prompt, label, unguided, size=size, count=1)
    condition = condition if maps is None else condition.with_maps(maps)
    walk = route.walk
    times = truncate(walk.times, stretch.t_start, 0.0).flip(0)
    if settings.on_begin is not None:
        settings.on_begin((len(times) - 1) * iterations)
    denoiser = on_walk(model.bundle.denoiser(), walk)
    plan = GuidanceSettings(clip=model.bundle.sampling.clip).plan(denoiser, condition)
    walking = ddim_invert(GaussianProcess(route.schedule), stretch.start.to(model.device), times, iterations=iterations)
    with torch.no_grad():
        return sample(walking, plan, on_step=settings.on_step, cancelled=settings.cancelled).cpu()
