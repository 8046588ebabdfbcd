"""From a denoiser and names of things to samples: what training previews and users' requests share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.errors import SettingError
from neblina.core.noise import SampleNoise
from neblina.denoisers.denoiser import NetworkDenoiser
from neblina.denoisers.told import on_walk
from neblina.guidance.reschedule import on_schedule
from neblina.guidance.settings import GuidanceSettings
from neblina.processes.foreign import ForeignGrid, Walk, make_walk
from neblina.processes.gaussian import GaussianProcess
from neblina.processes.grids import truncate
from neblina.processes.schedules import Schedule
from neblina.samplers.drive import OnStep, sample
from neblina.samplers.registry import samplers


@dataclass(frozen=True)
class Stretch:
    """The part of the way from noise to data that is walked.

    Attributes:
        start: clean data to start from, noised to t_start, shape (B, *); None starts from noise.
        t_start: where the walk begins; below 1 it needs data to start from.
        t_end: where it ends; above 0 the samples are as noisy as the process is there.
        noised: whether `start` is as noisy as the process is at t_start already, as an inversion leaves it.
    """

    start: Tensor | None = None
    t_start: float = 1.0
    t_end: float = 0.0
    noised: bool = False

    def cut(self, walk: Walk) -> Walk:
        """What of a walk lies in the stretch.

        Raises:
            SettingError: an interval that is upside down or leaves [0, 1], or that begins below 1 without pictures.
        """
        times = truncate(walk.times, self.t_start, self.t_end)
        if self.t_start < 1 and self.start is None:
            raise SettingError(f"a walk from t_start {self.t_start:g} begins at pictures: give some to start from")
        return Walk(times, walk.start)


def generate(
    denoiser: NetworkDenoiser,
    shape: tuple[int, ...],
    indices: Sequence[int],
    *,
    condition: Condition,
    sampler: str,
    steps: int,
    grid: str | ForeignGrid | None = None,
    schedule: Schedule | None = None,
    stretch: Stretch | None = None,
    guidance: GuidanceSettings | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    settings: dict[str, Any] | None = None,
    max_batch: int | None = None,
    on_step: OnStep | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Tensor:
    """Samples of the model, float32 of shape (B, *shape), in the data's range.

    Args:
        denoiser: the network.
        shape: of one sample.
        indices: the number of each sample under the seed, length B.
        condition: of the B samples.
        sampler: a registered name.
        steps: how many from noise to data.
        grid: a registered name, or one of another library; None for the sampler's default.
        schedule: to sample on in place of the one that the network was trained on.
        stretch: where to begin and to end; None from noise to data.
        guidance: what changes the network's belief, clipping included; None for nothing.
        seed: any integer.
        device: where the network is.
        settings: of the sampler, such as eta.
        max_batch: most samples in one network call; None is what free memory holds.
        on_step: told after every answer.
        cancelled: asked before every step.
    Raises:
        SettingError: an unknown name, too many steps, or guidance without a condition.
    """
    chosen = samplers[sampler]
    trained = denoiser.process.schedule
    process = GaussianProcess(schedule or trained)
    if chosen.learned_variance and not denoiser.learned_variance:
        raise SettingError(f"{chosen.name} needs a model that learned its variance; sample with ddpm or ddpm_large")
    if schedule is not None and grid is not None and not isinstance(grid, str):
        raise SettingError(
            "this model's own grid is of the schedule it was trained on; name a grid, or leave schedule out"
        )
    part = stretch or Stretch()
    whole = make_walk(grid or chosen.grid, process.schedule, steps)
    walk = part.cut(whole)
    asked = guidance or GuidanceSettings()
    beside = {
        name: None if other is None else on_walk(other, whole, beside=denoiser)
        for name, other in (("unconditional", asked.unconditional), ("weaker", asked.weaker))
    }
    plan = replace(asked, **beside).plan(on_walk(denoiser, whole), condition)  # type: ignore[arg-type]
    noise = SampleNoise(seed, indices)
    first = noise(torch.empty(len(indices), *shape, device=device))
    if part.start is None:
        x = walk.start * first
    elif part.noised:
        x = part.start.to(first)
    else:
        x = process.diffuse(part.start.to(device), first, walk.times[0].expand(len(indices)))
    walking = chosen(process, x, walk.times, noise=noise, **(settings or {}))
    plan = on_schedule(plan, trained, process.schedule)
    return sample(walking, plan, on_step=on_step, cancelled=cancelled, max_batch=max_batch)
