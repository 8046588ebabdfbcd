"""Weights on disk: one file or shards with an index, in a precision of their own ("variant"), never unpickled.

A component's folder holds `<stem>.safetensors`, or shards and `<stem>.safetensors.index.json`, whose `weight_map` says
which shard holds which tensor; a variant is put before the last suffix (`<stem>.fp16.safetensors`,
`<stem>.safetensors.index.fp16.json`). Safetensors are mapped, not read: a tensor takes memory when it is used or
changed. `.bin` files, which older folders have, are read by torch's tensors-only unpickler.
"""

import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from threading import get_ident
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from neblina.bundle.files import read_json
from neblina.core.errors import CheckpointError
from neblina.core.tensors import check_floating, is_finite

STEM = "diffusion_pytorch_model"
WEIGHTS = f"{STEM}.safetensors"
_PICKLED_STEMS = {"model": "pytorch_model"}  # transformers' two names of the same weights
_OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


def load_weights(
    net: nn.Module,
    folder: Path,
    *,
    stem: str = STEM,
    variant: str | None = None,
    dtype: torch.dtype | None = torch.float32,
    device: torch.device | str = "cpu",
) -> None:
    """Load the weights of a component's folder into a network that was built from its configuration.

    Args:
        net: may be built inside `empty_parameters`.
        stem: of the file names; "model" for what transformers writes.
        variant: such as "fp16", None for the plain files.
        dtype: of floating weights in the network, None for the file's own.
        device: where the weights go.
    Raises:
        CheckpointError: no weights, cut short, or not of this network.
    """
    own = net.state_dict()
    state = {}
    for name, tensor in read_weights(folder, stem, variant).items():
        state[name if name in own else _new_attention(name)] = tensor
    load_into(net, state, str(folder), dtype=dtype, device=device)


