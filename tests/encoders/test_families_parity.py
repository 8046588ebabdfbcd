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


def test_without_a_negative_prompt_guidance_goes_away_from_the_empty_one(
    tmp_path: Path, unet: Any, autoencoder: Any
) -> None:
    pipeline = stable_diffusion(*clip(tmp_path), unet, autoencoder)
    ours = encode_prompts(STABLE_DIFFUSION, [opened(tmp_path)], ["a red boat"] * 3)
    with torch.no_grad():
        text, unsaid = pipeline.encode_prompt(["a red boat"] * 3, "cpu", 1, True)
    assert ours.unsaid is not None
    assert close(ours.text, text)
    assert close(ours.unsaid.text, unsaid)


def test_a_cut_prompt_is_what_diffusers_makes_of_a_long_one(tmp_path: Path, unet: Any, autoencoder: Any) -> None:
    pipeline = stable_diffusion(*clip(tmp_path), unet, autoencoder)
    with pytest.warns(UserWarning, match="Cut from"):
        ours = encode_prompts(STABLE_DIFFUSION, [opened(tmp_path)], [LONG, "a boat"], LONG, long="cut")
    with torch.no_grad():
        text, unsaid = pipeline.encode_prompt([LONG, "a boat"], "cpu", 1, True, [LONG, LONG])
    assert ours.unsaid is not None
    assert close(ours.text, text)
    assert close(ours.unsaid.text, unsaid)


# -- SDXL ------------------------------------------------------------------------------------------------------------


def sdxl(place: Path, **settings: Any) -> tuple[StableDiffusionXLPipeline, list[TextEncoder]]:
    first, tokenizer = clip(place / "1", seed=1, hidden_size=24, num_attention_heads=3)
    second, tokenizer_2 = clip(place / "2", seed=2, projected=True, pad="!", hidden_act="gelu", projection_dim=20)
    pipeline = StableDiffusionXLPipeline(
        AutoencoderKL(block_out_channels=(8,), norm_num_groups=4),
        first,
        second,
        tokenizer,
        tokenizer_2,
        told_unet(6),
        DDIMScheduler(),
        add_watermarker=False,
        **settings,
    )
    return pipeline, [opened(place / "1"), opened(place / "2")]


def told_unet(numbers: int) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
        cross_attention_dim=40,
        attention_head_dim=4,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=20 + 8 * numbers,
    )


def agree(ours: Condition, theirs: tuple[torch.Tensor, ...]) -> None:
    text, unsaid, pooled, unsaid_pooled = theirs
    assert ours.unsaid is not None
    assert close(ours.text, text)
    assert close(ours.unsaid.text, unsaid)
    assert close(ours.pooled, pooled)
    assert close(ours.unsaid.pooled, unsaid_pooled)
    assert ours.structure == ours.unsaid.structure


FRAMING = Framing((512, 768), (1024, 640), (3, 5))


@pytest.mark.parametrize("clip_skip", [0, 1, 2])
def test_sdxl_reads_what_diffusers_reads(tmp_path: Path, clip_skip: int) -> None:
    pipeline, encoders = sdxl(tmp_path)
    ours = encode_prompts(SDXL, encoders, PROMPTS, NEGATIVE, clip_skip=clip_skip, framing=FRAMING)
    with torch.no_grad():
        theirs = pipeline.encode_prompt(PROMPTS, negative_prompt=NEGATIVE, clip_skip=clip_skip)
    agree(ours, theirs)


@pytest.mark.parametrize("zeros", [True, False])
@pytest.mark.parametrize("negative", [None, ""])
def test_what_sdxl_goes_away_from_is_zeros_only_where_nothing_is_said(
    tmp_path: Path, zeros: bool, negative: str | None
) -> None:
    pipeline, encoders = sdxl(tmp_path, force_zeros_for_empty_prompt=zeros)
    ours = encode_prompts(replace(SDXL, zero_unsaid=zeros), encoders, ["a cat"] * 2, negative, framing=FRAMING)
    with torch.no_grad():
        theirs = pipeline.encode_prompt(["a cat"] * 2, negative_prompt=None if negative is None else [negative] * 2)
    agree(ours, theirs)
    assert ours.unsaid is not None
    assert ours.unsaid.text is not None
    assert bool((ours.unsaid.text == 0).all()) == (zeros and negative is None)


def test_sdxl_is_told_the_framing_as_diffusers_tells_it(tmp_path: Path) -> None:
    pipeline, encoders = sdxl(tmp_path)
    ours = encode_prompts(SDXL, encoders, ["a", "b"], framing=FRAMING)
    theirs = pipeline._get_add_time_ids(FRAMING.original, FRAMING.corner, FRAMING.target, torch.float32, 20)
    assert ours.sizes is not None
    assert torch.equal(ours.sizes, theirs.repeat(2, 1))
    assert ours.unsaid is not None
    assert ours.unsaid.sizes is not None
    assert torch.equal(ours.unsaid.sizes, theirs.repeat(2, 1))
    other = encode_prompts(SDXL, encoders, ["a"], framing=FRAMING, unsaid_framing=Framing((1, 2), (3, 4))).unsaid
    assert other is not None
    assert other.sizes is not None
    assert other.sizes.tolist() == [[1, 2, 0, 0, 3, 4]]


