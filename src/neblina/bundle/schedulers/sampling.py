"""How a model samples when nothing else is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sampling:
    """How a model samples when nothing else is asked for.

    Attributes:
        sampler: a registered name.
        steps: how many.
        grid: a registered name, None for the sampler's default.
        guidance: weight of classifier-free guidance, 1 for none.
        clip: limit that the belief is clipped to, None for no clipping.
        clip_keeps_direction: steps still point with the unclipped belief's noise.
        scheduler: the diffusers configuration whose walk and settings the sampler follows in place of a grid; None for
            a model of this package's own.
    """

    sampler: str = "dpmpp_2m"
    steps: int = 25
    grid: str | None = None
    guidance: float = 1.0
    clip: float | None = None
    clip_keeps_direction: bool = False
    scheduler: Mapping[str, Any] | None = None
