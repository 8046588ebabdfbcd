"""Integration by an embedded Runge-Kutta pair, where every sample has steps of its own.

    ds/du = v(s, u)    from u = start to u = end, which may lie on either side.

The pair's two results share their stages; their difference estimates the error of a step, and with an error e in units
of what is tolerated, a step is kept if e <= 1, and the next one is 0.9 e^(−1/p) times as long, between 0.2 and 5.

A state is several tensors of shape (B, *), integrated together. `integrate` yields where it wants to know v and is told
it, for the samples that are still on their way: whoever drives it may be a sampler, which yields in its turn, or may
differentiate a denoiser.

Bogacki, Shampine. A 3(2) Pair of Runge-Kutta Formulas. Applied Mathematics Letters 1989.
Dormand, Prince. A Family of Embedded Runge-Kutta Formulae. J. Comp. Appl. Math. 1980, table 2 (RK5(4)7M).
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neblina.core.shapes import expand

State = tuple[Tensor, ...]

_ARRIVED = 1e-12


@dataclass(frozen=True)
class Tableau:
    """An embedded pair whose last stage is the first of the next step.

    Attributes:
        order: of the result that is kept.
        places: c, where each stage after the first is evaluated.
        stages: rows of a; the last one is the result itself.
        error: b − b̂, the weights of the difference of the two results.
    """

    order: int
    places: tuple[float, ...]
    stages: tuple[tuple[float, ...], ...]
    error: tuple[float, ...]


BOGACKI_SHAMPINE = Tableau(
    order=3,
    places=(1 / 2, 3 / 4, 1),
    stages=((1 / 2,), (0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    error=(2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8),
)
DORMAND_PRINCE = Tableau(
    order=5,
    places=(1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1),
    stages=(
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    error=(71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
)


@dataclass(frozen=True)
class Asked:
    """Where v is wanted, of N samples.

    Attributes:
        state: s, each part of shape (N, *).
        place: u, float64 of shape (N,) on the CPU.
        rows: which of the batch they are, shape (N,).
        reached: where all of the batch stand, shape (B,).
    """

    state: State
    place: Tensor
    rows: Tensor
    reached: Tensor


@dataclass(frozen=True)
class Step:
    """A step that N samples tried.

    Attributes:
        length: |Δu|, float64 of shape (N,) on the CPU.
        before, after: the state, each part of shape (N, *).
        gaps: differences of the two results, shapes of the state.
    """

    length: Tensor
    before: State
    after: State
    gaps: State


def integrate(
    tableau: Tableau, state: State, start: Tensor, end: Tensor, *, steps: int, error: Callable[[Step], Tensor]
) -> Generator[Asked, State, State]:
    """The state at `end`.

    Args:
        state: at `start`, each part of shape (B, *).
        start, end: float64 of shape (B,) on the CPU. A sample whose two are equal is not asked about.
        steps: the first step is this part of the way.
        error: of a step, float64 of shape (N,) on the CPU, in units of what is tolerated. It may raise, and may call a
            step that cannot be any shorter good.
    Yields:
        Where v is wanted; it is sent in the state's shapes.
    """
    state, slope = tuple(part.clone() for part in state), tuple(torch.zeros_like(part) for part in state)
    place, size, way = start, (end - start).abs() / steps, torch.sign(end - start)
    rows = way.nonzero()[:, 0]
    if len(rows):
        _put(slope, rows, (yield Asked(_at(state, rows), place[rows], rows, place)))
    while len(rows):
        before, stages = _at(state, rows), [_at(slope, rows)]
        length = torch.minimum(size[rows], (end - place)[rows].abs())
        moved = way[rows] * length
        after = before
        for share, weights in zip(tableau.places, tableau.stages, strict=True):
            after = tuple(one + by for one, by in zip(before, _weighted(moved, weights, stages), strict=True))
            stages.append((yield Asked(after, place[rows] + share * moved, rows, place)))
        off = error(Step(length, before, after, _weighted(moved, tableau.error, stages)))
        good = off <= 1
        done = rows[good]
        _put(state, done, _at(after, good))
        _put(slope, done, _at(stages[-1], good))
        place = place.index_put((done,), (place[rows] + moved)[good])
        # an error that is no number counts as one without bounds
        growth = torch.nan_to_num(0.9 * off.clamp(min=1e-10) ** (-1 / tableau.order), nan=0.0).clamp(0.2, 5)
        size = size.index_put((rows,), length * growth)
        rows = ((end - place) * way > _ARRIVED).nonzero()[:, 0]
    return state


def _at(state: State, rows: Tensor) -> State:
    return tuple(part[rows.to(part.device)] for part in state)


def _put(state: State, rows: Tensor, values: State) -> None:
    for part, value in zip(state, values, strict=True):
        part[rows.to(part.device)] = value


def _weighted(length: Tensor, weights: Sequence[float], stages: Sequence[State]) -> State:
    """Δu Σ_i weight_i v_i."""
    used = [(weight, stage) for weight, stage in zip(weights, stages, strict=True) if weight]
    return tuple(
        expand(length, part) * sum((weight * stage[number] for weight, stage in used), torch.zeros_like(part))
        for number, part in enumerate(stages[0])
    )
