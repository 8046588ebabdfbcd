"""What a scheduler's configuration says, in the terms of this package."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from neblina.processes.foreign import ForeignGrid
from neblina.processes.schedules import Schedule

SHORT = 15  # below this many steps diffusers' multistep solvers end at a lower order


@dataclass(frozen=True)
class Conversion:
    """What a scheduler's configuration says.

    Attributes:
        schedule: of the process.
        parameterisation: what the network predicts.
        sampler: a registered name.
        grid: the walk for a number of steps.
        steps: as many as diffusers' pipelines take by default.
        clock: how the network is told the time off the walk, None for the default.
        clip: limit that the belief is clipped to, None for no clipping.
        clip_keeps_direction: steps still point with the unclipped belief's noise.
        learned_variance: whether half of the network's channels say how wide its steps are.
        settings: of the sampler.
        short: further settings for fewer than 15 steps.
    """

    schedule: Schedule
    parameterisation: str
    sampler: str
    grid: ForeignGrid
    steps: int = 50
    clock: str | None = None
    clip: float | None = None
    clip_keeps_direction: bool = False
    learned_variance: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    short: Mapping[str, Any] = field(default_factory=dict)

    def settings_for(self, steps: int) -> dict[str, Any]:
        """The sampler's settings for a number of steps."""
        return {**self.settings, **(self.short if steps < SHORT else {})}
