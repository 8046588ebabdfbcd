"""Noise that belongs to a picture, not to a batch.

Draw d of picture k under seed s is a pure function of (s, k, d): the counter-based generator Philox keyed by
(s, k), with d in the high word of its counter. Batch size, sharding and the company a picture keeps cannot change
what a seed means.

A Brownian path belongs to a picture too. W on [0, 1] is a tree of bridges: W(1) is drawn, then the middle of every
interval given its ends, each from its own place in the counter, so that the increment over an interval is the same
whoever asks, in whatever order, with however many steps.

Salmon et al. Parallel Random Numbers: As Easy as 1, 2, 3. SC 2011.
Li et al. Scalable Gradients for Stochastic Differential Equations. AISTATS 2020, section 4 (virtual Brownian tree).
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from neblina.core.shapes import expand

_WORD = 2**64
_DEPTH = 12  # levels of the tree; below, a point has a bridge of its own
_DRAWS, _NODES, _POINTS = range(3)  # what a place in the counter is for


class Noise(Protocol):
    """A source of standard normal noise: called with a batch, it returns fresh noise of the same shape."""

    def __call__(self, like: Tensor) -> Tensor: ...

    def between(self, like: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """(W(end) − W(start)) / √(end − start) of a Brownian path on [0, 1]: standard normal, shape of like.

        Increments over intervals that overlap are correlated as a path's are, and 0 over one without length.

        Args:
            start, end: each sample's interval, shape (B,), float64 on the CPU, start <= end.
        """
        ...


def normal(seed: int, index: int, draw: int, shape: Sequence[int], *, stream: int = _DRAWS) -> Tensor:
    """One standard normal draw, shape `shape`, float32 on the CPU."""
    generator = np.random.Philox(
        key=np.array([seed % _WORD, index % _WORD], dtype=np.uint64),
        counter=np.array([0, 0, stream, draw % _WORD], dtype=np.uint64),
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
    _paths: dict[int, "_Path"] = field(default_factory=dict, repr=False)

    def __call__(self, like: Tensor) -> Tensor:
        """Standard normal noise of like's shape (B, *), drawn in float32 on the CPU, then cast."""
        rows = [normal(self.seed, index, self.draw, like.shape[1:]) for index in self.indices]
        self.draw += 1
        return torch.stack(rows).to(like.device, like.dtype, non_blocking=True)

    def between(self, like: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """The Brownian increments of `Noise.between`, from each picture's own path."""
        rows = []
        for index, a, b in zip(self.indices, start.tolist(), end.tolist(), strict=True):
            path = self._paths.setdefault(index, _Path(self.seed, index, tuple(like.shape[1:])))
            rows.append(path.at(b) - path.at(a))
        length = (end - start).sqrt()
        scale = torch.where(length > 0, 1 / length, 0.0)
        increment = torch.stack(rows).to(like.device, like.dtype, non_blocking=True)
        return expand(scale, like) * increment


class _Path:
    """One picture's Brownian path on [0, 1]."""

    def __init__(self, seed: int, index: int, shape: tuple[int, ...]) -> None:
        self._key, self._shape = (seed, index), shape
        self._known: dict[float, Tensor] = {}
        # the nodes of the last descent, level by level: (node, left, right, W(left), W(right))
        self._descent: list[tuple[int, float, float, Tensor, Tensor]] = []

    def at(self, place: float) -> Tensor:
        """W(place), the same every time."""
        if place not in self._known:
            value = self._bridge(place)
            if len(self._known) > 3:  # a step asks for its two ends and its middle
                del self._known[next(iter(self._known))]
            self._known[place] = value
        return self._known[place]

    def _bridge(self, place: float) -> Tensor:
        left, right, before, after = self._leaf(place)
        share = (place - left) / (right - left)
        spread = (right - left) * share * (1 - share)
        (bits,) = struct.unpack("<Q", struct.pack("<d", place))
        return (
            before
            + share * (after - before)
            + math.sqrt(spread) * normal(*self._key, bits, self._shape, stream=_POINTS)
        )

    def _leaf(self, place: float) -> tuple[float, float, Tensor, Tensor]:
        """The smallest interval of the tree around a place, and W at its ends."""
        while self._descent and not self._descent[-1][1] <= place <= self._descent[-1][2]:
            self._descent.pop()
        if not self._descent:
            end = normal(*self._key, 0, self._shape, stream=_NODES)
            self._descent.append((1, 0.0, 1.0, torch.zeros_like(end), end))
        while len(self._descent) <= _DEPTH:
            node, left, right, before, after = self._descent[-1]
            middle = (left + right) / 2
            value = (before + after) / 2 + math.sqrt(right - left) / 2 * normal(
                *self._key, node, self._shape, stream=_NODES
            )
            if place < middle:
                self._descent.append((2 * node, left, middle, before, value))
            else:
                self._descent.append((2 * node + 1, middle, right, value, after))
        return self._descent[-1][1:]
