"""A LoRA file: for some layers of a model, a change of low rank, W + s·(α/r)·up·down.

Three layouts are in use. kohya's trainer writes a layer's path with underscores (`lora_unet_down_blocks_0_..._to_q`),
and `lora_down`, `lora_up` and `alpha` behind it, of SDXL's network in the original's block names; PEFT writes paths
with dots, `lora_A` and `lora_B`, and α in the file's metadata; diffusers before PEFT wrote `lora.down` and `lora.up`
or the attention's `processor.to_q_lora.down`. The layout is told key by key.

Hu et al. LoRA: Low-Rank Adaptation of Large Language Models. ICLR 2022, eq. 3.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

from torch import Tensor

from neblina.bundle.single_file.checkpoint import read_checkpoint
from neblina.core.errors import CheckpointError
from neblina.core.tensors import check_floating

FILE = "pytorch_lora_weights.safetensors"  # in folders that diffusers writes
_FLAT = {
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_transformer_": "transformer",
}
_DOTTED = ("unet", "text_encoder", "text_encoder_2", "transformer")
_LAYOUTS = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?P<module>.+)\.lora_(?P<part>down|up|mid)\.weight",
        r"(?P<module>.+)\.lora_(?P<part>A|B)(?:\.[^.]+)?\.weight",
        r"(?P<module>.+)\.(?:lora|lora_linear_layer)\.(?P<part>down|up)\.weight",
        r"(?P<module>.+_lora)\.(?P<part>down|up)\.weight",
        r"(?P<module>.+)\.(?P<part>alpha)",
    )
)
_PARTS = {"A": "down", "B": "up"}
_PROCESSOR = re.compile(r"(.+?)(?:\.processor)?\.to_(q|k|v|out)_lora")
_OTHERS = {
    "dora_scale": "a DoRA",
    "lora_magnitude_vector": "a DoRA",
    "hada_w": "a LoHa (LyCORIS)",
    "hada_t": "a LoHa (LyCORIS)",
    "lokr_w": "a LoKr (LyCORIS)",
    "lokr_t": "a LoKr (LyCORIS)",
    "oft_": "an OFT (LyCORIS)",
    "on_input": "an IA³ (LyCORIS)",
    ".diff": "a full difference (LyCORIS)",
    ".w_norm": "a change of norms (LyCORIS)",
    "lora_B.bias": "a LoRA with biases",
    "bundle_emb": "a LoRA with new words (pivotal tuning)",
}


@dataclass(frozen=True)
class Update:
    """The change of one layer.

    Attributes:
        component: of the model, such as "unet"; None if the file does not say.
        module: the layer's path, with underscores instead of dots if `flat`.
        flat: whether it has.
        down: (r, in) or (r, in, height, width).
        up: (out, r), or with two axes of length 1 behind.
        mid: (r, r, height, width) between them, of a convolution whose `down` is 1×1; None for none.
        factor: α/r, or what the file says instead.
        key: in the file, for messages.
    """

    component: str | None
    module: str
    flat: bool
    down: Tensor
    up: Tensor
    mid: Tensor | None
    factor: float
    key: str


@dataclass(frozen=True)
class Lora:
    """A LoRA file.

    Attributes:
        name: the file's, in messages.
        updates: of its layers.
    """

    name: str
    updates: tuple[Update, ...]


def read_lora(place: Path) -> Lora:
    """Read a LoRA file, or the folder that diffusers saved one in.

    Raises:
        CheckpointError: missing, cut short, of a kind that is not a plain LoRA (DoRA, LoHa, LoKr, ...: said by name),
            or with a key that no layout has.
    """
    place = place / FILE if place.is_dir() else place
    checkpoint = read_checkpoint(place)
    for part, said in _OTHERS.items():
        if any(_names(key, part) for key in checkpoint.state):
            raise CheckpointError(f"{place} is {said}, which is not read here; plain LoRA is")
    layers: dict[str, dict[str, Tensor]] = {}
    keys: dict[str, str] = {}
    for key, tensor in checkpoint.state.items():
        module, part = _parsed(key, place)
        if part in layers.setdefault(module, {}):
            raise CheckpointError(f"{place} says {part} of {module} twice")
        if part != "alpha":
            check_floating(key, tensor, str(place))
        if not bool(tensor.isfinite().all()):
            raise CheckpointError(f"{place}: {key} holds values that are not finite")
        layers[module][part] = tensor
        keys.setdefault(module, key)
    if not layers:
        raise CheckpointError(f"{place} holds no LoRA: it has no tensors")
    told = _told(checkpoint.notes.get("lora_adapter_metadata"), place)
    return Lora(place.name, tuple(_update(name, layers[name], keys[name], told, place) for name in layers))


def _parsed(key: str, place: Path) -> tuple[str, str]:
    """The layer that a key is of, without the old layout's detours, and which part it is."""
    for layout in _LAYOUTS:
        match = layout.fullmatch(key)
        if match:
            module, part = match["module"], match["part"]
            old = _PROCESSOR.fullmatch(module)
            if old:
                module = f"{old[1]}.{_attention(old[1], old[2])}"
            return module, _PARTS.get(part, part)
    raise CheckpointError(f"{place} holds {key}, which no LoRA layout has")


