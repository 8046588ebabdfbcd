"""Single-file checkpoints: every family is told from its keys and becomes the models that it was written from."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import original_layout as original
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DiTTransformer2DModel, UNet2DConditionModel, VQModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
    infer_diffusers_model_type,
)
from safetensors.torch import save_file
from small_models import REFINER, SD1, SD2, SDXL, UPSCALER, VAE, made, text_config, unet_config
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from neblina.bundle.components import build_module
from neblina.bundle.schedulers import read_scheduler
from neblina.bundle.single_file.checkpoint import Checkpoint
from neblina.bundle.single_file.families import FAMILIES
from neblina.bundle.single_file.read import Component, SingleFile, from_checkpoint, read_single_file
from neblina.bundle.weights import load_into
from neblina.core.errors import CheckpointError, SettingError

State = dict[str, Tensor]


def small(name: str) -> tuple[State, dict[str, Any]]:
    """A small random checkpoint of a family, and the models that it is of."""
    state, models = small_once(name)
    return dict(state), models


@cache
def small_once(name: str) -> tuple[State, dict[str, Any]]:
    models: dict[str, Any] = {}
    config = {
        "sd1": SD1,
        "sd1-inpainting": {**SD1, "in_channels": 9},
        "sd2": SD2,
        "sd2-inpainting": {**SD2, "in_channels": 9},
        "sd2-depth": {**SD2, "in_channels": 5},
        "x4-upscaler": UPSCALER,
        "sdxl": SDXL,
        "sdxl-inpainting": {**SDXL, "in_channels": 9},
        "sdxl-refiner": REFINER,
        "ldm-classes": {**SD1, "in_channels": 3, "out_channels": 3, "attention_head_dim": 1},
    }[name]
    models["unet"] = made(UNet2DConditionModel, config)
    state = original.unet(models["unet"].state_dict(), [1] * len(config["block_out_channels"]))
    if name == "ldm-classes":
        codes = {"num_vq_embeddings": 16, "vq_embed_dim": 3, "latent_channels": 3, "scaling_factor": 1.0}
        models["vqvae"] = made(VQModel, {**VAE, **codes})
        state |= {"cond_stage_model.embedding.weight": torch.randn(11, 64)}
    else:
        models["vae"] = made(AutoencoderKL, VAE)
    first_stage = models.get("vae", models.get("vqvae"))
    state |= original.autoencoder(first_stage.state_dict(), 2)
    if name.startswith("sd1"):
        models["text_encoder"] = made(CLIPTextModel, text_config(64))
        state |= original.clip(models["text_encoder"].state_dict())
    elif name.startswith(("sd2", "x4")):
        models["text_encoder"] = made(CLIPTextModel, text_config(64 if name.startswith("sd2") else 128, "gelu"))
        state |= original.open_clip(models["text_encoder"].state_dict(), "cond_stage_model.model.", extra_layer=True)
    elif name.startswith("sdxl"):
        place = 0 if name == "sdxl-refiner" else 1
        second = made(CLIPTextModelWithProjection, text_config(128, "gelu", projection_dim=64))
        models["text_encoder_2"] = second
        state |= original.open_clip(second.state_dict(), f"conditioner.embedders.{place}.model.", extra_layer=False)
        if place:
            models["text_encoder"] = made(CLIPTextModel, text_config(64))
            state |= original.clip(models["text_encoder"].state_dict(), "conditioner.embedders.0.transformer.")
    return state, models


def rebuilt(component: Component) -> nn.Module:
    """The ecosystem's own model from a component's configuration and weights."""
    config = dict(component.config)
    classes = {
        "UNet2DConditionModel": UNet2DConditionModel,
        "AutoencoderKL": AutoencoderKL,
        "VQModel": VQModel,
        "AutoencoderTiny": AutoencoderTiny,
        "DiTTransformer2DModel": DiTTransformer2DModel,
    }
    if component.library == "diffusers":
        model = classes[config["_class_name"]].from_config(config)
        model.load_state_dict(component.state)
        return model.eval()
    (kind,) = config["architectures"]
    model = {"CLIPTextModel": CLIPTextModel, "CLIPTextModelWithProjection": CLIPTextModelWithProjection}[kind](
        CLIPTextConfig(**config)
    )
    own = any(name.startswith("text_model.") for name in model.state_dict())
    model.load_state_dict(
        {name if own else name.removeprefix("text_model."): tensor for name, tensor in component.state.items()}
    )
    return model.eval()


def answer(model: Any) -> Tensor:
    """What a model makes of fixed input: its configuration matters, not only its weights."""
    torch.manual_seed(5)
    with torch.no_grad():
        if isinstance(model, UNet2DConditionModel):
            config = model.config
            x, text = torch.randn(2, config.in_channels, 8, 8), torch.randn(2, 5, config.cross_attention_dim)
            labels = torch.tensor([1, 2]) if config.num_class_embeds else None
            added = None
            if config.addition_embed_type:
                pooled, rest = 64, config.projection_class_embeddings_input_dim - 64
                sizes = rest // config.addition_time_embed_dim
                added = {"text_embeds": torch.randn(2, pooled), "time_ids": torch.randn(2, sizes)}
            return model(x, torch.tensor([3, 800]), text, labels, added_cond_kwargs=added).sample
        if isinstance(model, (CLIPTextModel, CLIPTextModelWithProjection)):
            return model(torch.randint(3, 50, (2, 7)))[0]
        if isinstance(model, DiTTransformer2DModel):
            x = torch.randn(2, model.config.in_channels, model.config.sample_size, model.config.sample_size)
            return model(x, torch.tensor([3, 800]), torch.tensor([1, 2])).sample
        return model(torch.randn(1, 3, 16, 16)).sample


SMALL = [
    "sd1",
    "sd1-inpainting",
    "sd2",
    "sd2-inpainting",
    "sd2-depth",
    "x4-upscaler",
    "sdxl",
    "sdxl-inpainting",
    "sdxl-refiner",
    "ldm-classes",
]


def opened(state: Mapping[str, Tensor], folder: Path, **settings: Any) -> SingleFile:
    save_file(dict(state), folder / "file.safetensors")
    return read_single_file(folder / "file.safetensors", **settings)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if "-" in name else ()) for name in SMALL])
def test_a_file_becomes_the_models_that_it_was_written_from(name: str, tmp_path: Path) -> None:
    state, models = small(name)
    single = opened(state, tmp_path)
    assert single.family == ("sd2-v" if name == "sd2" else name)
    assert set(models) <= set(single.components)
    for part, model in models.items():
        again = rebuilt(single.components[part])
        assert {key: again.state_dict()[key].shape for key in again.state_dict()} == {
            key: model.state_dict()[key].shape for key in model.state_dict()
        }
        for key, tensor in model.state_dict().items():
            assert torch.equal(again.state_dict()[key], tensor), key
        assert torch.equal(answer(again), answer(model)), part


@pytest.mark.parametrize("name", SMALL)
def test_names_are_those_of_diffusers_own_conversion(name: str, tmp_path: Path) -> None:
    state, models = small(name)
    components = opened(state, tmp_path).components
    theirs = convert_ldm_unet_checkpoint(dict(state), models["unet"].config)
    assert same(components["unet"].state, theirs)
    if "vae" in models:
        assert same(components["vae"].state, convert_ldm_vae_checkpoint(dict(state), models["vae"].config))
    for prefix in ("cond_stage_model.model.", "conditioner.embedders.0.model.", "conditioner.embedders.1.model."):
        if prefix + "ln_final.weight" in state and "text_encoder_2" in models:
            width_of_theirs = models["text_encoder_2"]  # their split reads the projection's rows as the width
            theirs = convert_open_clip_checkpoint(width_of_theirs, dict(state), prefix)
            ours = components["text_encoder_2"].state
            assert same(ours, theirs)


def same(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def loaded(component: Component) -> Any:
    """Our own module from a component's configuration and weights."""
    module = build_module(component.config, "here")
    load_into(module, component.state, "here")
    return module


