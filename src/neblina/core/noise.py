"""Noise that belongs to a picture, not to a batch.

Draw d of picture k under seed s is a pure function of (s, k, d): the counter-based generator Philox keyed by
(s, k), with d in the high word of its counter. Batch size, sharding and the company a picture keeps cannot change
what a seed means.

Salmon et al. Parallel Random Numbers: As Easy as 1, 2, 3. SC 2011.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

_WORD = 2**64


class Noise(Protocol):
    """A source of standard normal noise: called with a batch, it returns fresh noise of the same shape."""

    def __call__(self, like: Tensor) -> Tensor: ...


def normal(seed: int, index: int, draw: int, shape: Sequence[int]) -> Tensor:
    """One standard normal draw, shape `shape`, float32 on the CPU."""
    generator = np.random.Philox(
        key=np.array([seed % _WORD, index % _WORD], dtype=np.uint64),
        counter=np.array([0, 0, 0, draw % _WORD], dtype=np.uint64),
    )
    return torch.from_numpy(np.random.Generator(generator).standard_normal(tuple(shape), dtype=np.float32))


@dataclass
class SampleNoise:
    """The noise of the pictures `indices` under one seed; every call is the next draw.

    Attributes:
        seed: any integer.
        indices: the number of each picture in the batch, length B.
        draw: how many draws have been made.
    """

    seed: int
    indices: Sequence[int]
    draw: int = 0

    def __call__(self, like: Tensor) -> Tensor:
        """Standard normal noise of like's shape (B, *), drawn in float32 on the CPU, then cast."""
        rows = [normal(self.seed, index, self.draw, like.shape[1:]) for index in self.indices]
        self.draw += 1
        return torch.stack(rows).to(like.device, like.dtype, non_blocking=True)
