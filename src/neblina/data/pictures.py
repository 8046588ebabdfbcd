"""A set of pictures, whatever it was read from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from neblina.core.errors import DataError

Record = Mapping[str, Any]


class Pictures(Protocol):
    """Pictures of one size, with labels where the source has them.

    Attributes:
        shape: (C, H, W) of every picture.
        labels: class of each picture, shape (N,), int64, or None.
        label_names: name of each class, in label order.
        records: what a metadata.jsonl says of each picture, by name of the field ("text" is a caption), or None.
    """

    @property
    def shape(self) -> tuple[int, int, int]: ...
    @property
    def labels(self) -> Tensor | None: ...
    @property
    def label_names(self) -> tuple[str, ...]: ...
    @property
    def records(self) -> tuple[Record, ...] | None: ...
    def __len__(self) -> int: ...

    def read(self, numbers: Sequence[int]) -> Tensor:
        """The pictures of these numbers, uint8 of shape (B, C, H, W)."""
        ...


@dataclass(frozen=True)
class InMemory:
    """Pictures held as one tensor, uint8 of shape (N, C, H, W)."""

    pixels: Tensor
    labels: Tensor | None = None
    label_names: tuple[str, ...] = ()
    records: tuple[Record, ...] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, numbers: Sequence[int]) -> Tensor:
        # NumPy's indexing stays on this thread: the next batch is read while PyTorch's threads train on this one
        return torch.from_numpy(self.pixels.numpy()[list(numbers)])


@dataclass(frozen=True)
class Subset:
    """Some pictures of another set."""

    whole: Pictures
    numbers: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.whole.shape

    @cached_property
    def labels(self) -> Tensor | None:
        return None if self.whole.labels is None else self.whole.labels[list(self.numbers)]

    @property
    def label_names(self) -> tuple[str, ...]:
        return self.whole.label_names

    @property
    def records(self) -> tuple[Record, ...] | None:
        records = self.whole.records
        return None if records is None else tuple(records[number] for number in self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, numbers: Sequence[int]) -> Tensor:
        return self.whole.read([self.numbers[number] for number in numbers])


def inventory(pictures: Pictures) -> dict[str, Any]:
    """What tells a set from another without reading it, as JSON: count, shape, and how many there are of each class."""
    classes = None
    if pictures.labels is not None:
        counts = torch.bincount(pictures.labels, minlength=len(pictures.label_names)).tolist()
        classes = dict(zip(pictures.label_names, counts, strict=True))
    return {"count": len(pictures), "shape": list(pictures.shape), "classes": classes}


def checked_labels(labels: Sequence[int], classes: int, source: str) -> Tensor:
    """Labels as a tensor.

    Raises:
        DataError: a label outside 0 … classes − 1.
    """
    for number, label in enumerate(labels):
        if not 0 <= label < classes:
            raise DataError(f"{source}: label {label} of picture {number} is out of range 0 … {classes - 1}")
    return torch.tensor(labels, dtype=torch.int64)


def to_float(pixels: Tensor) -> Tensor:
    """uint8 pictures to float32 in [−1, 1]."""
    return pixels.float() / 127.5 - 1


def to_uint8(pictures: Tensor) -> Tensor:
    """Float pictures in [−1, 1] to uint8, rounded; what lies outside is clipped."""
    return ((pictures.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