@pytest.mark.parametrize("name", SMALL)
def test_our_own_networks_of_it_answer_as_theirs(name: str, tmp_path: Path) -> None:
    state, models = small(name)
    components = opened(state, tmp_path).components
    theirs, config = models["unet"], models["unet"].config
    torch.manual_seed(5)
    x, text = torch.randn(2, config.in_channels, 8, 8), torch.randn(2, 5, config.cross_attention_dim)
    time, labels = torch.tensor([3, 800]), torch.tensor([1, 2]) if config.num_class_embeds else None
    told: dict[str, Any] = {"labels": labels, "text": text}
    added = None
    if config.addition_embed_type:
        count = (config.projection_class_embeddings_input_dim - 64) // config.addition_time_embed_dim
        told |= {"pooled": torch.randn(2, 64), "sizes": torch.randn(2, count)}
        added = {"text_embeds": told["pooled"], "time_ids": told["sizes"]}
    with torch.no_grad():
        expected = theirs(x, time, text, labels, added_cond_kwargs=added).sample
        given = {key: value for key, value in told.items() if value is not None}
        assert torch.allclose(loaded(components["unet"])(x, time, **given), expected, atol=1e-5)
        place = "vae" if "vae" in models else "vqvae"
        z = torch.randn(1, models[place].config.latent_channels, 4, 4)
        decoded = loaded(components[place]).decode(z)
        assert torch.allclose(decoded, models[place].decode(z).sample, atol=1e-5)


