"""A clock that says what it was told to: the network's time at the times of a foreign walk."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from neblina.denoisers.denoiser import NetworkDenoiser
from neblina.denoisers.parameterisations import Clock
from neblina.processes.foreign import Walk
from neblina.processes.schedules import Schedule


@dataclass(frozen=True, eq=False)
class Told:
    """A clock from pairs.

    Attributes:
        times: rising, float64 of shape (N,) on the CPU.
        told: what the network is told there, shape (N,).
        between: the clock everywhere else: at the middles of two-stage samplers.
    """

    times: Tensor
    told: Tensor
    between: Clock

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        """The network's time at t, shape (B,)."""
        right = torch.searchsorted(self.times, t.contiguous()).clamp(max=len(self.times) - 1)
        left = (right - 1).clamp(min=0)
        nearest = torch.where((self.times[right] - t).abs() <= (self.times[left] - t).abs(), right, left)
        known = (self.times[nearest] - t).abs() <= 1e-12
        return torch.where(known, self.told[nearest], self.between(schedule, t).to(self.told.dtype))


def on_walk(denoiser: NetworkDenoiser, walk: Walk, *, beside: NetworkDenoiser | None = None) -> NetworkDenoiser:
    """The denoiser whose network is told what the walk says.

    Args:
        denoiser: any.
        walk: of a sampler.
        beside: the network that the walk was made for, if it is another one; where their clocks differ, the walk's
            numbers are not this network's, and it keeps its own.
    """
    if walk.told is None or (beside is not None and denoiser.read_clock is not beside.read_clock):
        return denoiser
    return replace(denoiser, clock=Told(walk.times[:-1].flip(0), walk.told.flip(0), denoiser.read_clock))
