"""Editing, painting, enlarging: what diffusers' pipelines of each kind make of a picture is what the verbs make of it.

Both encode to the mode of the codec's Gaussian, and theirs is given the noise that ours draws. Relative to the largest
latent, as in test_pipelines.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from beside import CLOSE, SEED, Pair, both, drawing, draws, far, given, latents_of, photo
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LDMSuperResolutionPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionXLImg2ImgPipeline,
    UNet2DModel,
)
from pipelines import (
    SD,
    SD_BETAS,
    depth_to_image,
    inpainting,
    refiner,
    sd1,
    sd2,
    sdxl,
    sdxl_inpainting,
    upscaler,
    vq,
)
from torch import Tensor

from neblina.core.errors import SettingError
from neblina.core.noise import BESIDE
from neblina.tasks.masks import Mask

PROMPT, NEGATIVE = "a red boat", "the sea"
Built = Callable[[str], Pair]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Pairs by name, each built once."""
    makers: dict[str, Any] = {
        "sd1": sd1,
        "sd2-v": sd2,
        "sdxl": sdxl,
        "refiner": refiner,
        "inpainting": inpainting,
        "sdxl inpainting": sdxl_inpainting,
        "upscaler": upscaler,
        "depth": depth_to_image,
    }
    pairs: dict[str, Pair] = {}

    def pair(name: str) -> Pair:
        if name not in pairs:
            place = tmp_path_factory.mktemp(name)
            pairs[name] = both(makers[name](place), place)
        return pairs[name]

    return pair