HALF = [320, 640, 1280, 1280]
FIRST_THREE = [True, True, True, False]
LAST_THREE = [False, True, True, True]
PUBLISHED: dict[str, dict[str, Any]] = {
    "sd1": {**unet_config(HALF, FIRST_THREE, cross_attention_dim=768, attention_head_dim=8), "sample_size": 64},
    "sd1-inpainting": {
        **unet_config(HALF, FIRST_THREE, cross_attention_dim=768, attention_head_dim=8, in_channels=9),
        "sample_size": 64,
    },
    "sd2-v": {
        **unet_config(
            HALF,
            FIRST_THREE,
            cross_attention_dim=1024,
            attention_head_dim=[5, 10, 20, 20],
            use_linear_projection=True,
            upcast_attention=True,
        ),
        "sample_size": 96,
    },
    "sd2-inpainting": {
        **unet_config(
            HALF,
            FIRST_THREE,
            cross_attention_dim=1024,
            attention_head_dim=[5, 10, 20, 20],
            use_linear_projection=True,
            in_channels=9,
        ),
        "sample_size": 64,
    },
    "x4-upscaler": {
        **unet_config(
            [256, 512, 512, 1024],
            LAST_THREE,
            cross_attention_dim=1024,
            attention_head_dim=8,
            use_linear_projection=True,
            only_cross_attention=[True, True, True, False],
            in_channels=7,
            num_class_embeds=1000,
        ),
        "sample_size": 128,
    },
    "sdxl": {
        **unet_config(
            [320, 640, 1280],
            [False, True, True],
            cross_attention_dim=2048,
            attention_head_dim=[5, 10, 20],
            transformer_layers_per_block=[1, 2, 10],
            projection_class_embeddings_input_dim=2816,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            use_linear_projection=True,
        ),
        "sample_size": 128,
    },
    "sdxl-refiner": {
        **unet_config(
            [384, 768, 1536, 1536],
            [False, True, True, False],
            cross_attention_dim=1280,
            attention_head_dim=[6, 12, 24, 24],
            transformer_layers_per_block=4,
            projection_class_embeddings_input_dim=2560,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            use_linear_projection=True,
        ),
        "sample_size": 128,
    },
    "ldm-classes": {
        **unet_config(
            [192, 384, 576, 960],
            LAST_THREE,
            cross_attention_dim=512,
            attention_head_dim=1,
            in_channels=3,
            out_channels=3,
        ),
        "sample_size": 64,
    },
}
THEIR_NAMES = {
    "sd1": "v1",
    "sd1-inpainting": "inpainting",
    "sd2-v": "v2",
    "sd2-inpainting": "inpainting_v2",
    "sdxl": "xl_base",
    "sdxl-refiner": "xl_refiner",
}
PUBLISHED_VAE: dict[str, Any] = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
LARGE = {"vocab_size": 49408, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
CLIP_H = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
}
CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
}
CLIP_G["projection_dim"] = 1280


