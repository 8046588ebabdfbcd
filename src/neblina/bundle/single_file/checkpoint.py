"""The tensors of a checkpoint file, whoever saved it: safetensors, or what `torch.save` writes, and nothing is run.

`torch.save` writes an archive: `data.pkl` says which tensors there are, `data/<key>` hold their storages, which are
mapped from the disk. Before torch 1.6 it wrote five pickles and the storages one behind the other, which are copied.
"""

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, TypeVar

import torch
from safetensors import safe_open
from torch import Tensor

from neblina.bundle.single_file.pickles import Described, Name, Stored, interpret
from neblina.bundle.weights import read_tensors
from neblina.core.errors import CheckpointError

_DAMAGED = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    KeyError,
    OSError,
    EOFError,
    ValueError,
    OverflowError,
)
_MAGIC = 0x1950A86A20F9469CFC6C  # of torch before 1.6
_TYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
_TENSORS = ("state_dict", "ema", "model")  # where trainers put the weights, the ones to sample with first


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        state: its tensors by name.
        notes: numbers and text beside them, such as "global_step" or a safetensors file's metadata.
    """

    state: Mapping[str, Tensor]
    notes: Mapping[str, Any]


def read_checkpoint(place: Path) -> Checkpoint:
    """Read the tensors of a `.safetensors`, `.ckpt`, `.pt`, `.pth` or `.bin` file; nothing in it is executed.

    Raises:
        CheckpointError: missing, cut short, or it holds no tensors by name.
    """
    if place.suffix == ".safetensors" and place.is_file():
        state = read_tensors(place)
        with safe_open(place, framework="pt") as file:
            return Checkpoint(state, file.metadata() or {})
    return _taken(place, _tensors_of)


def read_parts(place: Path, *names: str) -> dict[str, dict[str, Tensor]]:
    """The tensors of several dictionaries in one file that `torch.save` wrote, such as "model" and "ema".

    Returns:
        By name of the dictionary, tensors by their names; nothing of those that the file has not.
    Raises:
        CheckpointError: missing, cut short, or no dictionary.
    """

    def take(content: Any, load: _Load) -> dict[str, dict[str, Tensor]]:
        if not isinstance(content, dict):
            raise CheckpointError("it holds no tensors by name")
        held = {name: content[name] for name in names if isinstance(content.get(name), dict)}
        return {
            name: {str(key): load(value) for key, value in part.items() if isinstance(value, Described)}
            for name, part in held.items()
        }

    return _taken(place, take)


def read_tensor(place: Path) -> Tensor:
    """The one tensor of a file that `torch.save` wrote of it.

    Raises:
        CheckpointError: missing, cut short, or something else.
    """

    def take(content: Any, load: _Load) -> Tensor:
        if not isinstance(content, Described):
            raise CheckpointError("it is not one tensor")
        return load(content)

    return _taken(place, take)


_Load = Callable[[Described], Tensor]
_Taken = TypeVar("_Taken")


def _taken(place: Path, take: Callable[[Any, _Load], _Taken]) -> _Taken:
    """What `take` makes of a file's content, read without running anything."""
    if not place.is_file():
        raise CheckpointError(f"{place} is missing")
    _check_beginning(place)
    try:
        return take(*(_archive(place) if zipfile.is_zipfile(place) else _legacy(place)))
    except _DAMAGED as error:
        raise CheckpointError(f"{place} is damaged or cut short: {error}") from error
    except CheckpointError as error:
        raise CheckpointError(f"{place} cannot be read: {error}") from error


def _check_beginning(place: Path) -> None:
    """Refuse a file that begins as nothing that torch writes: a picture, a text, another format."""
    with place.open("rb") as file:
        start = file.read(9)
    if not start:
        raise CheckpointError(f"{place} is empty (0 bytes)")
    if start[8:] == b"{":
        raise CheckpointError(f"{place} is a safetensors file: give it that suffix")
    if start[:1] != b"\x80" and start[:2] != b"PK":
        raise CheckpointError(
            f"{place} is no checkpoint: a .ckpt, .pt, .pth or .bin file begins as an archive or a pickle, and this one "
            f"with {start!r}. Give a model's folder, its .safetensors or its checkpoint."
        )


def _tensors_of(content: Any, load: _Load) -> Checkpoint:
    if not isinstance(content, dict):
        raise CheckpointError("it holds no tensors by name")
    held = next((content[key] for key in _TENSORS if isinstance(content.get(key), dict)), content)
    state = {name: load(value) for name, value in held.items() if isinstance(value, Described)}
    if not state or not all(isinstance(name, str) for name in state):
        raise CheckpointError("it holds no tensors by name")
    plain = (int, float, str, bool)
    return Checkpoint(state, {name: value for name, value in content.items() if isinstance(value, plain)})