def test_the_refiner_reads_what_diffusers_reads(tmp_path: Path) -> None:
    second, tokenizer = clip(tmp_path, projected=True, pad="!", hidden_act="gelu", projection_dim=20)
    pipeline = StableDiffusionXLImg2ImgPipeline(
        AutoencoderKL(block_out_channels=(8,), norm_num_groups=4),
        None,
        second,
        None,
        tokenizer,
        told_unet(5),
        DDIMScheduler(),
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )
    ours = encode_prompts(SDXL_REFINER, [opened(tmp_path)], PROMPTS, clip_skip=1, framing=FRAMING)
    with torch.no_grad():
        agree(ours, pipeline.encode_prompt(PROMPTS, device="cpu", negative_prompt=[""] * len(PROMPTS), clip_skip=1))
    told, untold = pipeline._get_add_time_ids(
        FRAMING.original,
        FRAMING.corner,
        FRAMING.target,
        6.0,
        2.5,
        FRAMING.original,
        FRAMING.corner,
        FRAMING.target,
        torch.float32,
        20,
    )
    assert ours.sizes is not None
    assert torch.equal(ours.sizes[:1], told)
    assert ours.unsaid is not None
    assert ours.unsaid.sizes is not None
    assert torch.equal(ours.unsaid.sizes[:1], untold)


# -- latent diffusion ------------------------------------------------------------------------------------------------


def test_latent_diffusion_reads_what_diffusers_reads(tmp_path: Path, unet: Any, autoencoder: Any) -> None:
    from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel

    tokenizer = bert_tokenizer(tmp_path / "tokenizer", model_max_length=512)
    sizes = {"d_model": 16, "encoder_layers": 2, "encoder_ffn_dim": 24, "encoder_attention_heads": 3, "head_dim": 4}
    model = loud(lambda: LDMBertModel(LDMBertConfig(vocab_size=len(tokenizer), **sizes)), 0)
    model.save_pretrained(tmp_path / "text_encoder")
    read: list[torch.Tensor] = []
    unet.register_forward_pre_hook(lambda _, args, named: read.append(named["encoder_hidden_states"]), with_kwargs=True)
    pipeline = LDMTextToImagePipeline(autoencoder, model, tokenizer, unet, DDIMScheduler())
    pipeline.set_progress_bar_config(disable=True)
    pipeline(PROMPTS, height=8, width=8, num_inference_steps=1, guidance_scale=2.0, output_type="pt")
    ours = encode_prompts(LATENT_DIFFUSION, [opened(tmp_path)], PROMPTS)
    assert ours.unsaid is not None
    assert ours.unsaid.text is not None
    assert ours.text is not None
    assert close(torch.cat([ours.unsaid.text, ours.text]), read[0])


# -- what does not fit -----------------------------------------------------------------------------------------------


def test_an_encoder_that_does_not_fit_the_network_is_refused(tmp_path: Path) -> None:
    clip(tmp_path / "plain")
    clip(tmp_path / "projected", projected=True, projection_dim=20)
    plain, projected = opened(tmp_path / "plain"), opened(tmp_path / "projected")
    check_fit(STABLE_DIFFUSION, [plain], Wants(text=16))
    check_fit(SDXL, [plain, projected], Wants(text=32, pooled=20, sizes=6))
    for family, encoders, wants in (
        (STABLE_DIFFUSION, [plain], Wants(text=32)),
        (STABLE_DIFFUSION, [plain, plain], Wants(text=32)),
        (SDXL, [plain, projected], Wants(text=32, pooled=16, sizes=6)),
        (SDXL, [plain, plain], Wants(text=32, pooled=16, sizes=6)),
    ):
        with pytest.raises(CheckpointError):
            check_fit(family, encoders, wants)


@pytest.mark.parametrize(
    ("family", "settings", "says"),
    [
        (STABLE_DIFFUSION, {"clip_skip": 4}, "choose 0 to 3"),
        (STABLE_DIFFUSION, {"clip_skip": -1}, "choose 0 to 3"),
        (replace(SDXL_REFINER, pooled=False), {"clip_skip": 3, "framing": FRAMING}, "choose 0 to 2"),
        (STABLE_DIFFUSION, {"framing": FRAMING}, "leave framing out"),
        (replace(SDXL_REFINER, pooled=False), {}, "give its framing"),
        (STABLE_DIFFUSION, {"negative": ["a", "b"]}, "2 negative prompts for 1"),
        (STABLE_DIFFUSION, {"long": "chnk"}, "Did you mean chunk"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(
    tmp_path: Path, family: Family, settings: dict[str, Any], says: str
) -> None:
    clip(tmp_path)
    with pytest.raises(SettingError, match=says):
        encode_prompts(family, [opened(tmp_path)], ["a"], **settings)


def test_prompts_are_a_list_of_one_or_more(tmp_path: Path) -> None:
    clip(tmp_path)
    for wrong in ("a cat", []):
        with pytest.raises(SettingError, match="one text a picture"):
            encode_prompts(STABLE_DIFFUSION, [opened(tmp_path)], wrong)


def test_a_family_that_pools_refuses_an_encoder_that_does_not(tmp_path: Path) -> None:
    clip(tmp_path)
    with pytest.raises(CheckpointError, match="vector of the whole text"):
        encode_prompts(SDXL_REFINER, [opened(tmp_path)], ["a"], framing=FRAMING)
    with pytest.raises(CheckpointError, match=r"2 encoder\(s\), and has 1"):
        encode_prompts(SDXL, [opened(tmp_path)], ["a"], framing=FRAMING)
