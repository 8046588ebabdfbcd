"""LoRA files added to a model's weights, all at once, and taken away exactly.

The new weights are W + Σ sᵢ·(αᵢ/rᵢ)·upᵢ·downᵢ, summed in float32 and rounded once. The old ones are not changed but
kept aside (those of a memory-mapped file take no memory), so taking away puts back the very same bits.
"""

import re
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from neblina.bundle.lora.read import Lora, Update
from neblina.bundle.single_file.unet import module_names
from neblina.core.errors import CheckpointError, SettingError
from neblina.core.tensors import is_finite

_READS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "SDXL", 1280: "SDXL's refiner"}
# of every changed weight that is alive, the mark of what changed it
_fused: MutableMapping[nn.Parameter, object] = WeakIdKeyDictionary()


@dataclass(frozen=True, eq=False)
class Fused:
    """What was added to a model.

    Attributes:
        touched: the layers, as component.path.
    """

    touched: tuple[str, ...]
    _kept: tuple[tuple[nn.Parameter, Tensor], ...] = field(repr=False)
    _mark: object = field(repr=False)

    def remove(self) -> None:
        """Put the weights back as they were, on the device and in the type they have now. Once is enough."""
        for parameter, kept in self._kept:
            if _fused.get(parameter) is self._mark:
                parameter.data = kept.to(parameter.device, parameter.dtype)
                del _fused[parameter]


@dataclass(frozen=True)
class _Layer:
    """A layer that an update can be of."""

    path: str
    weight: nn.Parameter


def fuse(components: Mapping[str, nn.Module], loras: Sequence[tuple[Lora, float]]) -> Fused:
    """Add LoRA files to a model's networks, in place; nothing is changed if one does not fit.

    Args:
        components: "unet", "text_encoder", "text_encoder_2", "transformer": those that the model has, with the
            ecosystem's parameter names.
        loras: files and how much of each: 0 is none, 1 what it was trained for; any number.
    Raises:
        CheckpointError: an update has no layer in the model, or another shape; which model it seems to be for; new
            weights that are not finite in the type that the model holds them in.
        SettingError: something is added to the model already, or an amount is not finite.
    """
    layers = {name: _layers(net) for name, net in components.items()}
    changes: dict[nn.Parameter, list[tuple[Update, float]]] = {}
    files: dict[nn.Parameter, dict[str, None]] = {}
    paths: dict[nn.Parameter, str] = {}
    for lora, amount in loras:
        if not torch.tensor(float(amount)).isfinite():
            raise SettingError(f"{lora.name} cannot be added {amount} times: that is not a finite number")
        for update in lora.updates:
            layer = _found(update, layers, lora)
            _check_shape(update, layer, lora)
            if layer.weight in _fused:
                raise SettingError("LoRA files are added to this model already: remove them, then add all in one go")
            paths[layer.weight] = layer.path
            if amount:
                changes.setdefault(layer.weight, []).append((update, amount))
                files.setdefault(layer.weight, {})[lora.name] = None
    added = {}
    for weight, parts in changes.items():
        added[weight] = _sum(weight.data, parts)
        if not is_finite(added[weight]):
            raise CheckpointError(
                f"with {' and '.join(files[weight])} added, {paths[weight]} has values that are not finite as "
                f"{str(weight.dtype).removeprefix('torch.')}: add less of it, load the model with --dtype fp32 or "
                "bf16, or check the file"
            )
    kept, mark = [], object()
    for weight, total in added.items():
        kept.append((weight, weight.data))
        weight.data = total
        _fused[weight] = mark
    return Fused(tuple(paths[weight] for weight in changes), tuple(kept), mark)


def _sum(old: Tensor, parts: Sequence[tuple[Update, float]]) -> Tensor:
    return sum((amount * _delta(update, old) for update, amount in parts), start=old.float()).to(old.dtype)


def _delta(update: Update, weight: Tensor) -> Tensor:
    down, up = (part.to(weight.device, torch.float32).flatten(1) for part in (update.down, update.up))
    if update.mid is not None:
        mid = update.mid.to(weight.device, torch.float32)
        return update.factor * torch.einsum("or,rskl,si->oikl", up, mid, down)
    return (update.factor * up @ down).reshape(weight.shape)


def _layers(net: nn.Module) -> dict[str, _Layer]:
    """Linear layers and convolutions by every path that a file may call them, with dots and with underscores."""
    modules = {name: module for name, module in net.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))}
    originals = _originals(modules)
    named = {}
    for name, module in modules.items():
        plain = name.removeprefix("text_model.")  # which transformers writes or not, by its version
        for path in (name, plain, f"text_model.{plain}", *_renamed(name, originals)):
            layer = _Layer(name, cast(nn.Parameter, module.weight))
            named[path] = layer
            named[path.replace(".", "_")] = layer
    return named


def _originals(modules: Mapping[str, nn.Module]) -> dict[str, list[str]]:
    """The original's paths of a U-Net's blocks, by diffusers'; kohya's SDXL files have them."""
    found = {match.groups() for name in modules if (match := re.match(r"down_blocks\.(\d+)\.resnets\.(\d+)", name))}
    levels = sorted({int(level) for level, _ in found})
    by_ours: dict[str, list[str]] = {}
    resnets = [sum(1 for level, _ in found if int(level) == each) for each in levels]
    for original, ours in (module_names(resnets) if levels else {}).items():
        by_ours.setdefault(ours, []).append(original)
    return by_ours


def _renamed(name: str, originals: Mapping[str, list[str]]) -> list[str]:
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        known = originals.get(".".join(parts[:end]))
        if known:
            return [".".join([original, *parts[end:]]) for original in known]
    return []


def _found(update: Update, layers: Mapping[str, Mapping[str, _Layer]], lora: Lora) -> _Layer:
    if update.component is not None and update.component not in layers:
        raise CheckpointError(
            f"{lora.name} holds {update.key}, of the {update.component}, which this model has not{_seems(lora)}"
        )
    places = list(layers) if update.component is None else [update.component]
    for place in places:
        layer = layers[place].get(update.module)
        if layer is not None:
            return _Layer(f"{place}.{layer.path}", layer.weight)
    raise CheckpointError(f"{lora.name} holds {update.key}, for which this model has no layer{_seems(lora)}")


def _check_shape(update: Update, layer: _Layer, lora: Lora) -> None:
    rows, columns = update.up.shape[0], update.down[0].numel()
    shape = tuple(layer.weight.shape)
    if update.mid is not None:
        fits = shape == (rows, columns, *update.mid.shape[2:])
    else:
        kernel = update.down.shape[2:].numel()
        whole = kernel == 1 or tuple(update.down.shape[2:]) == shape[2:]
        fits = (rows, columns) == (shape[0], layer.weight[0].numel()) and whole
    if not fits:
        raise CheckpointError(
            f"{lora.name} changes {layer.path} by halves of shapes {tuple(update.down.shape)} and "
            f"{tuple(update.up.shape)}, which do not make its {shape}{_seems(lora)}"
        )


def _seems(lora: Lora) -> str:
    """Which family a file is for, as the end of a sentence: by the width of the text that its layers read."""
    paths = [update.module for update in lora.updates]
    if any("double_blocks" in path or "single_transformer_blocks" in path for path in paths):
        return "; it seems to be for Flux"
    for update in lora.updates:
        if re.search(r"attn2[._]to_[kv]$", update.module):
            width = update.down.shape[1]
            return f"; it seems to be for {_READS.get(width, f'a model whose text is {width} wide')}"
    if any(update.component == "text_encoder_2" for update in lora.updates):
        return "; it seems to be for SDXL"
    return ""
