"""Queries, and plans that answer them with as few network calls as there are networks.

A sampler yields a `Query`: "what is the clean data behind x at time t?". A *plan* says how to answer: it names the
*leaves* (one network, one input, one condition each) and how their posteriors combine. Plans nest, and because they
only describe, the leaves of everything that is asked at one moment (guidance branches, views, other users' samples)
are deduplicated and answered together, one call per group of leaves that can share one.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from neblina.core.appetite import Appetite
from neblina.core.conditions import Condition, concatenate
from neblina.core.errors import SettingError
from neblina.core.posterior import Posterior, join, split
from neblina.core.windows import Window


@dataclass(frozen=True)
class Query:
    """Where a sampler wants to be told.

    Attributes:
        x: noisy batch, shape (B, *).
        t: time of each sample in [0, 1], shape (B,), float64 on the CPU; 0 is data, 1 is noise.
        rows: whose condition each entry uses, shape (B,); None says entry i uses condition i.
        window: which part of a canvas x is, so that conditions which are maps of the canvas are cut too; None for all.
    """

    x: Tensor
    t: Tensor
    rows: Tensor | None = None
    window: Window | None = None
    _cuts: dict[Window, "Query"] = field(default_factory=dict, init=False, repr=False, compare=False)

    def cut(self, window: Window) -> "Query":
        """The query of a part of x; who asks about the same part of the same query is given the same tensors."""
        if window not in self._cuts:
            if self.window is not None:
                raise SettingError("windows of windows: cut the canvas once")
            self._cuts[window] = replace(self, x=window.of(self.x), window=window)
        return self._cuts[window]


class Denoiser(Protocol):
    """Answers a noisy batch with its belief about the clean data."""

    def posterior(self, x: Tensor, t: Tensor, condition: Condition) -> Posterior: ...


@dataclass(frozen=True)
class Leaf:
    """One input to one network.

    Attributes:
        denoiser: who answers.
        x: noisy batch, shape (B, *).
        t: times, shape (B,).
        condition: conditions of the B samples, or those that `rows` picks from.
        needs_grad: whether the answer is differentiated with respect to x.
        rows, window: as in `Query`; kept apart from the condition, so that leaves that pick alike are alike.
    """

    denoiser: Denoiser
    x: Tensor
    t: Tensor
    condition: Condition
    needs_grad: bool = False
    rows: Tensor | None = None
    window: Window | None = None

    @property
    def given(self) -> Condition:
        """The condition of each of the B samples, of the part of the canvas that x is."""
        own = self.condition if self.rows is None else self.condition.take(self.rows)
        return own if self.window is None else own.cut(self.window)

    @property
    def group(self) -> tuple[object, ...]:
        """Leaves of an equal group can be answered in one call."""
        return (
            id(self.denoiser),
            tuple(self.x.shape[1:]),
            self.x.dtype,
            self.x.device,
            self.condition.structure,
            self.needs_grad,
        )

    @property
    def identity(self) -> tuple[object, ...]:
        """Leaves of an equal identity have the same answer."""
        given = tuple((name, id(value)) for name, value in self.condition.given.items())
        return (
            id(self.denoiser),
            id(self.x),
            id(self.t),
            given,
            None if self.condition.spatial is None else self.window,
            None if not given or self.rows is None else id(self.rows),
            self.needs_grad,
        )


Combine = Callable[[Sequence[Posterior]], Posterior]
Plan = Callable[[Query], tuple[list[Leaf], Combine]]


def conditional(denoiser: Denoiser, condition: Condition) -> Plan:
    """The plan of one network under one condition: ask it."""

    def plan(query: Query) -> tuple[list[Leaf], Combine]:
        leaf = Leaf(denoiser, query.x, query.t, condition, rows=query.rows, window=query.window)
        return [leaf], lambda posteriors: posteriors[0]

    return plan


def answer(
    questions: Sequence[tuple[Plan, Query]], *, max_batch: int | Appetite | None = None
) -> list[Posterior | Exception]:
    """Answer many queries with one network call per group of leaves.

    Args:
        questions: the plans with their queries; they may come from unrelated samplers at different times.
        max_batch: most samples in one network call, or who finds out what free memory holds; None for all of them. A
            call that runs out of memory is halved and made again in any case.
    Returns:
        One entry a question: its posterior, or the exception that answering it raised. A question whose network
        call failed does not touch the others.
    """
    parts: list[tuple[list[Leaf], Combine] | Exception] = []
    for plan, query in questions:
        try:
            parts.append(plan(query))
        except Exception as error:
            parts.append(error)
    leaves = {leaf.identity: leaf for part in parts if not isinstance(part, Exception) for leaf in part[0]}
    answers: dict[tuple[object, ...], Posterior | Exception] = {}
    for group in _grouped(leaves.values()):
        answers.update(zip((leaf.identity for leaf in group), _ask(group, max_batch), strict=True))

    results: list[Posterior | Exception] = []
    for part in parts:
        results.append(part if isinstance(part, Exception) else _combined(part, answers))
    return results


def evaluate(plan: Plan, query: Query) -> Posterior:
    """Answer one query."""
    (result,) = answer([(plan, query)])
    if isinstance(result, Exception):
        raise result
    return result


def _combined(
    part: tuple[list[Leaf], Combine], answers: dict[tuple[object, ...], Posterior | Exception]
) -> Posterior | Exception:
    leaves, combine = part
    given: list[Posterior] = []
    for leaf in leaves:
        result = answers[leaf.identity]
        if isinstance(result, Exception):
            return result
        given.append(result)
    try:
        return combine(given)
    except Exception as error:
        return error


def _grouped(leaves: Iterable[Leaf]) -> list[list[Leaf]]:
    groups: dict[tuple[object, ...], list[Leaf]] = {}
    for leaf in leaves:
        groups.setdefault(leaf.group, []).append(leaf)
    return list(groups.values())


def _ask(leaves: list[Leaf], max_batch: int | Appetite | None) -> list[Posterior | Exception]:
    """One call for leaves of one group; on failure, each leaf by itself, so that only the guilty one fails."""
    if len(leaves) == 1:
        (leaf,) = leaves
        try:
            with torch.set_grad_enabled(leaf.needs_grad):
                given = leaf.given
                most = _at_once(leaf, leaf.x, leaf.t, given, max_batch)
                return [_within_memory(leaf.denoiser, leaf.x, leaf.t, given, most)]
        except Exception as error:
            return [error]
    try:
        # joining and splitting are differentiated too
        with torch.set_grad_enabled(leaves[0].needs_grad):
            x, t = torch.cat([leaf.x for leaf in leaves]), torch.cat([leaf.t for leaf in leaves])
            condition = concatenate([leaf.given for leaf in leaves])
            most = _at_once(leaves[0], x, t, condition, max_batch)
            together = _within_memory(leaves[0].denoiser, x, t, condition, most)
            return list(split(together, [len(leaf.x) for leaf in leaves]))
    except Exception:
        return [result for leaf in leaves for result in _ask([leaf], max_batch)]


def _at_once(leaf: Leaf, x: Tensor, t: Tensor, condition: Condition, most: int | Appetite | None) -> int | None:
    """How many of the samples of leaves that are asked together go into one call."""
    if not isinstance(most, Appetite):
        return most
    one = torch.zeros(1, dtype=torch.int64)
    return most.most(leaf.group, x, lambda: leaf.denoiser.posterior(x[:1], t[:1], condition.take(one)))


def _within_memory(denoiser: Denoiser, x: Tensor, t: Tensor, condition: Condition, most: int | None) -> Posterior:
    """Ask in pieces of at most `most`; on running out of memory, halve and ask again."""
    size = len(x)
    if most is None or size <= most:
        try:
            return denoiser.posterior(x, t, condition)
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            most = (size + 1) // 2
    pieces = [slice(start, min(start + most, size)) for start in range(0, size, most)]
    rows = torch.arange(size)
    return join([_within_memory(denoiser, x[p], t[p], condition.take(rows[p]), most) for p in pieces])