def described(name: str) -> tuple[State, dict[str, Any]]:
    """The names and shapes of a family's first checkpoint at full size, and its published configurations."""
    unet = {**PUBLISHED[name], "layers_per_block": 2}
    configs: dict[str, Any] = {"unet": unet}
    with torch.device("meta"):
        state = original.unet(UNet2DConditionModel(**unet).state_dict(), [2] * len(unet["block_out_channels"]))
        if name == "ldm-classes":
            codes = {"num_vq_embeddings": 8192, "vq_embed_dim": 3, "latent_channels": 3, "layers_per_block": 2}
            shape = {"block_out_channels": [128, 256, 512], "down_block_types": ["DownEncoderBlock2D"] * 3}
            configs["vqvae"] = {**shape, "up_block_types": ["UpDecoderBlock2D"] * 3, **codes}
            vae: nn.Module = VQModel(**configs["vqvae"])
            state["cond_stage_model.embedding.weight"] = torch.empty(1001, 512)
        else:
            configs["vae"] = PUBLISHED_VAE
            if name == "x4-upscaler":
                shape = {"block_out_channels": [128, 256, 512], "down_block_types": ["DownEncoderBlock2D"] * 3}
                configs["vae"] = {**PUBLISHED_VAE, **shape, "up_block_types": ["UpDecoderBlock2D"] * 3}
            vae = AutoencoderKL(**configs["vae"])
        levels = len(configs.get("vae", configs.get("vqvae"))["block_out_channels"])
        state |= original.autoencoder(vae.state_dict(), levels)
        if name.startswith("sd1"):
            configs["text_encoder"] = {**LARGE, **CLIP_L}
            state |= original.clip(CLIPTextModel(CLIPTextConfig(**LARGE, **CLIP_L)).state_dict())
        elif name.startswith(("sd2", "x4")):
            configs["text_encoder"] = {**LARGE, **CLIP_H}
            encoder: nn.Module = CLIPTextModel(CLIPTextConfig(**LARGE, **CLIP_H))
            state |= original.open_clip(encoder.state_dict(), "cond_stage_model.model.", extra_layer=True)
        elif name.startswith("sdxl"):
            place = 0 if name == "sdxl-refiner" else 1
            configs["text_encoder_2"] = {**LARGE, **CLIP_G}
            encoder = CLIPTextModelWithProjection(CLIPTextConfig(**LARGE, **CLIP_G))
            state |= original.open_clip(
                encoder.state_dict(), f"conditioner.embedders.{place}.model.", extra_layer=False
            )
            if place:
                configs["text_encoder"] = {**LARGE, **CLIP_L}
                encoder = CLIPTextModel(CLIPTextConfig(**LARGE, **CLIP_L))
                state |= original.clip(encoder.state_dict(), "conditioner.embedders.0.transformer.")
    return state, configs


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_at_full_size_the_derived_configurations_are_the_published_ones(name: str) -> None:
    state, configs = described(name)
    assert all(tensor.is_meta or tensor.numel() < 100 for tensor in state.values())
    if name in THEIR_NAMES:
        assert infer_diffusers_model_type(state) == THEIR_NAMES[name]
    single = from_checkpoint(Checkpoint(state, {}), Path("file.safetensors"))
    assert single.family == name
    assert single.pipeline == FAMILIES[name].pipeline
    for part, config in configs.items():
        derived = single.components[part].config
        assert {key: derived[key] for key in config} == config, part
        if part in ("unet", "vae", "vqvae"):
            kind = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "vqvae": VQModel}[part]
            with torch.device("meta"):
                theirs = kind.from_config(dict(derived)).config
                published = kind(**config).config
            differing = {key for key in published if theirs[key] != published[key] and not key.startswith("_")}
            assert differing <= {"sample_size", "scaling_factor", "transformer_layers_per_block"}


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.scheduler])
def test_the_scheduler_of_every_family_is_one_that_is_read_here_and_of_diffusers_fields(name: str) -> None:
    import diffusers

    scheduler = dict(FAMILIES[name].scheduler)
    read_scheduler(scheduler)
    kind = scheduler.pop("_class_name")
    getattr(diffusers, kind)(**scheduler)
    assert hasattr(diffusers, FAMILIES[name].pipeline) or name == "ldm-classes"


def sd2(folder: Path, notes: dict[str, Any], **settings: Any) -> SingleFile:
    state, _ = small("sd2")
    torch.save({"state_dict": state, **notes}, folder / "file.ckpt")
    return read_single_file(folder / "file.ckpt", **settings)


