"""How a U-Net is told a label: what each `class_embed_type` is made of, and what of the labels it reads, a row each."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neblina.nets.embeddings import TimeMLP


@dataclass(frozen=True)
class Room:
    """What an embedding of labels is built for.

    Attributes:
        channels: width of the time's embedding, to which it is added.
        rows: how many labels there are, where they are counted.
        waves: width of the waves that the time is told by.
        vector: width of a label, where labels are vectors.
        activation: between two layers that read waves.
    """

    channels: int
    rows: int = 0
    waves: int = 0
    vector: int = 0
    activation: type[nn.Module] = nn.SiLU


@dataclass(frozen=True)
class LabelKind:
    """A class_embed_type.

    Attributes:
        build: the module, which makes (B, channels).
        reads: labels of shape (B,) or (B, vector) as the module reads them, given the waves of the time and the
            network's type.
        vector: whether labels are vectors of projection_class_embeddings_input_dim.
    """

    build: Callable[[Room], nn.Module]
    reads: Callable[[Tensor, nn.Module, torch.dtype], Tensor]
    vector: bool = False


def _rows(labels: Tensor, waves: nn.Module, dtype: torch.dtype) -> Tensor:
    return labels


def _numbers(labels: Tensor, waves: nn.Module, dtype: torch.dtype) -> Tensor:
    out: Tensor = waves(labels).to(dtype)
    return out


def _vectors(labels: Tensor, waves: nn.Module, dtype: torch.dtype) -> Tensor:
    return labels.to(dtype)


LABELS: dict[str | None, LabelKind] = {
    None: LabelKind(lambda room: nn.Embedding(room.rows, room.channels), _rows),
    "timestep": LabelKind(lambda room: TimeMLP(room.waves, room.channels, room.activation), _numbers),
    "identity": LabelKind(lambda room: nn.Identity(), _vectors),
    "projection": LabelKind(lambda room: TimeMLP(room.vector, room.channels), _vectors, vector=True),
    "simple_projection": LabelKind(lambda room: nn.Linear(room.vector, room.channels), _vectors, vector=True),
}
