"""From a diffusers `scheduler_config.json` to a process, a parameterisation, a sampler and its walk.

One reader for each family of schedulers; what it asks of the `Values` is what has a meaning here, the rest is refused.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from neblina.bundle.schedulers.continuous import edm, score
from neblina.bundle.schedulers.conversion import Conversion
from neblina.bundle.schedulers.discrete import ddim, ddpm, levels, pndm
from neblina.bundle.schedulers.fields import FIELDS
from neblina.bundle.schedulers.lines import lines
from neblina.bundle.schedulers.sampling import Sampling
from neblina.bundle.schedulers.solvers import deis, dpm, unipc
from neblina.bundle.schedulers.values import Values
from neblina.denoisers.parameterisations import check_end
from neblina.processes.foreign import ForeignGrid


def read_scheduler(config: Mapping[str, Any]) -> Conversion:
    """What a diffusers scheduler does, in the terms of this package.

    Args:
        config: its `scheduler_config.json`.
    Raises:
        SettingError: an unknown field; eps on a table that ends at zero signal.
        CheckpointError: a scheduler or a value that has no counterpart here, by name.
    """
    values = Values(config)
    conversion = READERS[values.kind](values)
    values.close()
    check_end(conversion.parameterisation, conversion.clock, conversion.schedule)
    return replace(conversion, steps=min(conversion.steps, conversion.schedule.steps or conversion.steps))


def repaired(config: Mapping[str, Any], repairs: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the fields set, of those given, that its scheduler has or the file says."""
    known = FIELDS.get(config.get("_class_name", ""), {})
    return {**config, **{field: value for field, value in repairs.items() if field in known or field in config}}


def with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a scheduler's configuration says, left out or not, but for who wrote it."""
    said = {field: value for field, value in config.items() if field == "_class_name" or not field.startswith("_")}
    return {**FIELDS.get(str(config.get("_class_name")), {}), **said}


def sampling_of(config: Mapping[str, Any], conversion: Conversion) -> Sampling:
    """The conversion as a model's default sampling."""
    return Sampling(
        sampler=conversion.sampler,
        steps=conversion.steps,
        clip=conversion.clip,
        clip_keeps_direction=conversion.clip_keeps_direction,
        scheduler=dict(config),
    )


def route(
    default: Sampling, sampler: str | None, grid: str | None, steps: int
) -> tuple[str | ForeignGrid | None, dict[str, Any]]:
    """The grid that a request walks over, and the settings of its sampler that come with it.

    Args:
        default: the model's own sampling.
        sampler, grid: what is asked for, None where nothing is.
        steps: how many.
    """
    if sampler not in (None, default.sampler):
        return grid, {}
    if default.scheduler is None:
        return grid or default.grid, {}
    conversion = read_scheduler(default.scheduler)
    return grid or conversion.grid, conversion.settings_for(steps)


READERS: dict[str, Callable[[Values], Conversion]] = {
    "DDPMScheduler": ddpm,
    "DDPMParallelScheduler": ddpm,
    "DDIMScheduler": ddim,
    "DDIMParallelScheduler": ddim,
    "PNDMScheduler": pndm,
    "EulerDiscreteScheduler": levels("ddim"),
    "EulerAncestralDiscreteScheduler": levels("ddpm", clean=False),
    "LMSDiscreteScheduler": levels("lms"),
    "HeunDiscreteScheduler": levels("heun_edm"),
    "KDPM2DiscreteScheduler": levels("dpm2", rounding="nearest", clean=False),
    "KDPM2AncestralDiscreteScheduler": levels("dpm2_ancestral", rounding="nearest", clean=False),
    "DPMSolverSDEScheduler": levels("dpmpp_sde", clean=False),
    "DPMSolverMultistepScheduler": dpm,
    "DEISMultistepScheduler": deis,
    "UniPCMultistepScheduler": unipc,
    "EDMEulerScheduler": edm,
    "EDMDPMSolverMultistepScheduler": edm,
    "ScoreSdeVeScheduler": score,
    "FlowMatchEulerDiscreteScheduler": lines("ddim"),
    "FlowMatchHeunDiscreteScheduler": lines("heun_flow"),
}