def read_weights(
    folder: Path, stem: str = STEM, variant: str | None = None, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """The tensors of a folder by name; those of safetensors are mapped from the disk.

    Args:
        stem: of the file names; "model" also reads `pytorch_model.bin`.
        variant: such as "fp16", None for the plain files.
        dtype: of floating tensors, None for the file's own (which copies nothing).
    Raises:
        CheckpointError: no weights or no such variant, a file cut short, an index that contradicts its shards or points
            out of the folder, a file that is not what its name says.
    """
    place = _place(folder, stem, variant)
    if place is None:
        raise _missing(folder, stem, variant)
    if place.suffix == ".json":
        return _cast(_read_shards(place, "safetensors" if ".safetensors" in place.name else "bin"), dtype)
    return _cast(read_tensors(place), dtype)


def has_weights(folder: Path, stem: str = STEM, variant: str | None = None) -> bool:
    """Whether a folder holds weights of a variant, in one file or with an index."""
    return _place(folder, stem, variant) is not None


def read_tensors(place: Path) -> dict[str, Tensor]:
    """The tensors of one `.safetensors` or tensors-only `.bin` file by name.

    Raises:
        CheckpointError: missing, cut short, or not what its name says.
    """
    try:
        return _read_safe(place) if place.suffix == ".safetensors" else _read_pickled(place)
    except FileNotFoundError as error:
        raise CheckpointError(f"{place} is missing") from error
    except (SafetensorError, OSError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{place} is damaged or cut short: {error}") from error


def load_into(
    net: nn.Module,
    state: Mapping[str, Tensor],
    where: str,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> None:
    """Make tensors the network's own, those of convolutions with the channels last.

    Others are not copied where they are already of this type and on this device.

    Args:
        net: its parameters may be empty (`empty_parameters`).
        state: exactly its parameters and persistent buffers, in their shapes.
        where: they come from, the beginning of the message.
        dtype: of floating tensors in the network, None for their own.
        device: where they go.
    Raises:
        CheckpointError: a tensor is lacking, has no place, is of another shape, quantised or not finite.
    """
    own = net.state_dict()
    placed = {}
    for name in [*own, *state]:
        if name not in state:
            raise CheckpointError(f"{where}: the weights lack {name}, which the configuration asks for")
        if name not in own:
            raise CheckpointError(f"{where}: the weights hold {name}, which the configuration has no place for")
        if own[name].shape != state[name].shape:
            raise CheckpointError(
                f"{where}: {name} has shape {tuple(state[name].shape)} in the weights and "
                f"{tuple(own[name].shape)} by the configuration"
            )
    for name, tensor in state.items():
        if own[name].is_floating_point():
            check_floating(name, tensor, where)
        if not is_finite(tensor):
            raise CheckpointError(f"{where}: {name} holds values that are not finite")
        # convolutions are faster so, and codecs smaller; a second copy would leave holes in the memory
        layout = torch.channels_last if tensor.ndim == 4 else torch.preserve_format
        wanted = dtype if tensor.is_floating_point() and dtype is not None else tensor.dtype
        placed[name] = tensor.to(device, wanted, memory_format=layout)
        if dtype is torch.float16 and tensor.dtype is not dtype and not is_finite(placed[name]):
            raise CheckpointError(
                f"{where}: {name} holds values that float16 cannot say; open it in bfloat16 or float32"
            )
    net.load_state_dict(placed, assign=True)
    for name, buffer in net.named_buffers():
        if name not in placed and buffer.device != torch.device(device):  # those that files do not hold
            module, _, last = name.rpartition(".")
            net.get_submodule(module).register_buffer(last, buffer.to(device), persistent=False)


@contextmanager
def empty_parameters() -> Iterator[None]:
    """Networks that this thread builds inside have parameters without memory (torch's meta device) and real buffers.

    Nothing is initialised, and buffers that no file holds (`persistent=False`) are as their module computes them.
    """
    builder = get_ident()

    def empty(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or get_ident() != builder:
            return None  # as it is
        return nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)

    handle = register_module_parameter_registration_hook(cast(Callable[..., None], empty))  # torch's hint forgets it
    try:
        yield
    finally:
        handle.remove()


def _place(folder: Path, stem: str, variant: str | None) -> Path | None:
    """The file of the weights, or their index; safetensors before what was pickled."""
    for kind, base in (("safetensors", stem), ("bin", _PICKLED_STEMS.get(stem, stem))):
        single = _with_variant(f"{base}.{kind}", variant)
        for name in (single, _with_variant(f"{base}.{kind}.index.json", variant), f"{single}.index.json"):
            if (folder / name).exists():
                return folder / name
    return None


def _read_safe(place: Path) -> dict[str, Tensor]:
    _check_length(place)
    with safe_open(place, framework="pt", device="cpu") as file:
        names: list[str] = file.keys()
        return {name: file.get_tensor(name) for name in names}


def _check_length(place: Path) -> None:
    """Refuse a pickle or an archive under this name, and say how much of a file that was cut is there."""
    size = place.stat().st_size
    with place.open("rb") as file:
        start = file.read(9)
        disguised = "an archive" if start[:2] == b"PK" else "a pickle" if start[:1] == b"\x80" else None
        if disguised and start[8:] != b"{":
            raise CheckpointError(f"{place} is no safetensors file but {disguised}")
        file.seek(8)
        header = int.from_bytes(start[:8], "little")
        if size < 8 + header:
            raise CheckpointError(f"{place} is damaged or cut short: its {size:,} bytes end inside its header")
        try:
            entries = json.loads(file.read(header))
            end = max(
                (entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"), default=0
            )
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
            raise CheckpointError(f"{place} is damaged: its header cannot be read: {error}") from error
    if size != 8 + header + end:
        raise CheckpointError(f"{place} is damaged or cut short: it has {size:,} of {8 + header + end:,} bytes")


def _read_pickled(place: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(place, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(place))
    except UnpicklingError as error:
        raise CheckpointError(
            f"{place} is not opened: it is damaged, or holds more than tensors, which could run anything on "
            "this machine. Convert it to safetensors where you trust it."
        ) from error
    return only_tensors(state, place)


def only_tensors(state: Any, place: Path) -> dict[str, Tensor]:
    """`state` if it is tensors by name.

    Raises:
        CheckpointError: it is anything else.
    """
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{place} holds a {type(state).__name__} where tensors by name belong")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(f"{place} holds a {type(tensor).__name__} as {name!r} where a tensor belongs")
    return dict(state)


def _read_shards(index: Path, kind: str) -> dict[str, Tensor]:
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(shard, str) for shard in listed.values()):
        raise CheckpointError(f"{index} is damaged: its weight_map does not say which file holds which tensor")
    state: dict[str, Tensor] = {}
    for shard in sorted(set(listed.values())):
        if not re.fullmatch(rf"[^/\\\0]+\.{kind}", shard):
            raise CheckpointError(f"{index} names the shard {shard!r}, which is not a .{kind} file of this folder")
        place = index.parent / shard
        if not place.exists():
            raise CheckpointError(f"{index} names {shard}, which is not there")
        for name, tensor in read_tensors(place).items():
            if listed.get(name) != shard:
                raise CheckpointError(f"{place} holds {name}, which {index.name} does not list there")
            state[name] = tensor
    for name, shard in listed.items():
        if name not in state:
            raise CheckpointError(f"{index} lists {name} in {shard}, which does not hold it")
    return state


def _missing(folder: Path, stem: str, variant: str | None) -> CheckpointError:
    name = _with_variant(f"{stem}.safetensors", variant)
    there = sorted(file.name for file in folder.glob("*")) if folder.is_dir() else []
    shard = re.compile(rf"{re.escape(stem)}{re.escape(f'.{variant}') if variant else ''}-\d+-of-\d+\.")
    cut = next((file for file in there if shard.match(file)), None)
    if cut:
        index = _with_variant(f"{stem}.safetensors.index.json", variant)
        return CheckpointError(f"{folder} holds the shard {cut}, and its index, {index}, is missing")
    bases = "|".join(map(re.escape, {stem, _PICKLED_STEMS.get(stem, stem)}))
    named = re.compile(rf"(?:{bases})\.(?:(\w+)\.)?(?:safetensors|bin)|(?:{bases})\.\w+\.index\.(?:(\w+)\.)?json")
    found = [match for match in map(named.fullmatch, there) if match]
    variants = sorted({variant for match in found for variant in match.groups() if variant})
    plain = any(not any(match.groups()) for match in found)
    said = (
        f"there {'are the variants' if len(variants) > 1 else 'is the variant'} {', '.join(variants)}"
        if variants
        else ""
    )
    if variant is None:
        return CheckpointError(f"{folder} holds no weights: {name} is missing" + (f"; {said}" if said else ""))
    said = " and ".join(filter(None, [said, "there are plain weights, without a variant" if plain else ""]))
    return CheckpointError(f"{folder} holds no weights of the variant {variant!r}: {said or f'{name} is missing'}")


def _with_variant(name: str, variant: str | None) -> str:
    base, _, last = name.rpartition(".")
    return f"{base}.{variant}.{last}" if variant else name


def _new_attention(name: str) -> str:
    for old, new in _OLD_ATTENTION.items():
        name = name.replace(old, new)
    return name


def _cast(state: dict[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    if dtype is None:
        return state
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
