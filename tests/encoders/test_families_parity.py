"""Suite 7 for text: what the networks read equals what diffusers' pipelines give them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    LDMTextToImagePipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from oracle import LONG, PROMPTS, bert_tokenizer, clip, loud, opened

from neblina.core.conditions import Condition, Wants
from neblina.core.errors import CheckpointError, SettingError
from neblina.encoders.families import (
    LATENT_DIFFUSION,
    SDXL,
    SDXL_REFINER,
    STABLE_DIFFUSION,
    Family,
    Framing,
    check_fit,
    encode_prompts,
)
from neblina.encoders.text import TextEncoder

NEGATIVE = ["ugly", "", "a cat, a very bad one", "!!!", "x", "東京", "the", "small"]


def close(ours: torch.Tensor | None, theirs: torch.Tensor) -> bool:
    return ours is not None and ours.shape == theirs.shape and bool((ours - theirs).abs().max() <= 1e-5)


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
        cross_attention_dim=16,
        attention_head_dim=4,
        sample_size=64,
    )


@pytest.fixture(scope="module")
def autoencoder() -> AutoencoderKL:
    return AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)


def stable_diffusion(model: Any, tokenizer: Any, unet: Any, autoencoder: Any) -> StableDiffusionPipeline:
    if not hasattr(model, "text_model"):  # diffusers 0.42 looks for the norm where transformers 4 had it
        object.__setattr__(model, "text_model", model)
    return StableDiffusionPipeline(
        autoencoder, model, tokenizer, unet, DDIMScheduler(), None, None, requires_safety_checker=False
    )


@pytest.mark.parametrize(
    ("pad", "changes"),
    [("<|endoftext|>", {}), ("!", {"hidden_act": "gelu", "num_attention_heads": 4, "eos_token_id": 2})],
    ids=["SD 1", "SD 2"],
)
@pytest.mark.parametrize("clip_skip", [0, 1, 2, 3])
def test_stable_diffusion_reads_what_diffusers_reads(
    tmp_path: Path, unet: Any, autoencoder: Any, pad: str, changes: dict[str, Any], clip_skip: int
) -> None:
    pipeline = stable_diffusion(*clip(tmp_path, pad=pad, **changes), unet, autoencoder)
    ours = encode_prompts(STABLE_DIFFUSION, [opened(tmp_path)], PROMPTS, NEGATIVE, clip_skip=clip_skip)
    with torch.no_grad():
        text, unsaid = pipeline.encode_prompt(
            PROMPTS, "cpu", 1, True, NEGATIVE, clip_skip=None if clip_skip == 0 else clip_skip
        )
    assert ours.unsaid is not None
    assert close(ours.text, text)
    assert close(ours.unsaid.text, unsaid)
    assert ours.structure == ours.unsaid.structure
