"""The way back: what is opened here and saved is the folder that it came from, to diffusers and to ourselves."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from beside import CLOSE, SEED, both, drawing, draws, far, given, latents_of, photo
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    LDMSuperResolutionPipeline,
    UNet2DModel,
)
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from pipelines import (
    FAMILIES,
    SD,
    depth_to_image,
    dit,
    inpainting,
    pictures,
    refiner,
    sd1,
    sdxl_inpainting,
    unconditional_ldm,
    upscaler,
    vq,
)
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessorPil

from neblina.core.errors import CheckpointError
from neblina.tasks.inpaint import Mask
from neblina.tasks.loading import load
from neblina.tasks.model import Model

PROMPT = "a red boat"
Theirs = Callable[[Any], Any]
Ours = Callable[[Model], Any]


def checked(place: Path) -> Any:
    """Stable Diffusion 1 with its safety checker, as it was published."""
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    text, seen = {**small, "vocab_size": 10, "eos_token_id": 1}, {**small, "image_size": 16, "patch_size": 8}
    checker = StableDiffusionSafetyChecker(CLIPConfig(text_config=text, vision_config=seen, projection_dim=8))
    pipeline = sd1(place)
    size = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    pipeline.register_modules(safety_checker=checker, feature_extractor=CLIPImageProcessorPil(**size))
    pipeline.register_to_config(requires_safety_checker=True)
    return pipeline


def super_resolution(place: Path) -> Any:
    torch.manual_seed(8)
    net = UNet2DModel(
        sample_size=8,
        in_channels=8,
        out_channels=4,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    )
    codec = vq(in_channels=4, out_channels=4)
    return LDMSuperResolutionPipeline(codec, net.eval(), DDIMScheduler(**SD))


def mask() -> Tensor:
    inside = torch.zeros(1, 1, 16, 16)
    inside[..., 4:12, 6:16] = 1
    return inside


def told(pipeline: Any) -> Any:
    return pipeline(PROMPT, num_inference_steps=3, output_type="latent").images


def asked(model: Model) -> Any:
    return latents_of(lambda: model.generate(PROMPT, steps=3, seed=SEED))


def told_text(pipeline: Any) -> Any:
    return pipeline(PROMPT, height=32, width=32, num_inference_steps=3, output_type="np").images


def told_edit(pipeline: Any) -> Any:
    image = given(photo(16, 16))
    return pipeline(PROMPT, image=image, strength=0.7, num_inference_steps=3, output_type="latent").images


def asked_edit(model: Model) -> Any:
    return latents_of(lambda: model.edit(photo(16, 16), PROMPT, strength=0.7, steps=3, seed=SEED))


def told_mask(pipeline: Any) -> Any:
    image, size = given(photo(16, 16)), {"height": 16, "width": 16}
    asked = {"image": image, "mask_image": mask(), "strength": 1.0, "num_inference_steps": 3}
    return pipeline(PROMPT, **asked, **size, output_type="latent").images


def asked_mask(model: Model) -> Any:
    inside = Mask(mask()[0, 0].numpy(), Path("mask.png"), "0" * 64)
    return latents_of(lambda: model.inpaint(photo(16, 16), inside, PROMPT, steps=3, seed=SEED))


def told_small(pipeline: Any) -> Any:
    return pipeline(PROMPT, given(photo(8, 8)), num_inference_steps=3, output_type="latent").images


def asked_small(model: Model) -> Any:
    return latents_of(lambda: model.upscale(photo(8, 8), PROMPT, steps=3, seed=SEED))


def told_label(pipeline: Any) -> Any:
    return pipeline([3], num_inference_steps=3, output_type="pt").images


def asked_label(model: Model) -> Any:
    return model.generate(labels=3, steps=3, seed=SEED)


def told_nothing(pipeline: Any) -> Any:
    return pipeline(num_inference_steps=3, output_type="np").images


def asked_nothing(model: Model) -> Any:
    return model.generate(steps=3, seed=SEED)


@dataclass(frozen=True)
class Way:
    """How a family is built and asked, by them and by us."""

    build: Any
    told: Theirs = told
    asked: Ours = asked


WAYS: dict[str, Way] = {
    **{
        name: Way(
            build,
            told_edit if "image-to-image" in name else told_text if "ldm" in name else told,
            asked_edit if "image-to-image" in name else asked,
        )
        for name, build in FAMILIES.items()
    },
    "refiner": Way(refiner, told_edit, asked_edit),
    "safety checker": Way(checked),
    "inpainting": Way(inpainting, told_mask, asked_mask),
    "sdxl inpainting": Way(sdxl_inpainting, told_mask, asked_mask),
    "upscaler": Way(upscaler, told_small, asked_small),
    "dit": Way(dit, told_label, asked_label),
    "unconditional": Way(unconditional_ldm, told_nothing, asked_nothing),
    "pictures": Way(pictures, told_nothing, asked_nothing),
}


def once(way: Theirs, pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    with drawing(draws(1)):
        made = way(pipeline)
    return torch.as_tensor(made)


@pytest.mark.parametrize("family", list(WAYS))
def test_diffusers_opens_what_is_saved_and_makes_the_same(family: str, tmp_path: Path) -> None:
    way = WAYS[family]
    pair = both(way.build(tmp_path), tmp_path)
    pair.model.save(tmp_path / "again")
    wanted = once(way.told, pair.theirs)
    theirs = DiffusionPipeline.from_pretrained(tmp_path / "again")
    if getattr(theirs, "text_encoder", None) is not None and not hasattr(theirs.text_encoder, "text_model"):
        object.__setattr__(theirs.text_encoder, "text_model", theirs.text_encoder)
    assert type(theirs) is type(pair.theirs)
    # weights that lie elsewhere in memory are multiplied in another order, which clipping magnifies
    assert far(once(way.told, theirs), wanted) < CLOSE / 10
    again = load(tmp_path / "again", device="cpu")
    assert far(way.asked(again), way.asked(pair.model)) < CLOSE / 10


@pytest.mark.parametrize("family", list(WAYS))
def test_every_file_says_what_it_said(family: str, tmp_path: Path) -> None:
    """Weights bit for bit, configurations field by field; a scheduler's as its pipeline repairs it."""
    pair = both(WAYS[family].build(tmp_path), tmp_path)
    pair.model.save(tmp_path / "again")
    before, after = entries(pair.place), entries(tmp_path / "again")
    assert after == before
    for place in pair.place.rglob("*.safetensors"):
        one, other = (load_file(path) for path in (place, tmp_path / "again" / place.relative_to(pair.place)))
        one, other = (
            {name.removeprefix("text_model."): value for name, value in each.items()} for each in (one, other)
        )
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def entries(folder: Path) -> dict[str, Any]:
    """What the files of a folder say, by file and field, but for who wrote them."""
    said = {}
    for place in folder.rglob("*.json"):
        if place.name == "neblina.json":
            continue
        for field, value in json.loads(place.read_text()).items():
            if field not in ("_diffusers_version", "_name_or_path", "transformers_version") and value != [None, None]:
                said[f"{place.relative_to(folder)}: {field}"] = value
    return said


