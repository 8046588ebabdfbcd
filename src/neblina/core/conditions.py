"""What a sample is conditioned on."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

NULL_LABEL = -1


@dataclass(frozen=True)
class Condition:
    """Conditions of a batch; every field has the batch axis first, or is None where nothing is said.

    Attributes:
        labels: class of each sample, shape (B,), int64; NULL_LABEL (−1) says "no class": the network's own null.
    """

    labels: Tensor | None = None

    @property
    def structure(self) -> tuple[tuple[int, ...] | None, ...]:
        """Which fields are given, and their shapes: conditions of one structure can share a network call."""
        given = (getattr(self, field.name) for field in fields(self))
        return tuple(None if value is None else tuple(value.shape[1:]) for value in given)

    def take(self, rows: Tensor) -> "Condition":
        """The conditions of some rows, in the order given; rows of shape (N,)."""
        return Condition(labels=None if self.labels is None else self.labels[rows.to(self.labels.device)])

    def null(self) -> "Condition":
        """The same structure with nothing said."""
        return Condition(labels=None if self.labels is None else torch.full_like(self.labels, NULL_LABEL))


def concatenate(conditions: Sequence[Condition]) -> Condition:
    """Conditions of one structure, one after the other."""
    labels = [condition.labels for condition in conditions if condition.labels is not None]
    return Condition(labels=torch.cat(labels) if labels else None)
