"""The U-Net of an original checkpoint: its configuration from the shapes, its names in diffusers' layout.

The original numbers its blocks in one row: `input_blocks.0.0` is the first convolution, then every level has its
residual blocks (`.0`, with a transformer as `.1`) and, but for the last, one block that halves the resolution
(`.0.op`); `output_blocks` go back up with one block more per level, the last of which doubles the resolution
(`.1.conv` or `.2.conv`). What shapes cannot say, the number of heads, is the family's.

Rombach et al. High-Resolution Image Synthesis with Latent Diffusion Models. CVPR 2022 (the layout).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from typing import Any

from torch import Tensor

from neblina.core.errors import CheckpointError

_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "middle_block.1": "mid_block.attentions.0",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}


@dataclass(frozen=True)
class _Level:
    """One resolution: channels, residual blocks, and its transformers' depth, and whether they only read the text."""

    channels: int
    resnets: int
    depth: int | None
    only_cross: bool


def module_names(resnets: Sequence[int], *, classes: bool = False) -> dict[str, str]:
    """The original's module paths and diffusers', of all that is named differently.

    Args:
        resnets: residual blocks of every level on the way down.
        classes: whether labels are embedded, rather than sizes and pooled text.
    """
    names = dict(_ENDS)
    label = "class_embedding" if classes else "add_embedding"
    names |= {"label_emb.0.0": f"{label}.linear_1", "label_emb.0.2": f"{label}.linear_2", "label_emb": label}
    blocks = {"middle_block.0": "mid_block.resnets.0", "middle_block.2": "mid_block.resnets.1"}
    place = count(1)
    for level, layers in enumerate(resnets):
        for layer in range(layers):
            index = next(place)
            blocks[f"input_blocks.{index}.0"] = f"down_blocks.{level}.resnets.{layer}"
            names[f"input_blocks.{index}.1"] = f"down_blocks.{level}.attentions.{layer}"
        if level + 1 < len(resnets):
            names[f"input_blocks.{next(place)}.0.op"] = f"down_blocks.{level}.downsamplers.0.conv"
    place = count(0)
    for level, layers in enumerate(reversed(resnets)):
        for layer in range(layers + 1):
            index = next(place)
            blocks[f"output_blocks.{index}.0"] = f"up_blocks.{level}.resnets.{layer}"
            names[f"output_blocks.{index}.1"] = f"up_blocks.{level}.attentions.{layer}"
            for last in (1, 2):
                names[f"output_blocks.{index}.{last}.conv"] = f"up_blocks.{level}.upsamplers.0.conv"
    for old, new in blocks.items():
        names |= {f"{old}.{inner}": f"{new}.{ours}" for inner, ours in _RESNET.items()}
    return names


def renamed(name: str, names: Mapping[str, str]) -> str | None:
    """`name` with the longest of its beginnings that `names` knows replaced; None if it knows none."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        known = names.get(".".join(parts[:end]))
        if known is not None:
            return ".".join([known, *parts[end:]])
    return None


def read_unet(state: Mapping[str, Tensor], heads: int | None, size: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the weights as diffusers' UNet2DConditionModel has them.

    Args:
        state: under the original's names, without `model.diffusion_model.`.
        heads: of every attention, None for one per 64 channels.
        size: of the pictures in latent cells.
    Raises:
        CheckpointError: a tensor that such a network has no place for, or blocks that diffusers cannot say.
    """
    levels = _levels(state)
    depths = [level.depth for level in levels]
    middle = _depth(state, "middle_block.1")
    filled = [depth or (middle if last else 1) for depth, last in _with_last(depths)]
    if filled[-1] != middle:
        raise CheckpointError(f"its middle block is {middle} transformers deep and its last level {filled[-1]}")
    used = {depth for depth in (*depths, middle) if depth}
    only_cross = [level.only_cross for level in levels]
    if any(only_cross):
        only_cross = [level.only_cross or level.depth is None for level in levels]
    channels = [level.channels for level in levels]
    resnets = [level.resnets for level in levels]
    labels = state.get("label_emb.weight")
    crossing = [level.depth is not None for level in levels]
    config = {
        "_class_name": "UNet2DConditionModel",
        "sample_size": size,
        "in_channels": state["input_blocks.0.0.weight"].shape[1],
        "out_channels": state["out.2.weight"].shape[0],
        "center_input_sample": False,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "down_block_types": ["CrossAttnDownBlock2D" if cross else "DownBlock2D" for cross in crossing],
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": ["CrossAttnUpBlock2D" if cross else "UpBlock2D" for cross in reversed(crossing)],
        "only_cross_attention": only_cross if any(only_cross) else False,
        "block_out_channels": channels,
        "layers_per_block": resnets[0] if len(set(resnets)) == 1 else resnets,
        "downsample_padding": 1,
        "mid_block_scale_factor": 1,
        "act_fn": "silu",
        "norm_num_groups": 32,
        "norm_eps": 1e-5,
        "cross_attention_dim": state["middle_block.1.transformer_blocks.0.attn2.to_k.weight"].shape[1],
        "transformer_layers_per_block": middle if len(used) == 1 else filled,
        "attention_head_dim": heads or [max(1, width // 64) for width in channels],
        "use_linear_projection": state["middle_block.1.proj_in.weight"].ndim == 2,
        "num_class_embeds": None if labels is None else labels.shape[0],
    }
    names = module_names(resnets, classes=labels is not None)
    new: dict[str, Tensor] = {}
    for name, tensor in state.items():
        ours = renamed(name, names)
        if ours is None:
            raise CheckpointError(f"its U-Net holds {name}, which no Stable Diffusion has")
        new[ours] = tensor
    return config, new


def _levels(state: Mapping[str, Tensor]) -> list[_Level]:
    levels, run = [], list[_Level]()
    for index in takewhile(lambda index: _has_block(state, index), count(1)):
        block = f"input_blocks.{index}"
        if f"{block}.0.op.weight" in state:
            levels.append(_joined(run))
            run = []
            continue
        if f"{block}.0.in_layers.2.weight" not in state:
            raise CheckpointError(f"its U-Net's {block}.0 is no residual block")
        if f"{block}.1.qkv.weight" in state:
            raise CheckpointError("its U-Net has attention that reads no condition; such a model is not read here")
        cross = state.get(f"{block}.1.transformer_blocks.0.attn1.to_k.weight")
        only = cross is not None and cross.shape[1] != cross.shape[0]
        depth = _depth(state, f"{block}.1")
        run.append(_Level(state[f"{block}.0.in_layers.2.weight"].shape[0], 1, depth or None, only))
    levels.append(_joined(run))
    if "middle_block.1.transformer_blocks.0.attn2.to_k.weight" not in state:
        raise CheckpointError("its U-Net has no transformer in the middle block; such a model is not read here")
    return levels


def _has_block(state: Mapping[str, Tensor], index: int) -> bool:
    return any(f"input_blocks.{index}.0.{part}.weight" in state for part in ("op", "in_layers.2"))


def _joined(run: Sequence[_Level]) -> _Level:
    if len(set(run)) != 1:
        raise CheckpointError("its U-Net's levels have blocks of unequal width or depth; such a model is not read here")
    return _Level(run[0].channels, len(run), run[0].depth, run[0].only_cross)


def _depth(state: Mapping[str, Tensor], block: str) -> int:
    return sum(1 for _ in takewhile(lambda k: f"{block}.transformer_blocks.{k}.norm1.weight" in state, count()))


def _with_last(items: Sequence[int | None]) -> list[tuple[int | None, bool]]:
    return [(item, index + 1 == len(items)) for index, item in enumerate(items)]
