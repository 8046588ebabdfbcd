"""The original trainers' names of diffusers' small models: what a single-file checkpoint of them holds."""

import re
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

State = dict[str, Tensor]

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "class_embedding": "label_emb",
}


def prefixed(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {prefix + name: tensor.contiguous().clone() for name, tensor in state.items()}


def unet(state: Mapping[str, Tensor], layers: Sequence[int]) -> State:
    starts = [1 + sum(layers[:level]) + level for level in range(len(layers))]
    ups = list(reversed(layers))
    up_starts = [sum(ups[:level]) + level for level in range(len(ups))]
    crossing = {int(match[1]) for name in state if (match := re.match(r"up_blocks\.(\d+)\.attentions", name))}

    def down(match: re.Match[str]) -> str:
        level, kind, layer = int(match[1]), match[2], int(match[3])
        if kind == "downsamplers":
            return f"input_blocks.{starts[level] + layers[level]}.0.op." + match[4].removeprefix("conv.")
        return f"input_blocks.{starts[level] + layer}.{'01'[kind == 'attentions']}." + match[4]

    def up(match: re.Match[str]) -> str:
        level, kind, layer = int(match[1]), match[2], int(match[3])
        if kind == "upsamplers":
            return f"output_blocks.{up_starts[level] + ups[level]}.{1 + (level in crossing)}." + match[4]
        return f"output_blocks.{up_starts[level] + layer}.{'01'[kind == 'attentions']}." + match[4]

    def name_of(name: str) -> str:
        for new, old in UNET_ENDS.items():
            if name.startswith(new + "."):
                return old + name.removeprefix(new)
        if ".resnets." in name:
            for new, old in RESNET.items():
                name = name.replace(f".{new}.", f".{old}.")
        name = re.sub(r"down_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", down, name)
        name = re.sub(r"up_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", up, name)
        name = name.replace("mid_block.attentions.0", "middle_block.1")
        return re.sub(r"mid_block\.resnets\.(\d)", lambda match: f"middle_block.{2 * int(match[1])}", name)

    return prefixed("model.diffusion_model.", {name_of(name): tensor for name, tensor in state.items()})


def autoencoder(state: Mapping[str, Tensor], levels: int, prefix: str = "first_stage_model.") -> State:
    new: State = {}
    attention = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    for name, tensor in state.items():
        if ".attentions." in name:
            for ours, old in attention.items():
                name = name.replace(f".{ours}.", f".{old}.")
            tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
        name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        name = name.replace("mid_block.attentions.0", "mid.attn_1")
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda match: f"mid.block_{int(match[1]) + 1}", name)
        name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0\.", r"down.\1.downsample.", name)
        name = re.sub(r"down_blocks\.(\d)\.resnets\.", r"down.\1.block.", name)
        for kind, old in (("upsamplers.0", "upsample"), ("resnets", "block")):

            def up(match: re.Match[str], old: str = old) -> str:
                return f"up.{levels - 1 - int(match[1])}.{old}."

            name = re.sub(rf"up_blocks\.(\d)\.{re.escape(kind)}\.", up, name)
        new[name] = tensor
    return prefixed(prefix, new)


def clip(state: Mapping[str, Tensor], prefix: str = "cond_stage_model.transformer.") -> State:
    plain = {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    rows = plain["embeddings.position_embedding.weight"].shape[0]
    return prefixed(prefix + "text_model.", {**plain, "embeddings.position_ids": torch.arange(rows)[None]})


def open_clip(state: Mapping[str, Tensor], prefix: str, extra_layer: bool) -> State:
    plain = {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    new = {
        "token_embedding.weight": plain["embeddings.token_embedding.weight"],
        "positional_embedding": plain["embeddings.position_embedding.weight"],
        "ln_final.weight": plain["final_layer_norm.weight"],
        "ln_final.bias": plain["final_layer_norm.bias"],
        "logit_scale": torch.tensor(4.6),
    }
    width = plain["final_layer_norm.weight"].shape[0]
    new["text_projection"] = (
        plain["text_projection.weight"].T if "text_projection.weight" in plain else torch.eye(width)
    )
    parts = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    count = 1 + max(int(name.split(".")[2]) for name in plain if name.startswith("encoder.layers."))
    for layer in range(count):
        old, block = f"encoder.layers.{layer}.", f"transformer.resblocks.{layer}."
        for kind in ("weight", "bias"):
            rows = [plain[f"{old}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            new[f"{block}attn.in_proj_{kind}"] = torch.cat(rows)
            new[f"{block}attn.out_proj.{kind}"] = plain[f"{old}self_attn.out_proj.{kind}"]
            for ours, theirs in parts.items():
                new[f"{block}{theirs}.{kind}"] = plain[f"{old}{ours}.{kind}"]
    if extra_layer:
        last = f"transformer.resblocks.{count - 1}."
        new |= {name.replace(last, f"transformer.resblocks.{count}."): t for name, t in new.items() if last in name}
    return prefixed(prefix, new)


def tiny(state: Mapping[str, Tensor], name: Callable[[str, int], str]) -> State:
    new: State = {}
    for full, tensor in state.items():
        half, _, index, rest = full.split(".", 3)
        new[name(half, int(index) + (half == "decoder")) + "." + rest] = tensor.clone()
    return new


def dit(state: Mapping[str, Tensor], positions: Tensor) -> State:
    block = {"norm1.linear": "adaLN_modulation.1", "attn1.to_out.0": "attn.proj", "ff.net.0.proj": "mlp.fc1"}
    block["ff.net.2"] = "mlp.fc2"
    new: State = {"pos_embed": positions}
    for name, tensor in state.items():
        part, kind = name.rsplit(".", 1)
        if part == "pos_embed.proj":
            new[f"x_embedder.proj.{kind}"] = tensor
        elif part.startswith("proj_out_"):
            new[f"final_layer.{'adaLN_modulation.1' if part[-1] == '1' else 'linear'}.{kind}"] = tensor
        elif ".emb." in part:
            old = part.split(".emb.")[1].replace("timestep_embedder.linear_1", "t_embedder.mlp.0")
            old = old.replace("timestep_embedder.linear_2", "t_embedder.mlp.2")
            new[f"{old.replace('class_embedder', 'y_embedder')}.{kind}"] = tensor
        elif part.startswith("transformer_blocks."):
            _, index, inner = part.split(".", 2)
            if inner in block:
                new[f"blocks.{index}.{block[inner]}.{kind}"] = tensor
            elif inner == "attn1.to_q":
                rows = [state[f"transformer_blocks.{index}.attn1.to_{which}.{kind}"] for which in "qkv"]
                new[f"blocks.{index}.attn.qkv.{kind}"] = torch.cat(rows)
    return prefixed("", new)