def test_components_that_are_not_used_survive(tmp_path: Path) -> None:
    for name, build in {"safety_checker": checked, "depth_estimator": depth_to_image}.items():
        pair = both(build(tmp_path / name), tmp_path / name)
        pair.model.save(tmp_path / name / "again")
        theirs = DiffusionPipeline.from_pretrained(tmp_path / name / "again")
        before, after = getattr(pair.theirs, name), getattr(theirs, name)
        assert type(after) is type(before)
        for one, other in zip(before.state_dict().values(), after.state_dict().values(), strict=True):
            assert torch.equal(one, other)
        assert theirs.feature_extractor.to_dict() == pair.theirs.feature_extractor.to_dict()


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_variants_of_the_weights_and_shards(family: str, tmp_path: Path) -> None:
    pipeline = FAMILIES[family](tmp_path)
    pipeline.save_pretrained(tmp_path / "shards", max_shard_size="60KB")
    assert len(list((tmp_path / "shards" / "unet").glob("*.safetensors"))) > 2
    whole = both(pipeline, tmp_path).model
    assert torch.equal(asked(load(tmp_path / "shards", device="cpu")), asked(whole))
    pipeline.to(torch.float16).save_pretrained(tmp_path / "half", variant="fp16")
    with pytest.raises(CheckpointError, match="fp16"):
        load(tmp_path / "half", device="cpu")
    rounded = load(tmp_path / "half", device="cpu", variant="fp16")
    for name, module in rounded.bundle.modules.items():
        mine = whole.bundle.modules[name].state_dict()
        for field, value in module.state_dict().items():
            assert value.dtype == torch.float32
            assert torch.equal(value, mine[field].half().float())
    theirs = DiffusionPipeline.from_pretrained(tmp_path / "half", variant="fp16", torch_dtype=torch.float32)
    expected = once(told, theirs)
    assert far(asked(rounded), expected) <= CLOSE
    assert far(asked(whole), expected) > CLOSE  # the rounding is seen


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("stored", [torch.float32, torch.float16])
def test_a_folder_opens_in_the_dtype_that_is_asked_for(dtype: str, stored: torch.dtype, tmp_path: Path) -> None:
    sd1(tmp_path).to(stored).save_pretrained(tmp_path / "model")
    model = load(tmp_path / "model", device="cpu", dtype=dtype)
    kinds = {value.dtype for module in model.bundle.modules.values() for value in module.parameters()}
    assert kinds == {torch.float16 if dtype == "fp16" else torch.bfloat16}
    made = model.generate(PROMPT, steps=2, seed=SEED)
    assert bool(made.isfinite().all())