def as_kind(kind: Any, pair: Pair) -> Any:
    """Their pipeline of another kind from the same parts."""
    parts = {name: part for name, part in pair.theirs.components.items() if name in kind.__init__.__annotations__}
    rest: dict[str, Any] = {"add_watermarker": False} if "XL" in kind.__name__ else {"requires_safety_checker": False}
    pipeline = kind(**parts, **rest)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def begin_pndm_whole(theirs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let PLMS, begun on the way, visit what it visits from the beginning: its first time, and its second twice.

    diffusers cuts its list of times, in which the second stands twice, by the number of steps left out. The first is
    then an earlier one, and after two steps every sample is told to be a step cleaner than it is.
    """

    def times(num_inference_steps: int, strength: float, device: Any) -> tuple[Tensor, int]:
        taken = min(int(num_inference_steps * strength), num_inference_steps)
        whole = theirs.scheduler.timesteps
        visited = torch.cat([whole[:1], whole[2:]])[num_inference_steps - taken :]
        return torch.cat([visited[:2], visited[1:]]), taken

    monkeypatch.setattr(theirs, "get_timesteps", times)


SCHEDULERS: dict[str, Any] = {
    "own": None,
    "ddim": DDIMScheduler(**SD),
    "euler": EulerDiscreteScheduler(**SD_BETAS, timestep_spacing="leading", steps_offset=1),
    "euler ancestral": EulerAncestralDiscreteScheduler(**SD_BETAS, timestep_spacing="leading", steps_offset=1),
    "dpm++ 2m": DPMSolverMultistepScheduler(**SD_BETAS),
    "dpm++ 2m karras": DPMSolverMultistepScheduler(**SD_BETAS, use_karras_sigmas=True),
}


@pytest.mark.parametrize("scheduler", list(SCHEDULERS))
@pytest.mark.parametrize("strength", [0.3, 0.75, 1.0])
def test_an_edit_of_any_strength(
    built: Built, scheduler: str, strength: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = built("sd1")
    if scheduler != "own":
        pair = pair.sampled_by(SCHEDULERS[scheduler], tmp_path)
    picture, theirs = photo(16, 24), as_kind(StableDiffusionImg2ImgPipeline, pair)
    if scheduler == "own":
        begin_pndm_whole(theirs, monkeypatch)
    with drawing(draws(1)):
        wanted = theirs(
            PROMPT,
            image=given(picture),
            strength=strength,
            num_inference_steps=8,
            guidance_scale=4.0,
            negative_prompt=NEGATIVE,
            output_type="latent",
        ).images
    ours = latents_of(
        lambda: pair.model.edit(picture, PROMPT, strength=strength, negative=NEGATIVE, steps=8, guidance=4.0, seed=SEED)
    )
    assert far(ours, wanted) < CLOSE


@pytest.mark.parametrize("name", ["sd1", "sd2-v", "sdxl"])
def test_an_edit_of_a_photo_of_an_odd_number_of_cells(built: Built, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """18x26 is 9x13 cells, which no level halves."""
    pair, picture = built(name), photo(18, 26)
    kind = StableDiffusionXLImg2ImgPipeline if name == "sdxl" else StableDiffusionImg2ImgPipeline
    theirs = as_kind(kind, pair)
    if name == "sd1":
        begin_pndm_whole(theirs, monkeypatch)
    told: dict[str, Any] = {"original_size": (18, 26), "target_size": (18, 26)} if name == "sdxl" else {}
    with drawing(draws(1)):
        wanted = theirs(
            PROMPT,
            image=given(picture),
            strength=0.6,
            num_inference_steps=8,
            guidance_scale=4.0,
            output_type="latent",
            **told,
        ).images
    made: list[Tensor] = []
    asked: dict[str, Any] = {"strength": 0.6, "steps": 8, "guidance": 4.0, "seed": SEED}
    ours = latents_of(lambda: made.append(pair.model.edit(picture, PROMPT, **asked)))
    assert ours.shape[2:] == (9, 13)
    assert made[0].shape[2:] == (18, 26)
    assert far(ours, wanted) < CLOSE


def test_an_edit_that_is_told_the_depth(built: Built) -> None:
    pair = built("depth")
    picture, near = photo(16, 24), photo(16, 24, seed=1)
    with drawing(draws(1)):
        wanted = pair.theirs(
            PROMPT,
            image=given(picture),
            depth_map=torch.tensor(near.pixels.astype(np.float32).mean(-1))[None],
            strength=0.75,
            num_inference_steps=8,
            guidance_scale=4.0,
            negative_prompt=NEGATIVE,
            output_type="latent",
        ).images
    asked: dict[str, Any] = {"negative": NEGATIVE, "steps": 8, "guidance": 4.0, "seed": SEED}
    ours = latents_of(lambda: pair.model.edit(picture, PROMPT, depth=near, strength=0.75, **asked))
    assert far(ours, wanted) < CLOSE
    other = latents_of(lambda: pair.model.edit(picture, PROMPT, depth=photo(16, 24, seed=2), strength=0.75, **asked))
    assert far(other, wanted) > 10 * CLOSE
    with pytest.raises(SettingError, match="give a picture of it, the brighter the nearer, with --depth"):
        pair.model.edit(picture, PROMPT)
    with pytest.raises(SettingError, match="24x8 and the photo is 24x16"):
        pair.model.edit(picture, PROMPT, depth=photo(8, 24))
    with pytest.raises(SettingError, match="is not told a depth"):
        built("sd1").model.edit(picture, PROMPT, depth=near)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sd2-v", StableDiffusionImg2ImgPipeline),
        ("sdxl", StableDiffusionXLImg2ImgPipeline),
        ("refiner", StableDiffusionXLImg2ImgPipeline),
    ],
)
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_an_edit_by_other_families(built: Built, name: str, kind: Any, guidance: float) -> None:
    pair = built(name)
    picture = photo(16, 24)
    told: dict[str, Any] = {"original_size": (16, 24), "target_size": (16, 24)} if "XL" in kind.__name__ else {}
    theirs = pair.theirs if name == "refiner" else as_kind(kind, pair)
    with drawing(draws(1)):
        wanted = theirs(
            PROMPT,
            image=given(picture),
            strength=0.6,
            num_inference_steps=8,
            guidance_scale=guidance,
            output_type="latent",
            **told,
        ).images
    ours = latents_of(lambda: pair.model.edit(picture, PROMPT, strength=0.6, steps=8, guidance=guidance, seed=SEED))
    assert far(ours, wanted) < CLOSE


def square(height: int, width: int) -> Mask:
    """A mask whose borders are those of latent cells."""
    values = np.zeros((height, width), np.float32)
    values[4:12, 6:16] = 1
    return Mask(values, Path("mask.png"), "0" * 64)


def shown(mask: Mask) -> Tensor:
    return torch.from_numpy(mask.values)[None, None]


@pytest.mark.parametrize("name", ["inpainting", "sdxl inpainting"])
@pytest.mark.parametrize("strength", [0.6, 1.0])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_a_checkpoint_that_is_told_the_mask(
    built: Built, name: str, strength: float, guidance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, picture, mask = built(name), photo(16, 24), square(16, 24)
    if name == "inpainting":
        begin_pndm_whole(pair.theirs, monkeypatch)
    told: dict[str, Any] = {"original_size": (16, 24), "target_size": (16, 24)} if "sdxl" in name else {}
    with drawing(draws(1)):
        wanted = pair.theirs(
            PROMPT,
            image=given(picture),
            mask_image=shown(mask),
            strength=strength,
            height=16,
            width=24,
            num_inference_steps=6,
            guidance_scale=guidance,
            output_type="latent",
            **told,
        ).images
    ours = latents_of(
        lambda: pair.model.inpaint(picture, mask, PROMPT, strength=strength, steps=6, guidance=guidance, seed=SEED)
    )
    assert far(ours, wanted) < CLOSE


@pytest.mark.parametrize("strength", [0.4, 0.8])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_a_mask_for_any_model(built: Built, strength: float, guidance: float, tmp_path: Path) -> None:
    """With DDIM to clean data, putting the noised picture back is believing in the picture."""
    pair = built("sd1").sampled_by(DDIMScheduler(**{**SD, "set_alpha_to_one": True}), tmp_path)
    picture, mask = photo(16, 24), square(16, 24)
    with drawing(draws(1)):
        wanted = as_kind(StableDiffusionInpaintPipeline, pair)(
            PROMPT,
            image=given(picture),
            mask_image=shown(mask),
            strength=strength,
            height=16,
            width=24,
            num_inference_steps=10,
            guidance_scale=guidance,
            output_type="latent",
        ).images
    ours = latents_of(
        lambda: pair.model.inpaint(picture, mask, PROMPT, strength=strength, steps=10, guidance=guidance, seed=SEED)
    )
    assert far(ours, wanted) < CLOSE


def begin_at_the_picture(theirs: Any, cells: Tensor) -> None:
    """Let their painting with all strength begin at the noised picture without its inside, as ours does.

    Theirs begins at noise alone and puts the noised picture back after the first step, so that the network is asked
    once about an outside that is not what the rest of the walk says; whatever comes after is equal.
    """
    prepare = theirs.prepare_latents

    def begun(*given: Any, **named: Any) -> tuple[Tensor, ...]:
        _, noise, image = prepare(*given, **{**named, "return_image_latents": True})
        first = theirs.scheduler.timesteps[:1]
        return theirs.scheduler.add_noise(image * (1 - cells), noise, first), noise, image

    theirs.prepare_latents = begun


@pytest.mark.parametrize("scheduler", ["own", "ddim"])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_a_mask_for_any_model_with_all_strength(built: Built, scheduler: str, guidance: float, tmp_path: Path) -> None:
    """What the command line does when nothing else is said.

    Inside the mask ours is theirs, begun alike. Outside (which is pasted over) theirs ends at the clean picture and
    ours where the scheduler ends, at σ = 0.029: `set_alpha_to_one` is off in Stable Diffusion's. Begun as they do it
    is another picture inside by 0.6 % of the largest latent (0.15 of 24).
    """
    pair = built("sd1")
    if scheduler != "own":
        pair = pair.sampled_by(SCHEDULERS[scheduler], tmp_path)
    picture, mask = photo(16, 24), square(16, 24)
    cells = torch.zeros(1, 1, 8, 12)
    cells[..., 2:6, 3:8] = 1

    def wanted(theirs: Any) -> Tensor:
        with drawing(draws(1)):
            made: Tensor = theirs(
                PROMPT,
                image=given(picture),
                mask_image=shown(mask),
                strength=1.0,
                height=16,
                width=24,
                num_inference_steps=10,
                guidance_scale=guidance,
                output_type="latent",
            ).images
        return made

    plain, alike = (as_kind(StableDiffusionInpaintPipeline, pair) for _ in range(2))
    begin_at_the_picture(alike, cells)
    ours = latents_of(lambda: pair.model.inpaint(picture, mask, PROMPT, steps=10, guidance=guidance, seed=SEED))
    assert far(ours * cells, wanted(alike) * cells) < CLOSE
    assert 10 * CLOSE < far(ours * cells, wanted(plain) * cells) < 0.01
    last = float(1 - plain.scheduler.alphas_cumprod[0]) ** 0.5
    rest = (ours - wanted(alike)) * (1 - cells)
    assert float(rest.abs().max()) < last * 1.05 * float(draws(1)(ours).abs().max())


OTHERS: dict[str, Any] = {
    "dpm++ 2m": DPMSolverMultistepScheduler.from_config,
    "euler": EulerDiscreteScheduler.from_config,
}


@pytest.mark.parametrize("scheduler", list(OTHERS))
@pytest.mark.parametrize("name", ["inpainting", "sdxl inpainting"])
@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_a_checkpoint_that_is_told_the_mask_by_other_samplers(
    built: Built, scheduler: str, name: str, strength: float, tmp_path: Path
) -> None:
    pair = built(name)
    pair = pair.sampled_by(OTHERS[scheduler](pair.theirs.scheduler.config), tmp_path)
    picture, mask = photo(16, 24), square(16, 24)
    told: dict[str, Any] = {"original_size": (16, 24), "target_size": (16, 24)} if "sdxl" in name else {}
    with drawing(draws(1)):
        wanted = pair.theirs(
            PROMPT,
            image=given(picture),
            mask_image=shown(mask),
            strength=strength,
            height=16,
            width=24,
            num_inference_steps=6,
            guidance_scale=4.0,
            output_type="latent",
            **told,
        ).images
    ours = latents_of(
        lambda: pair.model.inpaint(picture, mask, PROMPT, strength=strength, steps=6, guidance=4.0, seed=SEED)
    )
    assert far(ours, wanted) < CLOSE


@pytest.mark.parametrize("scheduler", list(OTHERS))
@pytest.mark.parametrize("guidance", [1.0, 6.0])
def test_the_upscaler_by_other_samplers(built: Built, scheduler: str, guidance: float, tmp_path: Path) -> None:
    pair, picture = built("upscaler"), photo(8, 12)
    pair = pair.sampled_by(OTHERS[scheduler](pair.theirs.scheduler.config), tmp_path)
    with drawing(draws(1, stream=BESIDE), draws(1)):
        wanted = pair.theirs(
            PROMPT, image=given(picture), num_inference_steps=6, guidance_scale=guidance, output_type="latent"
        ).images
    ours = latents_of(lambda: pair.model.upscale(picture, PROMPT, steps=6, guidance=guidance, seed=SEED))
    assert far(ours, wanted) < CLOSE


@pytest.mark.parametrize("guidance", [1.0, 6.0])
@pytest.mark.parametrize("level", [None, 0, 200])
def test_the_upscaler(built: Built, guidance: float, level: int | None) -> None:
    pair, picture = built("upscaler"), photo(8, 12)
    with drawing(draws(2, stream=BESIDE), draws(2)):
        wanted = pair.theirs(
            [PROMPT, "the cat"],
            image=given(picture).expand(2, -1, -1, -1),
            noise_level=20 if level is None else level,
            num_inference_steps=6,
            guidance_scale=guidance,
            output_type="latent",
        ).images
    ours = latents_of(
        lambda: pair.model.upscale(
            picture, [PROMPT, "the cat"], noise_level=level, steps=6, guidance=guidance, seed=SEED
        )
    )
    assert far(ours, wanted) < CLOSE


def test_super_resolution_without_text(tmp_path: Path) -> None:
    torch.manual_seed(8)
    net = UNet2DModel(
        sample_size=8,
        in_channels=7,
        out_channels=4,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    ).eval()
    pair = both(LDMSuperResolutionPipeline(vq(), net, DDIMScheduler(**SD)), tmp_path)
    picture = photo(8, 12)
    pair.theirs.unet.register_to_config(in_channels=8)  # the pipeline halves it for the number of latent channels
    with drawing(draws(1)):
        wanted = pair.theirs(given(picture) * 2 - 1, num_inference_steps=5, output_type="pt").images * 2 - 1
    ours = pair.model.upscale(picture, factor=2, steps=5, seed=SEED).float() / 127.5 - 1
    assert float((ours - wanted).abs().max()) < 1 / 255 + CLOSE
