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
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

_WORD = 2**64
_DEPTH = 12  # levels of the tree that every increment looks at; shorter ones look deeper
_DRAWS, _NODES, BESIDE, _CHOICES = range(
    4
)  # what a place in the counter is for; BESIDE: noise of what a picture is made from


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


class Silence:
    """No noise at all."""

    def __call__(self, like: Tensor) -> Tensor:
        return torch.zeros_like(like)

    def between(self, like: Tensor, start: Tensor, end: Tensor) -> Tensor:
        return torch.zeros_like(like)


def normal(seed: int, index: int, draw: int, shape: Sequence[int], *, stream: int = _DRAWS) -> Tensor:
    """One standard normal draw, shape `shape`, float32 on the CPU."""
    generator = np.random.Philox(
        key=np.array([seed % _WORD, index % _WORD], dtype=np.uint64),
        counter=np.array([0, 0, stream, draw % _WORD], dtype=np.uint64),
    )
    return torch.from_numpy(np.random.Generator(generator).standard_normal(tuple(shape), dtype=np.float32))


def chosen(seed: int, index: int, time: float, among: int) -> int:
    """One of the numbers 0 … among − 1, each as likely: a function of the seed, the picture and the time alone."""
    generator = np.random.Philox(
        key=np.array([seed % _WORD, index % _WORD], dtype=np.uint64),
        counter=np.array([0, 0, _CHOICES, np.float64(time).view(np.uint64)], dtype=np.uint64),
    )
    return int(np.random.Generator(generator).integers(among))


@dataclass
class SampleNoise:
    """The noise of the pictures `indices` under one seed; every call is the next draw.

    Attributes:
        seed: any integer.
        indices: the number of each picture in the batch, length B.
        draw: how many draws have been made.
        stream: noise of another stream is independent of this one's.
    """

    seed: int
    indices: Sequence[int]
    draw: int = 0
    stream: int = _DRAWS
    _paths: dict[int, "_Path"] = field(default_factory=dict, repr=False)

    def __call__(self, like: Tensor) -> Tensor:
        """Standard normal noise of like's shape (B, *), drawn in float32 on the CPU, then cast."""
        rows = [normal(self.seed, index, self.draw, like.shape[1:], stream=self.stream) for index in self.indices]
        self.draw += 1
        return torch.stack(rows).to(like.device, like.dtype, non_blocking=True)

    def between(self, like: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """The Brownian increments of `Noise.between`, from each picture's own path."""
        rows = []
        for index, a, b in zip(self.indices, start.tolist(), end.tolist(), strict=True):
            path = self._paths.setdefault(index, _Path(self.seed, index, tuple(like.shape[1:])))
            rows.append(path.increment(a, b) if b > a else torch.zeros(like.shape[1:]))
        return torch.stack(rows).to(like.device, like.dtype, non_blocking=True)


class _Path:
    """One picture's Brownian path on [0, 1]."""

    def __init__(self, seed: int, index: int, shape: tuple[int, ...]) -> None:
        self._key, self._shape = (seed, index), shape
        # the nodes of the last descent, level by level: (node, left, right, W(left), W(right))
        self._descent: list[tuple[int, float, float, Tensor, Tensor]] = []
        self._end: Tensor | None = None
        self._middles: OrderedDict[int, Tensor] = OrderedDict()  # W in the middle of each: a step ends where one began

    def increment(self, start: float, end: float) -> Tensor:
        """(W(end) − W(start)) / √(end − start), start < end.

        The tree is descended to where its intervals are a sixteenth of this one, and W is linear below; what that takes
        from the variance is given back.
        """
        levels = max(_DEPTH, math.ceil(-math.log2(end - start)) + 4)
        left, right, before, after = self._leaf(start, levels)
        length, share = right - left, (start - left) / (right - left)
        first = before + share * (after - before)
        other, _, before, after = self._leaf(end, levels)
        rest = (end - other) / length
        last = before + rest * (after - before)
        # of the interval's own variance only the squares of the shares are left in its two outermost leaves
        return (last - first) / math.sqrt(other - right + length * ((1 - share) ** 2 + rest**2))

    def _leaf(self, place: float, levels: int) -> tuple[float, float, Tensor, Tensor]:
        """The interval of the tree around a place, so many levels down, and W at its ends."""
        while self._descent and not self._descent[-1][1] <= place <= self._descent[-1][2]:
            self._descent.pop()
        del self._descent[levels + 1 :]
        if not self._descent:
            if self._end is None:
                self._end = normal(*self._key, 0, self._shape, stream=_NODES)
            self._descent.append((1, 0.0, 1.0, torch.zeros_like(self._end), self._end))
        while len(self._descent) <= levels:
            node, left, right, before, after = self._descent[-1]
            middle = (left + right) / 2
            value = self._middles.get(node)
            if value is None:
                drawn = normal(*self._key, node, self._shape, stream=_NODES)
                value = torch.lerp(before, after, 0.5).add_(drawn, alpha=math.sqrt(right - left) / 2)
                self._middles[node] = value
                if len(self._middles) > 4 * _DEPTH:
                    self._middles.popitem(last=False)
            if place < middle:
                self._descent.append((2 * node, left, middle, before, value))
            else:
                self._descent.append((2 * node + 1, middle, right, value, after))
        return self._descent[-1][1:]
