"""The first stage of an original checkpoint: KL and VQ autoencoders, and TAESD, in diffusers' layout.

The original counts the decoder's levels from the fine one (`decoder.up.0` is the last that runs), diffusers in the
order in which they run; its attention is of 1×1 convolutions where diffusers has linear layers.

Rombach et al. High-Resolution Image Synthesis with Latent Diffusion Models. CVPR 2022.
Ollin Boer Bohan. Tiny AutoEncoder for Stable Diffusion, 2023.
"""

import re
from collections.abc import Mapping
from itertools import count, takewhile
from typing import Any

from torch import Tensor

from neblina.core.errors import CheckpointError

_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_PLAIN = re.compile(r"(?:encoder\.|decoder\.)conv_(?:in|out)\.|(?:post_)?quant_conv\.|quantize\.embedding\.")
_NORM_OUT = re.compile(r"(encoder|decoder)\.norm_out\.(.+)")
_MIDDLE = re.compile(r"(encoder|decoder)\.mid\.(block|attn)_(\d+)\.(.+)")
_LEVEL = re.compile(r"(encoder\.down|decoder\.up)\.(\d+)\.(block|attn)\.(\d+)\.(.+)")
_RESAMPLE = re.compile(r"(encoder\.down|decoder\.up)\.(\d+)\.(?:down|up)sample\.(.+)")


