"""What a scheduler's file leaves unsaid of how a model samples: found by reading it back and comparing."""

from collections.abc import Mapping
from inspect import Parameter, signature
from typing import Any

import torch

from neblina.bundle.schedulers.conversion import Conversion
from neblina.bundle.schedulers.read import route
from neblina.bundle.schedulers.sampling import Sampling
from neblina.core.errors import NeblinaError
from neblina.denoisers.parameterisations import clocks
from neblina.processes.foreign import ForeignGrid, Walk, make_walk
from neblina.processes.schedules import Schedule
from neblina.samplers import samplers
from neblina.samplers.registry import Sampler

START = 1e-4  # relative, what two pictures may differ by and still be called equal


def lacking(read: Conversion, schedule: Schedule, clock: str, sampling: Sampling) -> tuple[str, ...]:
    """A sentence for the sampler, the walk and the clipping each, where the file's is another one.

    Args:
        read: what the file says, of the same process.
        schedule: of the process.
        clock: how the network is told the time.
        sampling: the model's own; walks are compared at its number of steps, no more than the schedule has.
    """
    steps = min(sampling.steps, schedule.steps or sampling.steps)
    grid, settings = route(sampling, None, None, steps)
    own, other = samplers[sampling.sampler], samplers[read.sampler]
    found = []
    if own is not other:
        found.append(f"samples with {own.name}; the scheduler's file says {other.name}")
    elif _whole(own, settings) != _whole(own, read.settings_for(steps)):
        found.append(f"{own.name} has other settings than the scheduler's file says")
    way = grid or own.grid
    if not _same_walk(way, read.grid, schedule, clock, steps):
        name = f"the {way} grid" if isinstance(way, str) else "the grid of another scheduler"
        found.append(f"walks over {name}; the scheduler's file says other times")
    clips = (_clipping(sampling.clip, sampling.clip_keeps_direction), _clipping(read.clip, read.clip_keeps_direction))
    if clips[0] != clips[1]:
        found.append(f"{clips[0]}; the scheduler's file says: {clips[1]}")
    return tuple(found)


def _whole(sampler: Sampler, given: Mapping[str, Any]) -> dict[str, Any]:
    """The sampler's settings with what is given, its own defaults included."""
    parameters = signature(sampler.function).parameters.values()
    defaults = {part.name: part.default for part in parameters if part.default is not Parameter.empty}
    return {**defaults, **sampler.settings, **given}


def _same_walk(own: str | ForeignGrid, other: ForeignGrid, schedule: Schedule, clock: str, steps: int) -> bool:
    """Whether two walks visit the same times, from the same start, and tell the network the same."""
    try:
        one, two = make_walk(own, schedule, steps), make_walk(other, schedule, steps)
    except NeblinaError:
        return False
    told = [_told(walk, schedule, clock) for walk in (one, two)]
    return (
        torch.allclose(one.times, two.times, rtol=1e-6, atol=1e-12)
        and torch.allclose(told[0], told[1], rtol=1e-5, atol=1e-6)
        and abs(one.start - two.start) <= START * one.start
    )


def _told(walk: Walk, schedule: Schedule, clock: str) -> torch.Tensor:
    told = clocks[clock](schedule, walk.times[:-1]) if walk.told is None else walk.told
    return told.double()


def _clipping(limit: float | None, keeps: bool) -> str:
    if limit is None:
        return "clips nothing"
    return f"clips at {limit:g} and {'keeps the direction of the unclipped noise' if keeps else 'nothing beside it'}"