def prediction(single: SingleFile) -> Any:
    return single.components["scheduler"].config["prediction_type"]


def test_what_a_second_model_predicts_is_asked_then_read_then_assumed(tmp_path: Path) -> None:
    asked = sd2(tmp_path, {"global_step": 110_000}, prediction="eps")
    assert (asked.family, prediction(asked), asked.assumed) == ("sd2-eps", "epsilon", ())
    assert asked.components["unet"].config["sample_size"] == 64
    read = sd2(tmp_path, {"global_step": 875_000})
    assert (read.family, prediction(read), read.assumed) == ("sd2-eps", "epsilon", ())
    assumed = sd2(tmp_path, {"global_step": 110_000})
    assert (assumed.family, prediction(assumed)) == ("sd2-v", "v_prediction")
    assert "v is assumed; say eps" in assumed.assumed[0]
    with pytest.raises(SettingError, match=r"'epz' is not a prediction\. Did you mean eps"):
        sd2(tmp_path, {}, prediction="epz")


def test_a_files_own_words_on_its_prediction_are_taken(tmp_path: Path) -> None:
    state, _ = small("sdxl")
    plain = opened(state, tmp_path)
    assert prediction(plain) == "epsilon"
    marked = opened({**state, "v_pred": torch.empty(0), "ztsnr": torch.empty(0)}, tmp_path)
    scheduler = dict(marked.components["scheduler"].config)
    assert (scheduler["prediction_type"], scheduler["rescale_betas_zero_snr"]) == ("v_prediction", True)
    save_file(state, tmp_path / "noted.safetensors", metadata={"modelspec.prediction_type": "v"})
    assert prediction(read_single_file(tmp_path / "noted.safetensors")) == "v_prediction"


def test_zero_snr_of_a_first_model_is_said_by_a_scheduler_that_can(tmp_path: Path) -> None:
    state, _ = small("sd1")
    marked = opened({**state, "v_pred": torch.empty(0), "ztsnr": torch.empty(0)}, tmp_path)
    read_scheduler(dict(marked.components["scheduler"].config))


def test_the_files_own_noise_schedule_wins(tmp_path: Path) -> None:
    state, _ = small("sd1")
    usual = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    same_table = opened({**state, "betas": usual.float()}, tmp_path)
    assert (same_table.assumed, "trained_betas" in same_table.components["scheduler"].config) == ((), False)
    other = opened({**state, "betas": torch.linspace(1e-4, 0.02, 500)}, tmp_path)
    scheduler = other.components["scheduler"].config
    assert scheduler["num_train_timesteps"] == len(scheduler["trained_betas"]) == 500
    assert "the file's is taken" in other.assumed[0]
    read_scheduler(dict(scheduler))


def test_averaged_weights_are_taken_when_asked_for(tmp_path: Path) -> None:
    state, models = small("sd1")
    flat = {
        f"model_ema.{name[6:].replace('.', '')}": tensor + 1 for name, tensor in state.items() if "diffusion" in name
    }
    flat["model_ema.decay"] = torch.tensor(0.9999)
    both = {**state, **flat}
    plain = opened(both, tmp_path)
    assert same(plain.components["unet"].state, models["unet"].state_dict())
    assert plain.ignored == ("model_ema",)
    averaged = opened(both, tmp_path, ema=True)
    assert same(averaged.components["unet"].state, convert_ldm_unet_checkpoint(both, models["unet"].config, True))
    assert torch.equal(averaged.components["unet"].state["conv_in.bias"], models["unet"].conv_in.bias + 1)
    with pytest.raises(SettingError, match="holds no averaged weights"):
        opened(state, tmp_path, ema=True)
    del both["model_ema.diffusion_modeltime_embed0weight"]
    with pytest.raises(CheckpointError, match=r"averaged weights lack model_ema\.diffusion_modeltime_embed0weight"):
        opened(both, tmp_path, ema=True)


def test_what_a_file_lacks_and_what_of_it_is_not_used_is_said(tmp_path: Path) -> None:
    state, _ = small("sdxl")
    state |= {"denoiser.sigmas": torch.ones(3), "model_ema.decay": torch.ones(1)}
    single = opened(state, tmp_path)
    assert single.lacks == ("tokenizer", "tokenizer_2")
    assert single.ignored == ("denoiser", "model_ema")
    bare = {name: tensor for name, tensor in small("sd1")[0].items() if name.startswith("model.")}
    assert opened(bare, tmp_path).lacks == ("tokenizer", "text_encoder", "vae")