def read_autoencoder(
    state: Mapping[str, Tensor], scaling: float, size: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the weights as diffusers' AutoencoderKL or VQModel has them.

    Args:
        state: under the original's names, without `first_stage_model.`.
        scaling: that makes its latents what the model diffuses.
        size: of the pictures.
    Raises:
        CheckpointError: a tensor that such a network has no place for, or one that it lacks.
    """
    blocks = [state[f"{name}.weight"] for name in _present(state, "encoder.down.{}.block.0.conv1")]
    if not blocks:
        raise CheckpointError("its autoencoder has no encoder; it cannot be read alone")
    levels = len(blocks)
    attentive = [f"encoder.down.{level}.attn.0.q.weight" in state for level in range(levels)]
    codes = state.get("quantize.embedding.weight")
    config: dict[str, Any] = {
        "_class_name": "AutoencoderKL" if codes is None else "VQModel",
        "sample_size": size,
        "in_channels": state["encoder.conv_in.weight"].shape[1],
        "out_channels": state["decoder.conv_out.weight"].shape[0],
        "down_block_types": ["AttnDownEncoderBlock2D" if own else "DownEncoderBlock2D" for own in attentive],
        "up_block_types": ["AttnUpDecoderBlock2D" if own else "UpDecoderBlock2D" for own in reversed(attentive)],
        "block_out_channels": [block.shape[0] for block in blocks],
        "layers_per_block": len(_present(state, "encoder.down.0.block.{}.conv1")),
        "act_fn": "silu",
        "latent_channels": state["decoder.conv_in.weight"].shape[1],
        "norm_num_groups": 32,
        "scaling_factor": scaling,
    }
    if codes is not None:
        config |= {"num_vq_embeddings": codes.shape[0], "vq_embed_dim": codes.shape[1]}
    else:
        config |= {
            "force_upcast": True,
            "use_quant_conv": "quant_conv.weight" in state,
            "use_post_quant_conv": "post_quant_conv.weight" in state,
        }
    return config, dict(_renamed(name, tensor, levels - 1) for name, tensor in state.items())


def _present(state: Mapping[str, Tensor], name: str) -> list[str]:
    return list(takewhile(lambda full: f"{full}.weight" in state, (name.format(index) for index in count())))


def _renamed(name: str, tensor: Tensor, last: int) -> tuple[str, Tensor]:
    if _PLAIN.match(name):
        return name, tensor
    if match := _NORM_OUT.fullmatch(name):
        return f"{match[1]}.conv_norm_out.{match[2]}", tensor
    if match := _MIDDLE.fullmatch(name):
        block = f"{match[1]}.mid_block"
        if match[2] == "attn":
            return _attention(f"{block}.attentions.{int(match[3]) - 1}", match[4], tensor)
        return f"{block}.resnets.{int(match[3]) - 1}.{_resnet(match[4])}", tensor
    if match := _LEVEL.fullmatch(name):
        block = _level(match[1], int(match[2]), last)
        if match[3] == "attn":
            return _attention(f"{block}.attentions.{match[4]}", match[5], tensor)
        return f"{block}.resnets.{match[4]}.{_resnet(match[5])}", tensor
    if match := _RESAMPLE.fullmatch(name):
        kind = "downsamplers" if match[1] == "encoder.down" else "upsamplers"
        return f"{_level(match[1], int(match[2]), last)}.{kind}.0.{match[3]}", tensor
    raise CheckpointError(f"its autoencoder holds {name}, which no such autoencoder has")


def _level(way: str, level: int, last: int) -> str:
    return f"encoder.down_blocks.{level}" if way == "encoder.down" else f"decoder.up_blocks.{last - level}"


def _resnet(name: str) -> str:
    return name.replace("nin_shortcut", "conv_shortcut")


def _attention(block: str, name: str, tensor: Tensor) -> tuple[str, Tensor]:
    part, _, kind = name.rpartition(".")
    if part not in _ATTENTION:
        raise CheckpointError(f"its autoencoder holds an attention's {name}, which none has")
    return f"{block}.{_ATTENTION[part]}.{kind}", tensor[:, :, 0, 0] if tensor.ndim == 4 else tensor


def read_tiny(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the weights as diffusers' AutoencoderTiny has them.

    Args:
        state: `encoder.<n>...` and `decoder.<n>...`, numbered as the original does, whose decoder begins with a clamp
            that diffusers has outside.
    Raises:
        CheckpointError: half of it is missing, or a tensor has no place.
    """
    new: dict[str, Tensor] = {}
    kinds: dict[str, dict[int, str]] = {"encoder": {}, "decoder": {}}
    for name, tensor in state.items():
        match = re.fullmatch(r"(encoder|decoder)\.(\d+)\.((?:conv\.\d+\.|skip\.)?(?:weight|bias))", name)
        if not match:
            raise CheckpointError(f"it holds {name}, which no TAESD has")
        index = int(match[2]) - (match[1] == "decoder")
        new[f"{match[1]}.layers.{index}.{match[3]}"] = tensor
        if match[3] != "bias":
            kinds[match[1]][index] = "conv" if match[3] == "weight" else "block"
    for half, layers in kinds.items():
        if not layers:
            raise CheckpointError(f"its {half} is missing")
    first, last = new["encoder.layers.0.weight"], new[f"encoder.layers.{max(kinds['encoder'])}.weight"]
    width, latents = first.shape[0], last.shape[0]
    encoder, decoder = (_runs(kinds[half]) for half in ("encoder", "decoder"))
    config = {
        "_class_name": "AutoencoderTiny",
        "in_channels": first.shape[1],
        "out_channels": new[f"decoder.layers.{max(kinds['decoder'])}.weight"].shape[0],
        "encoder_block_out_channels": [width] * len(encoder),
        "decoder_block_out_channels": [new["decoder.layers.0.weight"].shape[0]] * len(decoder),
        "act_fn": "relu",
        "latent_channels": latents,
        "upsampling_scaling_factor": 2,
        "num_encoder_blocks": encoder,
        "num_decoder_blocks": decoder,
        "latent_magnitude": 3,
        "latent_shift": 0.5,
        "force_upcast": False,
        "scaling_factor": 1.0,
    }
    return config, new


def _runs(layers: Mapping[int, str]) -> list[int]:
    """How many blocks follow every convolution but the last."""
    runs: list[int] = []
    for index in sorted(layers):
        if layers[index] == "conv":
            runs.append(0)
        else:
            runs[-1] += 1
    return runs[:-1]