def _attention(block: str, kind: str) -> str:
    if block.endswith("self_attn"):  # a text encoder's
        return f"{kind}_proj"
    return "to_out.0" if kind == "out" else f"to_{kind}"


def _update(name: str, parts: Mapping[str, Tensor], key: str, told: Mapping[str, Any], place: Path) -> Update:
    for needed in ("down", "up"):
        if needed not in parts:
            raise CheckpointError(f"{place} says nothing of the {needed} half of {name} (it holds {key})")
    down, up, mid, alpha = parts["down"], parts["up"], parts.get("mid"), parts.get("alpha")
    rank = down.shape[0]
    if down.ndim < 2 or up.ndim < 2 or up.shape[1] != rank or up.shape[2:].numel() != 1:
        raise CheckpointError(
            f"{place}: the halves of {name}, of shapes {tuple(down.shape)} and {tuple(up.shape)}, do not fit each other"
        )
    if mid is not None and (mid.shape[:2] != (rank, rank) or down.shape[2:].numel() != 1):
        raise CheckpointError(f"{place}: the middle of {name}, of shape {tuple(mid.shape)}, does not fit its halves")
    component, module, flat = _located(name)
    if alpha is not None and alpha.numel() != 1:
        raise CheckpointError(f"{place}: the alpha of {name} is no number")
    factor = float(alpha) / rank if alpha is not None else _factor(told, component, module, rank)
    return Update(component, module, flat, down, up, mid, factor, key)


def _names(key: str, part: str) -> bool:
    """Whether a key is of a kind; `.diff` begins its last part, which a checkpoint's `.diffusion_model` is not."""
    return f".{key.rpartition('.')[2]}".startswith(part) if part.startswith(".") else part in key


def _located(name: str) -> tuple[str | None, str, bool]:
    """Component, path within it, and whether the path is written with underscores."""
    for prefix, component in _FLAT.items():
        if name.startswith(prefix):
            return component, name.removeprefix(prefix), True
    for component in _DOTTED:
        if name.startswith(component + "."):
            return component, name.removeprefix(component + "."), False
    return None, name.removeprefix("base_model.model."), False


def _told(metadata: Any, place: Path) -> Mapping[str, Any]:
    """What the metadata that PEFT's settings are kept in says."""
    try:
        told = json.loads(metadata) if metadata else {}
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{place}: its lora_adapter_metadata is damaged: {error}") from error
    if not isinstance(told, dict):
        raise CheckpointError(f"{place}: its lora_adapter_metadata is damaged: it holds no names and values")
    for key, value in told.items():
        if key.endswith("use_dora") and value:
            raise CheckpointError(f"{place} is a DoRA, which is not read here; plain LoRA is")
    return told


def _factor(told: Mapping[str, Any], component: str | None, module: str, rank: int) -> float:
    """α/r by the metadata, or α/√r where it was trained so; 1 where it says nothing."""
    alpha = told.get(f"{component}.lora_alpha")
    for pattern, own in (told.get(f"{component}.alpha_pattern") or {}).items():
        if re.fullmatch(rf"(?:.*\.)?(?:{pattern})", module):
            alpha = own
            break
    if alpha is None:
        return 1.0
    return float(alpha) / (sqrt(rank) if told.get(f"{component}.use_rslora") else rank)