def leftovers(encoder: str, dtype: torch.dtype) -> State:
    """What training, merging and other programs leave in a model's file and nobody reads."""
    table = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    of_time = ("alphas_cumprod", "alphas_cumprod_prev", "log_one_minus_alphas_cumprod", "lvlb_weights", "logvar")
    of_time += ("sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod")
    of_time += ("sqrt_recipm1_alphas_cumprod", "posterior_variance", "posterior_log_variance_clipped")
    of_time += ("posterior_mean_coef1", "posterior_mean_coef2", "denoiser.sigmas", "denoiser.log_sigmas")
    return {
        **{name: torch.zeros(1000, dtype=dtype) for name in of_time},
        "betas": table.to(dtype),
        "model_ema.decay": torch.tensor(0.9999),
        "model_ema.num_updates": torch.tensor(470_000, dtype=torch.int32),
        "model_ema.diffusion_modelinput_blocks00weight": torch.zeros(3),
        "embedding_manager.string_to_param_dict.*": torch.zeros(1, 64),
        "first_stage_model.loss.logvar": torch.zeros(()),
        "first_stage_model.loss.discriminator.main.0.weight": torch.zeros(3),
        "first_stage_model.model_ema.decay": torch.zeros(()),
        f"{encoder}.logit_scale": torch.tensor(4.6),
        f"{encoder}.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["sd1", "sd1-inpainting", "sd2", "sdxl", "sdxl-refiner"])
def test_what_others_left_in_a_file_changes_nothing_of_it(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    state, _ = small(name)
    plain = opened(state, tmp_path)
    encoder = {"sdxl": "conditioner.embedders.0", "sdxl-refiner": "conditioner.embedders.0.model"}.get(name)
    encoder = encoder or ("cond_stage_model.model" if name == "sd2" else "cond_stage_model")
    state |= leftovers(encoder, dtype)
    if name in ("sd1", "sdxl"):
        state[f"{encoder}.transformer.text_projection.weight"] = torch.eye(64)
    again = opened(state, tmp_path)
    assert (again.family, again.assumed) == (plain.family, plain.assumed)
    for part, component in plain.components.items():
        assert again.components[part].config == component.config
        assert again.components[part].state.keys() == component.state.keys()
        assert all(torch.equal(again.components[part].state[key], value) for key, value in component.state.items())


def test_a_file_of_mixed_precision_is_built_in_one(tmp_path: Path) -> None:
    state, models = small("sd1")
    kinds = {"model.": torch.float16, "first_stage_model.": torch.float32, "cond_stage_model.": torch.bfloat16}
    for start, kind in kinds.items():
        state |= {key: value.to(kind) for key, value in state.items() if key.startswith(start) and "ids" not in key}
    single = opened(state, tmp_path)
    net = build_module(single.components["unet"].config, "the file")
    load_into(net, single.components["unet"].state, "the file", dtype=torch.float32)
    for key, value in models["unet"].state_dict().items():
        assert torch.equal(net.state_dict()[key], value.half().float())


def test_a_process_that_a_file_names_and_does_not_say_is_refused(tmp_path: Path) -> None:
    state, _ = small("sdxl")
    with pytest.raises(CheckpointError, match="is an EDM model"):
        opened({**state, "edm_mean": torch.zeros(1, 4, 1, 1), "edm_std": torch.ones(1, 4, 1, 1)}, tmp_path)


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        first = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU())
        self.net = nn.Sequential(first, nn.Dropout(), nn.Linear(4 * width, width))


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, 128, bias=False) for _ in range(3))
        self.to_out = nn.Linear(128, width)


