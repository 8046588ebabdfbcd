"""A pipeline of diffusers beside the model that its folder opens as: asked the same, given the same noise."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

from neblina.core.noise import SampleNoise
from neblina.tasks.loading import load
from neblina.tasks.model import Model
from neblina.tasks.photos import Photo, to_network

SEED = 5
CLOSE = 1e-4


@dataclass(frozen=True)
class Pair:
    """Their pipeline, the folder it wrote, and what opens there."""

    theirs: Any
    place: Path
    model: Model

    def sampled_by(self, scheduler: Any, place: Path) -> "Pair":
        """The same with another scheduler, its folder in an empty place."""
        shutil.copytree(self.place, place, dirs_exist_ok=True)
        scheduler.save_pretrained(place / "scheduler")
        change(place / "model_index.json", scheduler=["diffusers", type(scheduler).__name__])
        rest = {name: part for name, part in self.theirs.components.items() if name != "scheduler"}
        theirs = type(self.theirs).from_pretrained(place, **rest)  # it repairs some fields when it is made
        theirs.set_progress_bar_config(disable=True)
        return Pair(theirs, place, load(place, device="cpu"))


def both(pipeline: Any, place: Path) -> Pair:
    """diffusers' pipeline, quiet, and the model that its folder opens as."""
    pipeline.set_progress_bar_config(disable=True)
    if getattr(pipeline, "text_encoder", None) is not None and not hasattr(pipeline.text_encoder, "text_model"):
        # diffusers 0.42 looks for the norm where transformers 4 had it
        object.__setattr__(pipeline.text_encoder, "text_model", pipeline.text_encoder)
    pipeline.save_pretrained(place / "model")
    return Pair(pipeline, place / "model", load(place / "model", device="cpu"))


def change(file: Path, **values: Any) -> None:
    """Other values in a file of JSON."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def noise_of(model: Model, count: int, size: tuple[int, int] | None = None) -> Tensor:
    """What the walks of `count` pictures begin with."""
    return SampleNoise(SEED, range(count))(torch.empty(count, *model.latent_shape(size)))


def latents_of(make: Callable[[], Any]) -> Tensor:
    """What a verb of ours decodes at its end."""
    seen: list[Tensor] = []
    decoded = Model.decoded

    def watched(model: Model, latents: Tensor) -> Tensor:
        seen.append(latents)
        return decoded(model, latents)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Model, "decoded", watched)
        make()
    (latents,) = seen
    return latents


@contextmanager
def drawing(*sources: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Their draws from given sources in turn, the last of which goes on; and their encoder says its mode."""
    rest = list(sources)

    def drawn(shape: Sequence[int], *arguments: Any, **settings: Any) -> Tensor:
        return (rest.pop(0) if len(rest) > 1 else rest[0])(torch.empty(tuple(shape)))

    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            if name.startswith("diffusers.") and "randn_tensor" in vars(module):
                patch.setattr(module, "randn_tensor", drawn)
        patch.setattr(DiagonalGaussianDistribution, "sample", lambda latents, generator=None: latents.mode())
        yield


def draws(count: int, **settings: Any) -> SampleNoise:
    """Our noise of `count` pictures, draw after draw."""
    return SampleNoise(SEED, range(count), **settings)


def photo(height: int, width: int, seed: int = 0) -> Photo:
    """A picture with something in it."""
    rows, columns = np.mgrid[0:height, 0:width]
    random = np.random.default_rng(seed).integers(0, 64, (height, width, 3))
    waves = np.stack([rows * 7 % 192, columns * 5 % 192, (rows + columns) * 3 % 192], axis=-1)
    return Photo((waves + random).astype(np.uint8), Path("photo.png"), "0" * 64)


def given(picture: Photo) -> Tensor:
    """The picture as diffusers takes a tensor: (1, 3, H, W) in [0, 1]."""
    return to_network(picture.pixels) / 2 + 0.5


def far(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest latent where that is above 1, as float32 rounds."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max()) / max(1.0, float(theirs.abs().max()))