def _archive(place: Path) -> tuple[Any, _Load]:
    with zipfile.ZipFile(place) as archive:
        records = {record.filename: record for record in archive.infolist()}
        pickles = [name for name in records if name.endswith("data.pkl") and name.count("/") <= 1]
        if len(pickles) != 1:
            raise CheckpointError("it is an archive of something else than tensors (there is no data.pkl)")
        if any(record.compress_type != zipfile.ZIP_STORED for record in records.values()):
            raise CheckpointError("it is a compressed archive, which torch does not write")
        folder = pickles[0].removesuffix("data.pkl")
        content = interpret(BytesIO(archive.read(pickles[0])))
        order = folder + "byteorder"
        if order in records and archive.read(order) != b"little":
            raise CheckpointError("its numbers are big-endian")
    size = place.stat().st_size
    whole = torch.UntypedStorage.from_file(str(place), False, size)
    starts: dict[str, int] = {}

    def load(tensor: Described) -> Tensor:
        key, dtype, _ = _identity(tensor)
        record = records[f"{folder}data/{key}"]
        if key not in starts:
            starts[key] = _start(place, record)
        if starts[key] + record.file_size > size:
            raise CheckpointError(f"the storage {key} ends behind the file")
        storage = whole[starts[key] : starts[key] + record.file_size]
        return _view(storage, tensor, dtype)

    return content, load


def _start(place: Path, record: zipfile.ZipInfo) -> int:
    """Where a record's bytes begin: behind a header whose length is known only there."""
    with place.open("rb") as file:
        file.seek(record.header_offset)
        header = file.read(30)
    if header[:4] != b"PK\3\4" or len(header) < 30:
        raise CheckpointError(f"the archive's directory is wrong about {record.filename}")
    return record.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")


def _legacy(place: Path) -> tuple[Any, _Load]:
    with place.open("rb") as file:
        if interpret(file) != _MAGIC:
            raise CheckpointError("it is no file that torch wrote")
        _, system, content, keys = (interpret(file) for _ in range(4))
        if isinstance(system, dict) and not system.get("little_endian", True):
            raise CheckpointError("its numbers are big-endian")
        if not isinstance(keys, list):
            raise CheckpointError("it does not say which storages it holds")
        sizes = {identity[2]: _width(identity) for identity in _storages(content)}
        storages = {key: _storage(file, sizes[key]) for key in keys}

    def load(tensor: Described) -> Tensor:
        key, dtype, view = _identity(tensor)
        if view is not None:
            raise CheckpointError("it holds views of storages, which torch has not written since 0.4")
        return _view(storages[key], tensor, dtype)

    return content, load


def _storage(file: IO[bytes], width: int) -> torch.UntypedStorage:
    length = int.from_bytes(file.read(8), "little", signed=True) * width
    here = file.tell()
    left = file.seek(0, 2) - here
    file.seek(here)
    if not 0 <= length <= left:
        raise CheckpointError("a storage ends behind the file")
    data = bytearray(file.read(length))
    content = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
    return content.untyped_storage()


def _storages(content: Any) -> list[tuple[Any, ...]]:
    """The identities of all storages in nested dictionaries, lists and tuples."""
    found, left, seen = [], [content], set()
    while left:
        item = left.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Described) and isinstance(item.storage, Stored):
            found.append(item.storage.identity)
        elif isinstance(item, dict):
            left.extend(item.values())
        elif isinstance(item, (list, tuple)):
            left.extend(item)
    return found


def _width(identity: tuple[Any, ...]) -> int:
    return _type(identity[1]).itemsize


def _type(named: Any) -> torch.dtype:
    if not isinstance(named, Name) or named.name not in _TYPES:
        raise CheckpointError(f"it holds numbers of an unknown type, {getattr(named, 'name', named)}")
    return _TYPES[named.name]


def _identity(tensor: Described) -> tuple[str, torch.dtype, Any]:
    """The key of a tensor's storage, its type, and what part of the storage it is (None: all)."""
    storage = tensor.storage
    if not isinstance(storage, Stored) or len(storage.identity) < 5 or storage.identity[0] != "storage":
        raise CheckpointError("it holds a tensor without numbers")
    dtype = _type(storage.identity[1])
    if isinstance(tensor.dtype, Name):
        named = getattr(torch, tensor.dtype.name, None)
        if not isinstance(named, torch.dtype):
            raise CheckpointError(f"it holds numbers of an unknown type, {tensor.dtype.name}")
        dtype = named
    return str(storage.identity[2]), dtype, storage.identity[5] if len(storage.identity) > 5 else None


def _view(storage: torch.UntypedStorage, tensor: Described, dtype: torch.dtype) -> Tensor:
    """A tensor in its storage; one that would read beyond it is refused."""
    offset, size, stride = tensor.offset, tensor.size, tensor.stride
    numbers = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride)
    if not numbers or not all(isinstance(number, int) and number >= 0 for number in (offset, *size, *stride)):
        raise CheckpointError("it holds a tensor without a shape")
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if 0 not in size and (last + 1) * dtype.itemsize > storage.nbytes():
        raise CheckpointError("it holds a tensor that is larger than its storage: it is cut short")
    return torch.empty(0, dtype=dtype).set_(storage, offset, size, stride) if 0 not in size else torch.empty(size)