class BertOfLatentDiffusion(nn.Module):
    """The modules of the original's TransformerWrapper, for their names."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.token_emb = nn.Embedding(50, width)
        self.pos_emb = nn.Module()
        self.pos_emb.emb = nn.Embedding(77, width)
        pairs = [pair for _ in range(layers) for pair in (Attention(width), FeedForward(width))]
        self.attn_layers = nn.Module()
        self.attn_layers.layers = nn.ModuleList(nn.ModuleList([nn.LayerNorm(width), part]) for part in pairs)
        self.norm = nn.LayerNorm(width)
        self.to_logits = nn.Linear(width, 50)


def test_the_first_text_to_image_model_has_diffusers_bert(tmp_path: Path) -> None:
    from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig
    from diffusers.pipelines.stable_diffusion.convert_from_ckpt import convert_ldm_bert_checkpoint

    torch.manual_seed(0)
    holder = nn.Module()
    holder.transformer = BertOfLatentDiffusion(64, 3)
    unet, vae = made(UNet2DConditionModel, SD1), made(AutoencoderKL, VAE)
    state = original.unet(unet.state_dict(), [1, 1]) | original.autoencoder(vae.state_dict(), 2)
    state |= original.prefixed("cond_stage_model.", holder.state_dict())
    single = opened(state, tmp_path)
    assert (single.family, single.pipeline) == ("ldm-text", "LDMTextToImagePipeline")
    bert = single.components["bert"]
    theirs = convert_ldm_bert_checkpoint(holder, LDMBertConfig(**bert.config))
    assert same(bert.state, theirs.state_dict())
    assert (bert.config["encoder_attention_heads"], bert.config["head_dim"]) == (2, 64)
    assert torch.equal(answer(rebuilt(single.components["unet"])), answer(unet))
    assert torch.equal(answer(rebuilt(single.components["vqvae"])), answer(vae))


@pytest.mark.parametrize("prefix", ["", "first_stage_model."])
def test_an_autoencoder_alone_is_read(prefix: str, tmp_path: Path) -> None:
    vae = made(AutoencoderKL, VAE)
    state = original.autoencoder(vae.state_dict(), 2, prefix) | {prefix + "loss.logvar": torch.ones(1)}
    single = opened(state, tmp_path)
    assert (single.family, single.pipeline, single.ignored) == ("vae", "AutoencoderKL", ("loss",))
    assert torch.equal(answer(rebuilt(single.components["vae"])), answer(vae))
    assert "0.18215 is assumed" in single.assumed[0]


TINY: dict[str, Any] = {
    "encoder_block_out_channels": [8, 8],
    "decoder_block_out_channels": [8, 8],
    "num_encoder_blocks": [1, 2],
    "num_decoder_blocks": [2, 1],
}


@pytest.mark.parametrize("prefix", ["", "taesd_"])
def test_a_taesd_in_one_file_is_read(prefix: str, tmp_path: Path) -> None:
    vae = made(AutoencoderTiny, TINY)
    single = opened(original.tiny(vae.state_dict(), lambda half, index: f"{prefix}{half}.{index}"), tmp_path)
    assert single.family == "taesd"
    assert torch.equal(answer(rebuilt(single.components["vae"])), answer(vae))
    full = made(AutoencoderTiny, {})
    theirs = opened(original.tiny(full.state_dict(), lambda half, index: f"{half}.{index}"), tmp_path).components["vae"]
    published = dict(full.config)
    assert {key: theirs.config[key] for key in theirs.config if key != "_class_name"} == {
        key: list(published[key]) if isinstance(published[key], tuple) else published[key]
        for key in theirs.config
        if key != "_class_name"
    }


def test_the_two_files_of_a_taesd_find_each_other(tmp_path: Path) -> None:
    vae = made(AutoencoderTiny, TINY)
    halves = original.tiny(vae.state_dict(), lambda half, index: f"{half}.{index}")
    for half in ("encoder", "decoder"):
        part = {name.removeprefix(f"{half}."): t for name, t in halves.items() if name.startswith(half)}
        save_file(part, tmp_path / f"taesd_{half}.safetensors")
    for half in ("encoder", "decoder"):
        single = read_single_file(tmp_path / f"taesd_{half}.safetensors")
        assert torch.equal(answer(rebuilt(single.components["vae"])), answer(vae))
    (tmp_path / "taesd_encoder.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"the other, taesd_encoder\.safetensors, is not beside it"):
        read_single_file(tmp_path / "taesd_decoder.safetensors")


DIT: dict[str, Any] = {
    "sample_size": 8,
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 64,
    "out_channels": 8,
    "num_embeds_ada_norm": 10,
}


@pytest.mark.parametrize("nested", [None, "ema"])
def test_a_dit_file_is_read(nested: str | None, tmp_path: Path) -> None:
    model = made(DiTTransformer2DModel, DIT)
    for index, block in enumerate(model.transformer_blocks):
        if index:  # the original has one embedder of the time and one of the label
            block.norm1.emb.load_state_dict(model.transformer_blocks[0].norm1.emb.state_dict())
    state = original.dit(model.state_dict(), torch.zeros(1, 16, 128))
    worse = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    torch.save({"model": worse, nested: state} if nested else state, tmp_path / "DiT.pt")
    single = read_single_file(tmp_path / "DiT.pt")
    assert (single.family, single.lacks) == ("dit", ("vae",))
    assert torch.equal(answer(rebuilt(single.components["transformer"])), answer(model))
    x, time, labels = torch.randn(2, 4, 8, 8), torch.tensor([3, 800]), torch.tensor([1, 2])
    with torch.no_grad():
        ours = loaded(single.components["transformer"])(x, time, labels)
        assert torch.allclose(ours, model(x, time, labels).sample, atol=1e-5)


def test_the_largest_dit_has_its_published_configuration() -> None:
    config = {**DIT, "sample_size": 32, "num_layers": 28, "num_attention_heads": 16, "attention_head_dim": 72}
    config["num_embeds_ada_norm"] = 1000
    with torch.device("meta"):
        state = original.dit(DiTTransformer2DModel(**config).state_dict(), torch.empty(1, 256, 1152))
    derived = from_checkpoint(Checkpoint(state, {}), Path("DiT.pt")).components["transformer"].config
    assert {key: derived[key] for key in config} == config


def without(state: State, part: str) -> State:
    return {name: tensor for name, tensor in state.items() if part not in name}


def with_more(state: State, name: str) -> State:
    return {**state, name: torch.ones(1)}


ONE = torch.ones(1)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"control_model.input_blocks.0.0.weight": ONE}, "is a ControlNet"),
        ({"double_blocks.0.img_attn.qkv.weight": ONE}, "is a Flux model"),
        ({"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": ONE}, "is a Stable Diffusion 3 model"),
        ({"lora_unet_down_blocks_0.lora_up.weight": ONE}, "is a LoRA, not a model; .* --lora"),
        ({"unet.down_blocks.0.lora_A.weight": ONE}, "is a LoRA, not a model; .* --lora"),
        ({"emb_params": ONE}, "is a textual inversion"),
        ({"down_blocks.0.resnets.0.conv1.weight": ONE}, "has diffusers' names: it belongs in a model's folder"),
        (
            {"nothing.known": ONE},
            "no checkpoint that is known here: it holds 1 tensors, the first of them nothing.known",
        ),
    ],
)
def test_what_is_no_model_is_called_by_its_name(state: State, said: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=said):
        opened(state, tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (
            "sd1",
            lambda s: with_more(s, "model.diffusion_model.motion.0.weight"),
            "U-Net holds motion.0.weight, which no",
        ),
        ("sd1", lambda s: with_more(s, "first_stage_model.encoder.more.weight"), "holds encoder.more.weight, which no"),
        ("sd2", lambda s: with_more(s, "cond_stage_model.model.visual.proj"), "holds visual.proj, which no OpenCLIP"),
        ("sd2", lambda s: without(s, "model.ln_final"), "text encoder lacks ln_final.weight"),
        ("sd1", lambda s: without(s, "diffusion_model.out.2"), r"lacks the tensor out\.2\.weight"),
        ("sd1", lambda s: without(s, "first_stage_model.encoder"), "has no encoder"),
        ("sdxl", lambda s: without(s, "conditioner"), "SDXL without its text encoders"),
        ("sdxl", lambda s: without(s, "embedders.1"), "second text encoder is missing"),
        (
            "sd1",
            lambda s: {**s, "model.diffusion_model.input_blocks.0.0.weight": torch.ones(32, 6, 3, 3)},
            "6 input channels, where its family has 4 or 9",
        ),
        ("sdxl", lambda s: without(s, "input_blocks.5.1.transformer_blocks.2."), "middle block is 3 transformers deep"),
    ],
)
def test_a_checkpoint_that_does_not_add_up_is_refused(name: str, change: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=said):
        opened(change(small(name)[0]), tmp_path)
