"""Values of many things, batch by batch: every process takes its share, and what is done when it is stopped is kept."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from neblina.core.errors import Interrupted
from neblina.core.launch import join_processes, rank, world_size

OnProgress = Callable[[float, int], None]
"""Told how many of this process's things are done, with fractions, and how many it has."""

Values = dict[str, Tensor]
"""Of a batch by name, a row a thing, or one row for all of them."""


@dataclass(frozen=True)
class Mean:
    """A mean over things and its standard error, in bits; one thing says nothing about its error."""

    bits: float
    error: float | None


def mean_of(values: Tensor) -> Mean:
    """The mean of values, shape (N,)."""
    count = len(values)
    return Mean(float(values.mean()), float(values.std() / math.sqrt(count)) if count > 1 else None)


def by_all(
    count: int,
    batch: int,
    measure: Callable[[list[int], Callable[[float], None]], Values],
    *,
    device: torch.device,
    on_progress: OnProgress | None = None,
) -> Values:
    """The values of things 0 … count − 1, or of those that were done before Ctrl-C, in their order.

    Args:
        measure: the values of a batch by its places, which tells the share of it that is done.
        device: where it computes.
    Raises:
        Interrupted: stopped before the first batch was done.
    """
    join_processes(cpu=device.type == "cpu")
    batches = [list(range(start, min(start + batch, count))) for start in range(0, count, batch)]
    mine = batches[rank() :: world_size()]
    done, total = 0, sum(map(len, mine))
    kept: list[tuple[int, Values]] = []
    try:
        for places in mine:

            def tell(share: float, before: int = done, size: int = len(places)) -> None:
                if on_progress is not None:
                    on_progress(before + size * share, total)

            kept.append((places[0], measure(places, tell)))
            done += len(places)
    except KeyboardInterrupt:
        pass  # what was done is reported
    if world_size() > 1:
        from accelerate.utils import gather_object  # takes a while

        kept = gather_object(kept)
    if not kept:
        raise Interrupted("stopped before the first batch was measured; smaller batches (--batch) are done sooner")
    every = [values for _, values in sorted(kept, key=lambda one: one[0])]
    return {name: torch.cat([values[name] for values in every]) for name in every[0]}
