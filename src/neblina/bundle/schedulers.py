"""Between a diffusers `scheduler_config.json` and a process, a parameterisation and sampling defaults.

Every field either has a meaning here or is refused by name; none is dropped in silence.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neblina.core.errors import CheckpointError, choose
from neblina.processes.schedules import Schedule, make_schedule


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
    """

    sampler: str = "dpmpp_2m"
    steps: int = 25
    grid: str | None = None
    guidance: float = 1.0
    clip: float | None = None
    clip_keeps_direction: bool = False


_SCHEDULES = {
    "linear": "linear",
    "scaled_linear": "scaled-linear",
    "squaredcos_cap_v2": "cosine",
    "sigmoid": "sigmoid",
}
_PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
_SAMPLERS = {"fixed_small": "ddpm", "fixed_small_log": "ddpm", "fixed_large": "ddpm_large"}
_GRIDS = {"leading": "leading", "trailing": "trailing"}

_COMMON = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "clip_sample": True,
    "prediction_type": "epsilon",
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "clip_sample_range": 1.0,
    "sample_max_value": 1.0,
    "timestep_spacing": "leading",
    "steps_offset": 0,
    "rescale_betas_zero_snr": False,
}
_FIELDS: dict[str, dict[str, Any]] = {
    "DDPMScheduler": {**_COMMON, "variance_type": "fixed_small"},
    "DDIMScheduler": {**_COMMON, "set_alpha_to_one": True},
}
# a value of these other than the one named changes the numbers in a way that has no counterpart here yet
_ONLY = {
    "trained_betas": None,
    "thresholding": False,
    "steps_offset": 0,
    "rescale_betas_zero_snr": False,
    "set_alpha_to_one": True,
}


def read_scheduler(config: Mapping[str, Any]) -> tuple[Schedule, str, Sampling]:
    """Schedule, parameterisation and sampling defaults of a DDPMScheduler or a DDIMScheduler.

    Raises:
        SettingError: an unknown field or value.
        CheckpointError: a scheduler or a value that has no counterpart here.
    """
    kind = str(config.get("_class_name", "DDPMScheduler"))
    if kind not in _FIELDS:
        raise CheckpointError(f"scheduler {kind} cannot be read yet; {' and '.join(_FIELDS)} can")
    given = {key: value for key, value in config.items() if not key.startswith("_")}
    for key in given:
        choose(f"field of {kind}", key, _FIELDS[kind])
    values = {**_FIELDS[kind], **given}
    for key, only in _ONLY.items():
        if key in values and values[key] != only:
            raise CheckpointError(f"{kind}: {key} = {values[key]!r} is not supported, only {only!r} is")
    name = _SCHEDULES[choose("beta_schedule this package reads", values["beta_schedule"], _SCHEDULES)]
    ends = {} if name == "cosine" else {"beta_start": values["beta_start"], "beta_end": values["beta_end"]}
    schedule = make_schedule(name, steps=values["num_train_timesteps"], **ends)
    parameterisation = _PREDICTIONS[choose("prediction_type", values["prediction_type"], _PREDICTIONS)]
    grid = _GRIDS[choose("timestep_spacing this package reads", values["timestep_spacing"], _GRIDS)]
    implicit = kind == "DDIMScheduler"
    variance = values.get("variance_type", "fixed_small")
    sampling = Sampling(
        sampler="ddim" if implicit else _SAMPLERS[choose("variance_type this package reads", variance, _SAMPLERS)],
        steps=50 if implicit else values["num_train_timesteps"],
        grid=grid,
        clip=values["clip_sample_range"] if values["clip_sample"] else None,
        clip_keeps_direction=implicit,
    )
    return schedule, parameterisation, sampling


def write_scheduler(schedule: Schedule, parameterisation: str, sampling: Sampling) -> dict[str, Any] | None:
    """The DDPMScheduler of a discrete schedule; None where diffusers' DDPMPipeline has no counterpart."""
    names = {ours: theirs for theirs, ours in _SCHEDULES.items()}
    predictions = {ours: theirs for theirs, ours in _PREDICTIONS.items()}
    settings = schedule.config()
    if settings.pop("schedule") not in names or parameterisation not in predictions:
        return None
    if settings.pop("max_beta", 0.999) != 0.999:
        return None
    settings["num_train_timesteps"] = settings.pop("steps")
    settings["rescale_betas_zero_snr"] = settings.pop("zero_snr")
    return {
        "_class_name": "DDPMScheduler",
        "beta_schedule": names[schedule.name],
        **settings,
        "prediction_type": predictions[parameterisation],
        "variance_type": "fixed_large" if sampling.sampler == "ddpm_large" else "fixed_small",
        "clip_sample": sampling.clip is not None,
        "clip_sample_range": sampling.clip or 1.0,
        "timestep_spacing": "trailing" if sampling.grid in ("uniform", "trailing") else "leading",
    }
