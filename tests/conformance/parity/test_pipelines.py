"""Whole pipelines: the same weights, noise and settings as diffusers make the same latents and the same pictures."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    StableDiffusionPipeline,
)
from pipelines import FAMILIES

from neblina.core.noise import SampleNoise
from neblina.tasks.asked import conditions_of
from neblina.tasks.model import Model, load
from neblina.tasks.sampling import Work, sampled
from neblina.tasks.settings import Settings

CLOSE = 1e-4
PROMPTS = ["a red boat", "the small cat, on the sea!"]


def both(pipeline: Any, place: Path) -> tuple[Any, Model]:
    """diffusers' pipeline, quiet, and the model that its folder opens as."""
    pipeline.set_progress_bar_config(disable=True)
    if hasattr(pipeline, "text_encoder") and not hasattr(pipeline.text_encoder, "text_model"):
        # diffusers 0.42 looks for the norm where transformers 4 had it
        object.__setattr__(pipeline.text_encoder, "text_model", pipeline.text_encoder)
    pipeline.save_pretrained(place / "model")
    return pipeline, load(place / "model", device="cpu")


def noise_of(model: Model, count: int, size: tuple[int, int] | None = None, seed: int = 5) -> torch.Tensor:
    return SampleNoise(seed, range(count))(torch.empty(count, *model.latent_shape(size)))


def latents_of(
    model: Model, prompts: list[str] | None, size: tuple[int, int] | None = None, **settings: Any
) -> torch.Tensor:
    asked = Settings(n=len(prompts or [0]), seed=5, **settings)
    pixels = size or model.shape[1:]
    condition = conditions_of(model.bundle, prompts, None, asked, size=pixels, count=asked.n or 1)
    work = Work(condition, model.latent_shape(size), asked.n or 1)
    return sampled(model.bundle, work, asked, device=model.device)


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("guidance", [1.0, 6.0])
def test_every_family_makes_diffusers_latents_and_pictures(family: str, guidance: float, tmp_path: Path) -> None:
    theirs, model = both(FAMILIES[family](tmp_path), tmp_path)
    asked: dict[str, Any] = {"num_inference_steps": 6, "guidance_scale": guidance, "latents": noise_of(model, 2)}
    if "LDM" in type(theirs).__name__:
        pictures = (
            theirs(PROMPTS, height=64, width=64, **asked, output_type="np").images * 2 - 1
        )  # an eighth, whatever the codec
        ours = model.generate(PROMPTS, steps=6, guidance=guidance, seed=5)
        assert float((ours.clamp(-1, 1) - torch.tensor(pictures).permute(0, 3, 1, 2)).abs().max()) < CLOSE
        return
    if "Img2Img" in type(theirs).__name__:
        theirs = StableDiffusionPipeline(**theirs.components, requires_safety_checker=False)
        theirs.set_progress_bar_config(disable=True)
    wanted = theirs(PROMPTS, **asked, output_type="latent").images
    ours = latents_of(model, PROMPTS, steps=6, guidance=guidance)
    assert float((ours - wanted).abs().max()) < CLOSE * max(1.0, float(wanted.abs().max()))
    decoded = theirs(PROMPTS, **asked, output_type="pt").images * 2 - 1
    made = model.generate(PROMPTS, steps=6, guidance=guidance, seed=5)
    assert float((made.clamp(-1, 1) - decoded).abs().max()) < 2 * CLOSE
