"""One field of a saved model changed: it opens here and makes what diffusers makes of it, or it is refused by name."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from beside import CLOSE, SEED, Pair, both, change, drawing, draws, far
from diffusers import StableDiffusionPipeline
from pipelines import sd1

from neblina.core.errors import NeblinaError
from neblina.tasks.loading import load

PROMPTS, NEGATIVE = ["A red boat!", "the small cat, on the sea, and a very long boat " * 2], "a boat"

MUTATIONS: dict[str, dict[str, tuple[Any, ...]]] = {
    "text_encoder/config.json": {
        "hidden_act": ("gelu", "gelu_new", "nonsense"),
        "layer_norm_eps": (1e-2,),
        "num_attention_heads": (4, 3),
        "num_hidden_layers": (2, 4),
        "eos_token_id": (2, 5),
        "bos_token_id": (3,),
        "pad_token_id": (3,),
        "max_position_embeddings": (40, 100),
        "vocab_size": (100, 1000),
        "hidden_size": (8,),
        "intermediate_size": (16,),
        "projection_dim": (99,),
        "attention_dropout": (0.5,),
        "initializer_range": (3.0,),
        "architectures": (["CLIPTextModelWithProjection"], ["BertModel"], None),
        "model_type": ("nonsense",),
        "dtype": ("float16",),
        "torch_dtype": ("float16",),
        "nonsense": (1,),
    },
    "tokenizer/tokenizer_config.json": {
        "pad_token": ("!", "nonsense"),
        "bos_token": ("!",),
        "eos_token": ("!",),
        "unk_token": ("!",),
        "model_max_length": (20,),
        "do_lower_case": (False,),
        "errors": ("ignore",),
        "add_prefix_space": (True,),
        "padding_side": ("left",),
        "truncation_side": ("left",),
        "add_bos_token": (False,),
        "clean_up_tokenization_spaces": (True,),
        "tokenizer_class": ("CLIPTokenizerFast", "BertTokenizer", "Nonsense"),
        "split_special_tokens": (True,),
        "nonsense": (1,),
    },
    "vae/config.json": {
        "scaling_factor": (0.5,),
        "shift_factor": (0.3, 0.0),
        "latents_mean": ([0.1] * 4,),
        "force_upcast": (False,),
        "act_fn": ("gelu", "nonsense"),
        "norm_num_groups": (2,),
        "sample_size": (32,),
        "latent_channels": (8,),
        "in_channels": (1,),
        "layers_per_block": (2,),
        "use_quant_conv": (False,),
        "use_post_quant_conv": (False,),
        "mid_block_add_attention": (False,),
        "_class_name": ("VQModel", "Nonsense"),
        "nonsense": (1,),
    },
    "scheduler/scheduler_config.json": {
        "prediction_type": ("nonsense",),  # of v, diffusers' PNDM departs from its paper: docs/schedulers.md
        "beta_start": (0.001,),
        "beta_end": (0.02,),
        "beta_schedule": ("linear", "squaredcos_cap_v2", "nonsense"),
        "trained_betas": ([0.001] * 1000,),
        "num_train_timesteps": (500,),
        "steps_offset": (0, 2),
        "set_alpha_to_one": (True,),
        "skip_prk_steps": (False,),
        "timestep_spacing": ("trailing", "nonsense"),
        "clip_sample": (False, True),
        "use_karras_sigmas": (False, True),
        "_class_name": ("DDIMScheduler", "Nonsense"),
        "nonsense": (1,),
    },
    "unet/config.json": {
        "center_input_sample": (True,),
        "flip_sin_to_cos": (False,),
        "freq_shift": (1,),
        "act_fn": ("gelu",),
        "norm_eps": (1e-2,),
        "norm_num_groups": (4,),
        "attention_head_dim": (2,),
        "num_attention_heads": (2,),
        "sample_size": (16, None),
        "in_channels": (5, 9),
        "downsample_padding": (0,),
        "mid_block_scale_factor": (2.0,),
        "use_linear_projection": (True,),
        "only_cross_attention": (True,),
        "upcast_attention": (True,),
        "cross_attention_dim": (24,),
        "time_cond_proj_dim": (8,),
        "num_class_embeds": (3,),
        "class_embed_type": ("timestep",),
        "encoder_hid_dim": (8,),
        "conv_in_kernel": (5,),
        "_class_name": ("UNet2DModel", "Nonsense"),
        "nonsense": (1,),
    },
    "model_index.json": {
        "_class_name": ("StableDiffusionXLPipeline", "LDMTextToImagePipeline", "Nonsense", None),
        "unet": (["diffusers", "UNet2DModel"], [None, None]),
        "vae": (["diffusers", "VQModel"], [None, None]),
        "text_encoder": (["transformers", "CLIPTextModelWithProjection"], ["transformers", "BertModel"], [None, None]),
        "tokenizer": (["transformers", "BertTokenizer"], [None, None]),
        "scheduler": (["diffusers", "DDIMScheduler"], ["diffusers", "Nonsense"], [None, None]),
        "requires_safety_checker": (True,),
        "nonsense": (3,),
    },
}
ALL = [
    (file, field, value) for file, fields in MUTATIONS.items() for field, values in fields.items() for value in values
]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    place = tmp_path_factory.mktemp("sd1")
    return both(sd1(place), place)


@pytest.mark.parametrize(("file", "field", "value"), ALL, ids=lambda value: str(value)[:24])
def test_a_changed_field_is_followed_or_refused_by_name(
    pair: Pair, file: str, field: str, value: Any, tmp_path: Path
) -> None:
    shutil.copytree(pair.place, tmp_path / "model")
    change(tmp_path / "model" / file, **{field: value})
    ours, error = asked_or_refused(tmp_path / "model")
    if ours is None:
        said = [field, field.replace("_", " "), str(value), "the weights (lack|hold) ", "has shape .* in the weights"]
        assert re.search("|".join((*said, "its tokenizer knows")), error)
        return
    theirs = StableDiffusionPipeline.from_pretrained(tmp_path / "model", torch_dtype=torch.float32)
    theirs.set_progress_bar_config(disable=True)
    with drawing(draws(2)):
        wanted = theirs(
            PROMPTS,
            negative_prompt=[NEGATIVE] * 2,
            num_inference_steps=5,
            guidance_scale=3.0,
            height=16,
            width=16,
            output_type="pt",
        ).images
    assert far(ours.clamp(-1, 1), wanted * 2 - 1) < CLOSE


def asked_or_refused(folder: Path) -> tuple[torch.Tensor | None, str]:
    """What we make of a folder, or why not."""
    asked: dict[str, Any] = {"steps": 5, "guidance": 3.0, "seed": SEED, "size": (16, 16), "long_prompt": "cut"}
    try:
        return load(folder, device="cpu").generate(PROMPTS, negative=NEGATIVE, **asked), ""
    except NeblinaError as error:
        return None, str(error)


@pytest.mark.parametrize("window", [200, None])
def test_a_tokenizer_reads_no_more_at_once_than_its_encoder(pair: Pair, window: int | None, tmp_path: Path) -> None:
    """diffusers fails on both."""
    shutil.copytree(pair.place, tmp_path / "model")
    change(tmp_path / "model" / "tokenizer/tokenizer_config.json", model_max_length=window)
    model = load(tmp_path / "model", device="cpu")
    assert torch.equal(model.generate("a boat", steps=2), pair.model.generate("a boat", steps=2))
