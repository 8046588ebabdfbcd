"""Beside diffusers' panorama: the same windows with the same weights make the same latents, step by step.

Its windows are some cells apart and count alike everywhere: `even`, and an overlap of the rest. It averages the x_{t−1}
of its windows, each with a state of its own; what a step is linear in (one belief, or the several of a sampler with a
memory or with stages) may as well be averaged before, so the two agree. Clipping is not linear, and turned off there.
"""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from beside import CLOSE, Pair, both, far, latents_of, noise_of
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, HeunDiscreteScheduler
from diffusers.pipelines.deprecated.stable_diffusion_panorama import StableDiffusionPanoramaPipeline
from pipelines import sd1

WINDOW, STRIDE = 16, 4  # 64 and 8 there
CANVASES = {"wide": (16, 24), "tall and wide": (20, 20), "one window": (16, 16)}  # cells
SAMPLERS: dict[str, Any] = {
    "ddim": lambda config: DDIMScheduler.from_config(config, clip_sample=False),
    "euler": EulerDiscreteScheduler.from_config,
    "dpm++ 2m": DPMSolverMultistepScheduler.from_config,
    "heun": HeunDiscreteScheduler.from_config,
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    place = tmp_path_factory.mktemp("panorama")
    return both(sd1(place), place)


def panorama_of(pair: Pair) -> Any:
    parts = {**pair.theirs.components, "safety_checker": None, "feature_extractor": None}
    theirs = StableDiffusionPanoramaPipeline(**parts, requires_safety_checker=False)
    theirs.set_progress_bar_config(disable=True)
    theirs.vae_scale_factor = 8  # its windows take it for granted
    theirs.get_views = partial(theirs.get_views, window_size=WINDOW, stride=STRIDE)
    return theirs


def compared(pair: Pair, cells: tuple[int, int], wrap: bool, steps: int = 3) -> float:
    factor = pair.model.bundle.codec.factor
    size = (cells[0] * factor, cells[1] * factor)
    wanted = panorama_of(pair)(
        "a red boat",
        height=cells[0] * 8,
        width=cells[1] * 8,
        num_inference_steps=steps,
        guidance_scale=5.0,
        latents=noise_of(pair.model, 1, size),
        view_batch_size=4,
        circular_padding=wrap,
        output_type="latent",
    ).images
    ours = latents_of(
        lambda: pair.model.panorama(
            "a red boat",
            size=size,
            wrap=wrap,
            window=WINDOW * factor,
            overlap=(WINDOW - STRIDE) * factor,
            even=True,
            steps=steps,
            guidance=5.0,
            seed=5,
        )
    )
    margin = (ours.shape[-1] - cells[1]) // 2  # what a picture that goes around is decoded with
    return far(ours[..., margin : margin + cells[1]], wanted)


@pytest.mark.parametrize("sampler", list(SAMPLERS))
@pytest.mark.parametrize("canvas", list(CANVASES))
def test_the_same_windows_make_the_same_latents(pair: Pair, sampler: str, canvas: str, tmp_path: Path) -> None:
    swapped = pair.sampled_by(SAMPLERS[sampler](pair.theirs.scheduler.config), tmp_path)
    assert compared(swapped, CANVASES[canvas], wrap=False) < CLOSE


def test_around_too(pair: Pair, tmp_path: Path) -> None:
    swapped = pair.sampled_by(SAMPLERS["ddim"](pair.theirs.scheduler.config), tmp_path)
    assert compared(swapped, (16, 24), wrap=True) < CLOSE
