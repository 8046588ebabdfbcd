"""An original DiT file in the layout of diffusers' DiTTransformer2DModel.

diffusers keeps a timestep and a label embedder in every block, where the original has one of each; they are the same
tensors here.

Peebles, Xie. Scalable Diffusion Models with Transformers. ICCV 2023.
"""

import re
from collections.abc import Mapping
from math import isqrt
from typing import Any

from torch import Tensor

from neblina.core.errors import CheckpointError

_SHARED = {
    "t_embedder.mlp.0": "norm1.emb.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "norm1.emb.timestep_embedder.linear_2",
    "y_embedder.embedding_table": "norm1.emb.class_embedder.embedding_table",
}
_BLOCK = {
    "adaLN_modulation.1": "norm1.linear",
    "attn.proj": "attn1.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
}
_ENDS = {
    "x_embedder.proj": "pos_embed.proj",
    "final_layer.adaLN_modulation.1": "proj_out_1",
    "final_layer.linear": "proj_out_2",
}


def read_dit(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the weights as diffusers' DiTTransformer2DModel has them.

    Raises:
        CheckpointError: a tensor that such a network has no place for, or one that it lacks.
    """
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    new: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name != "pos_embed":  # sines and cosines, which the network makes itself
            new |= _renamed(name, tensor, depth)
    for needed in ("pos_embed", "x_embedder.proj.weight", "y_embedder.embedding_table.weight"):
        if needed not in state:
            raise CheckpointError(f"its transformer lacks {needed}")
    patches = state["x_embedder.proj.weight"]
    width, channels, patch, _ = patches.shape
    heads = 16 if width == 1152 else max(1, width // 64)  # of DiT-XL; the other sizes have heads of 64 channels
    config = {
        "_class_name": "DiTTransformer2DModel",
        "num_attention_heads": heads,
        "attention_head_dim": width // heads,
        "in_channels": channels,
        "out_channels": state["final_layer.linear.weight"].shape[0] // patch**2,
        "num_layers": depth,
        "dropout": 0.0,
        "norm_num_groups": 32,
        "attention_bias": True,
        "sample_size": isqrt(state["pos_embed"].shape[1]) * patch,
        "patch_size": patch,
        "activation_fn": "gelu-approximate",
        "num_embeds_ada_norm": state["y_embedder.embedding_table.weight"].shape[0] - 1,
        "upcast_attention": False,
        "norm_type": "ada_norm_zero",
        "norm_elementwise_affine": False,
        "norm_eps": 1e-5,
    }
    return config, new


def _renamed(name: str, tensor: Tensor, depth: int) -> dict[str, Tensor]:
    part, _, kind = name.rpartition(".")
    if part in _ENDS:
        return {f"{_ENDS[part]}.{kind}": tensor}
    if part in _SHARED:
        return {f"transformer_blocks.{block}.{_SHARED[part]}.{kind}": tensor for block in range(depth)}
    match = re.fullmatch(r"blocks\.(\d+)\.(.+)", part)
    if match and match[2] == "attn.qkv":
        rows = zip("qkv", tensor.chunk(3), strict=True)
        return {f"transformer_blocks.{match[1]}.attn1.to_{which}.{kind}": own for which, own in rows}
    if match and match[2] in _BLOCK:
        return {f"transformer_blocks.{match[1]}.{_BLOCK[match[2]]}.{kind}": tensor}
    raise CheckpointError(f"its transformer holds {name}, which no DiT has")
