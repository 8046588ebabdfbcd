"""A model of Stable Diffusion 1.5's size with random fp16 weights, as a folder and as a single file."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

UNET: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
VAE: dict[str, Any] = {
    "_class_name": "AutoencoderKL",
    "sample_size": 512,
    "latent_channels": 4,
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
}
SCHEDULER: dict[str, Any] = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
TINY_UNET: dict[str, Any] = {
    **UNET,
    "sample_size": 8,
    "block_out_channels": [32, 64],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "cross_attention_dim": 32,
}
TINY_VAE: dict[str, Any] = {
    **VAE,
    "sample_size": 16,
    "block_out_channels": [32, 32],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
}
TINY_TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = (77, 768)  # tokens and width of an encoded prompt


def write_model(folder: Path, unet: dict[str, Any] = UNET, vae: dict[str, Any] = VAE, **text: Any) -> None:
    """Write a pipeline's folder with random fp16 weights.

    Args:
        text: fields of transformers' CLIPTextConfig that differ from Stable Diffusion's.
    """
    from neblina.bundle.components import build_module, write_component
    from neblina.bundle.files import write_json

    for name, config in {"unet": unet, "vae": vae}.items():
        module = build_module(config, name)
        fill(module)
        write_component(module, folder / name)
    write_text(folder, **text)
    write_json(folder / "scheduler/scheduler_config.json", SCHEDULER)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
    }
    write_json(folder / "model_index.json", index)


def write_tiny_model(folder: Path) -> None:
    """Write a pipeline's folder that is as small as can be: pictures of 16x16."""
    write_model(folder, TINY_UNET, TINY_VAE, **TINY_TEXT)


def write_text(folder: Path, **text: Any) -> None:
    """Write `text_encoder` and `tokenizer`, whose vocabulary is letters; `text` as in `write_model`."""
    from transformers import CLIPTextConfig, CLIPTextModel

    from neblina.encoders.tokens import clip_tokenizer

    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    clip_tokenizer({token: number for number, token in enumerate(tokens)}, []).save(folder / "tokenizer")
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    ends = {"bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1}
    encoder = CLIPTextModel(CLIPTextConfig(**{**sizes, **ends, **text}))
    encoder.half().save_pretrained(folder / "text_encoder")


def write_single_file(folder: Path, file: Path) -> None:
    """The same weights under the original trainer's names, in one file."""
    from safetensors.torch import save_file

    from neblina.bundle.weights import read_weights

    sys.path.append(str(Path(__file__).parents[1] / "tests/bundle"))
    import original_layout as original

    layers = UNET["layers_per_block"]
    state = original.unet(read_weights(folder / "unet"), [layers] * len(UNET["block_out_channels"]))
    state |= original.autoencoder(read_weights(folder / "vae"), len(VAE["block_out_channels"]))
    state |= original.clip(read_weights(folder / "text_encoder", "model"))
    save_file(state, file)


def fill(module: nn.Module) -> None:
    """Weights that keep what goes through at its size, fp16; of a module whose parameters are empty."""
    for name, parameter in list(module.named_parameters()):
        owner, _, last = name.rpartition(".")
        if parameter.ndim == 1:
            value = torch.full(parameter.shape, float(last == "weight"))
        else:
            bound = (3 / parameter[0].numel()) ** 0.5
            value = torch.empty(parameter.shape).uniform_(-bound, bound)
        setattr(module.get_submodule(owner), last, nn.Parameter(value.half(), requires_grad=False))


@contextmanager
def model_folder(given: Path | None) -> Iterator[Path]:
    """The folder of the model: `given`, written if it is not there yet, or one that is gone afterwards."""
    with TemporaryDirectory() as place:
        folder = given or Path(place) / "model"
        if not (folder / "model_index.json").exists():
            torch.manual_seed(0)
            write_model(folder)
        yield folder
