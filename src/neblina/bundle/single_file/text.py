"""The text encoders of an original checkpoint, in transformers' layout (and diffusers' LDMBert).

Stable Diffusion 1 and SDXL's first encoder are transformers' CLIP already; Stable Diffusion 2, SDXL's second and the
refiner's are OpenCLIP's, which keeps queries, keys and values in one matrix and its text projection transposed; the
first latent diffusion had a BERT-like encoder of its own. All have heads of 64 channels.
"""

import re
from collections.abc import Mapping
from itertools import count, takewhile
from typing import Any

from torch import Tensor

from neblina.core.errors import CheckpointError

_OPEN_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_OPEN_ENDS = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
_UNUSED = ("logit_scale", "position_ids", "attn_mask")  # ends of names: CLIP's for pictures, and what a code computes
_BERT_ENDS = {
    "token_emb.weight": "model.embed_tokens.weight",
    "pos_emb.emb.weight": "model.embed_positions.weight",
    "norm.weight": "model.layer_norm.weight",
    "norm.bias": "model.layer_norm.bias",
    "to_logits.weight": "to_logits.weight",
    "to_logits.bias": "to_logits.bias",
}
_BERT_ATTENTION = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
_BERT_FEED = {"net.0.0": "fc1", "net.2": "fc2"}


def read_clip(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the weights of transformers' CLIPTextModel.

    Args:
        state: as transformers names it, with or without `text_model.`.
    Raises:
        CheckpointError: a tensor that such an encoder has no place for, or one that it lacks.
    """
    new = {}
    for name, tensor in state.items():
        if not name.endswith((*_UNUSED, "text_projection.weight")):  # ComfyUI writes one for every CLIP
            new[name if name.startswith("text_model.") else f"text_model.{name}"] = tensor
    return _config("CLIPTextModel", "quick_gelu", new, projection=768), new


def read_open_clip(
    state: Mapping[str, Tensor], *, penultimate: bool, pooled: bool
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the weights of transformers' CLIPTextModel or CLIPTextModelWithProjection.

    Args:
        state: as OpenCLIP names it.
        penultimate: whether the model reads what the last layer but one says: the last is left out.
        pooled: whether it also reads the projection of the end of the text.
    Raises:
        CheckpointError: a tensor that such an encoder has no place for, or one that it lacks.
    """
    layers = sum(
        1 for _ in takewhile(lambda k: f"transformer.resblocks.{k}.ln_1.weight" in state, (k for k in count()))
    )
    width = _needed(state, "ln_final.weight").shape[0]
    cut = penultimate and not (layers == 23 and width == 1024)  # some files have Stable Diffusion 2's cut already
    left_out = f"transformer.resblocks.{layers - 1}." if cut else None
    new: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith(_UNUSED) or (left_out and name.startswith(left_out)):
            continue
        if name == "text_projection":
            if pooled:
                new["text_projection.weight"] = tensor.T.contiguous()
        elif name in _OPEN_ENDS:
            new[_OPEN_ENDS[name]] = tensor
        else:
            new |= _open_layer(name, tensor)
    kind = "CLIPTextModelWithProjection" if pooled else "CLIPTextModel"
    projection = _needed(new, "text_projection.weight").shape[0] if pooled else 512
    return _config(kind, "gelu", new, projection=projection), new


def read_bert(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the weights of diffusers' LDMBertModel.

    Args:
        state: without `cond_stage_model.transformer.`.
    Raises:
        CheckpointError: a tensor that such an encoder has no place for, or one that it lacks.
    """
    new = {}
    for name, tensor in state.items():
        new[_bert(name)] = tensor
    tokens = _needed(new, "model.embed_tokens.weight")
    config = {
        "architectures": ["LDMBertModel"],
        "model_type": "ldmbert",
        "vocab_size": tokens.shape[0],
        "max_position_embeddings": _needed(new, "model.embed_positions.weight").shape[0],
        "encoder_layers": sum(name.endswith(".fc1.weight") for name in new),
        "encoder_ffn_dim": _needed(new, "model.layers.0.fc1.weight").shape[0],
        "encoder_attention_heads": max(1, _needed(new, "model.layers.0.self_attn.q_proj.weight").shape[0] // 64),
        "head_dim": min(64, new["model.layers.0.self_attn.q_proj.weight"].shape[0]),
        "activation_function": "gelu",
        "d_model": tokens.shape[1],
        "pad_token_id": 0,
    }
    return config, new


def _open_layer(name: str, tensor: Tensor) -> dict[str, Tensor]:
    match = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)", name)
    if not match:
        raise CheckpointError(f"its text encoder holds {name}, which no OpenCLIP has")
    layer = f"text_model.encoder.layers.{match[1]}"
    if match[2] == "attn.in_proj":
        parts = zip("qkv", tensor.chunk(3), strict=True)
        return {f"{layer}.self_attn.{part}_proj.{match[3]}": rows for part, rows in parts}
    if match[2] not in _OPEN_LAYER:
        raise CheckpointError(f"its text encoder holds {name}, which no OpenCLIP has")
    return {f"{layer}.{_OPEN_LAYER[match[2]]}.{match[3]}": tensor}


def _bert(name: str) -> str:
    if name in _BERT_ENDS:
        return _BERT_ENDS[name]
    match = re.fullmatch(r"attn_layers\.layers\.(\d+)\.([01])\.(?:(.+)\.)?(weight|bias)", name)
    if match:
        layer, attends = f"model.layers.{int(match[1]) // 2}", int(match[1]) % 2 == 0
        if match[2] == "0" and not match[3]:
            return f"{layer}.{'self_attn_layer_norm' if attends else 'final_layer_norm'}.{match[4]}"
        if match[2] == "1" and attends and match[3] in _BERT_ATTENTION:
            return f"{layer}.self_attn.{_BERT_ATTENTION[match[3]]}.{match[4]}"
        if match[2] == "1" and not attends and match[3] in _BERT_FEED:
            return f"{layer}.{_BERT_FEED[match[3]]}.{match[4]}"
    raise CheckpointError(f"its text encoder holds {name}, which latent diffusion's BERT has not")


def _config(kind: str, activation: str, state: Mapping[str, Tensor], projection: int) -> dict[str, Any]:
    tokens = _needed(state, "text_model.embeddings.token_embedding.weight")
    return {
        "architectures": [kind],
        "model_type": "clip_text_model",
        "vocab_size": tokens.shape[0],
        "hidden_size": tokens.shape[1],
        "intermediate_size": _needed(state, "text_model.encoder.layers.0.mlp.fc1.weight").shape[0],
        "num_hidden_layers": sum(name.endswith(".mlp.fc1.weight") for name in state),
        "num_attention_heads": max(1, tokens.shape[1] // 64),
        "max_position_embeddings": _needed(state, "text_model.embeddings.position_embedding.weight").shape[0],
        "hidden_act": activation,
        "layer_norm_eps": 1e-5,
        "projection_dim": projection,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
    }


def _needed(state: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state:
        raise CheckpointError(f"its text encoder lacks {name}")
    return state[name]
