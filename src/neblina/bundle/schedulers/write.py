"""From a model of this package to the diffusers scheduler that samples it alike."""

from typing import Any

from neblina.bundle.schedulers.fields import FIELDS
from neblina.bundle.schedulers.read import read_scheduler
from neblina.bundle.schedulers.sampling import Sampling
from neblina.bundle.schedulers.tables import PREDICTIONS, SCHEDULES
from neblina.core.errors import NeblinaError
from neblina.denoisers.parameterisations import default_clock, parameterisations
from neblina.processes.schedules import Schedule

_VARIANCES = {"ddpm_large": "fixed_large"}
_LINES = {"heun_flow": "FlowMatchHeunDiscreteScheduler"}
_SPACINGS = {"uniform": "trailing", "trailing": "trailing"}


def write_scheduler(
    schedule: Schedule,
    parameterisation: str,
    sampling: Sampling,
    *,
    clock: str | None = None,
    learned_variance: bool = False,
) -> dict[str, Any] | None:
    """The `scheduler_config.json` of a model; None where diffusers has no counterpart of it.

    A model that follows a diffusers scheduler keeps it. Otherwise: a DDIMScheduler where it samples as that one does,
    a DDPMScheduler on every other table, the schedulers of straight lines, of EDM and of the VE SDE on those. A model
    that learned its variance has a DDPMScheduler, which alone can split its network's channels. What is written reads
    back as the same process, parameterisation and clock, or it is not written.
    """
    own = sampling.scheduler
    for config in (own, _config(schedule, parameterisation, sampling, learned_variance)):
        if config is None:
            continue
        try:
            read = read_scheduler(config)
        except NeblinaError:
            continue
        same = (read.schedule, read.parameterisation, read.learned_variance) == (
            schedule,
            parameterisation,
            learned_variance,
        )
        row = parameterisations[parameterisation]
        told = [name or default_clock(row, schedule) for name in (read.clock, clock)]
        if same and told[0] == told[1] and (config is not own or read.sampler == sampling.sampler):
            return dict(config)
    return None


def _config(
    schedule: Schedule, parameterisation: str, sampling: Sampling, learned_variance: bool
) -> dict[str, Any] | None:
    settings = schedule.config()
    if schedule.name == "flow":
        return _whole(_LINES.get(sampling.sampler, "FlowMatchEulerDiscreteScheduler"))
    if schedule.name == "edm":
        return _whole("EDMEulerScheduler", sigma_max=settings["sigma_max"])
    if schedule.name == "ve":
        return _whole("ScoreSdeVeScheduler", sigma_min=settings["sigma_min"], sigma_max=settings["sigma_max"])
    return _table(schedule, parameterisation, sampling, learned_variance)


def _table(
    schedule: Schedule, parameterisation: str, sampling: Sampling, learned_variance: bool
) -> dict[str, Any] | None:
    """A DDIMScheduler or a DDPMScheduler."""
    predictions = {ours: theirs for theirs, ours in PREDICTIONS.items() if theirs != "original_sample"}
    settings = schedule.config()
    name = settings.pop("schedule")
    schedules = {ours: theirs for theirs, ours in SCHEDULES.items()}
    if parameterisation not in predictions or settings.pop("max_beta", 0.999) != 0.999:
        return None
    if name == "betas":
        settings["trained_betas"] = list(settings.pop("values"))
    elif name not in schedules:
        return None
    settings["num_train_timesteps"] = settings.pop("steps")
    settings["rescale_betas_zero_snr"] = settings.pop("zero_snr")
    common = {
        **settings,
        "beta_schedule": schedules.get(name, "linear"),
        "prediction_type": predictions[parameterisation],
        "clip_sample": sampling.clip is not None,
        "clip_sample_range": 1.0 if sampling.clip is None else sampling.clip,
        "timestep_spacing": _SPACINGS.get(sampling.grid or "", "leading"),
    }
    keeps = sampling.clip is None or sampling.clip_keeps_direction
    implicit = sampling.sampler in ("ddim", "euler", "dpmpp_1")
    if implicit and keeps and not learned_variance and common["beta_schedule"] != "sigmoid":
        return _whole("DDIMScheduler", **common)
    variance = "learned_range" if learned_variance else _VARIANCES.get(sampling.sampler, "fixed_small")
    return _whole("DDPMScheduler", **common, variance_type=variance)


def _whole(kind: str, **given: Any) -> dict[str, Any]:
    """A configuration with every field, so that other defaults elsewhere change nothing."""
    return {"_class_name": kind, **FIELDS[kind], **given}
