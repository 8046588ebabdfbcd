"""From a model of this package to the diffusers scheduler that samples it alike."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from neblina.bundle.schedulers.fields import FIELDS
from neblina.bundle.schedulers.lacks import lacking
from neblina.bundle.schedulers.read import read_scheduler
from neblina.bundle.schedulers.sampling import Sampling
from neblina.bundle.schedulers.tables import PREDICTIONS, SCHEDULES
from neblina.core.errors import NeblinaError
from neblina.denoisers.parameterisations import default_clock, parameterisations
from neblina.processes.schedules import Schedule

_VARIANCES = {"ddpm_large": "fixed_large"}
_SPACINGS = {"uniform": "trailing", "trailing": "trailing"}


@dataclass(frozen=True)
class Written:
    """A scheduler's file.

    Attributes:
        config: the `scheduler_config.json`; None where diffusers has no counterpart of the process.
        lacks: what it does not say of how the model samples, a sentence each.
    """

    config: dict[str, Any] | None
    lacks: tuple[str, ...] = ()


def write_scheduler(
    schedule: Schedule,
    parameterisation: str,
    sampling: Sampling,
    *,
    clock: str | None = None,
    learned_variance: bool = False,
) -> Written:
    """The scheduler's file of a model.

    What is written reads back as the same process, parameterisation and clock, or it is not written. A model that
    follows a diffusers scheduler keeps it. Otherwise the first scheduler of its process that reads back as the same
    sampler, walk and clipping too, at the model's own number of steps: a DDIMScheduler or a DDPMScheduler on a table,
    those of straight lines, of EDM and of the VE SDE. Where none does, the plain one of the process (DDPMScheduler on
    a table, Euler's on straight lines), so that diffusers still opens the folder, and the sentences that it lacks.

    Raises:
        SettingError: an unknown sampler or parameterisation.
    """
    told = clock or default_clock(parameterisations[parameterisation], schedule)
    plain = Written(None, (f"diffusers has no scheduler that says {schedule.name}, {parameterisation} and {told}",))
    candidates = [*_candidates(schedule, parameterisation, sampling, learned_variance)]
    for config in [*([] if sampling.scheduler is None else [dict(sampling.scheduler)]), *candidates]:
        try:
            read = read_scheduler(config)
        except NeblinaError:
            continue
        row = parameterisations[read.parameterisation]
        theirs = (
            read.schedule,
            read.parameterisation,
            # a model's own scheduler may not look at the variance that its network says: DiT's
            read.learned_variance or (learned_variance and config == sampling.scheduler),
            read.clock or default_clock(row, schedule),
        )
        if theirs != (schedule, parameterisation, learned_variance, told):
            continue
        lacks = lacking(read, schedule, told, sampling)
        if not lacks:
            return Written(config)
        plain = Written(config, lacks)
    return plain


def _candidates(
    schedule: Schedule, parameterisation: str, sampling: Sampling, learned_variance: bool
) -> Iterator[dict[str, Any]]:
    """The schedulers that may say the process, the plain one last."""
    settings = schedule.config()
    if schedule.name == "flow":
        yield _whole("FlowMatchHeunDiscreteScheduler")
        yield _whole("FlowMatchEulerDiscreteScheduler")
    elif schedule.name == "edm":
        yield _whole("EDMEulerScheduler", sigma_max=settings["sigma_max"])
    elif schedule.name == "ve":
        yield _whole("ScoreSdeVeScheduler", sigma_min=settings["sigma_min"], sigma_max=settings["sigma_max"])
    else:
        common = _table(schedule, parameterisation, sampling)
        if common is not None:
            variance = "learned_range" if learned_variance else _VARIANCES.get(sampling.sampler, "fixed_small")
            yield _whole("DDIMScheduler", **common)
            yield _whole("DDPMScheduler", **common, variance_type=variance)


def _table(schedule: Schedule, parameterisation: str, sampling: Sampling) -> dict[str, Any] | None:
    """What a DDIMScheduler and a DDPMScheduler have in common; None for a table or a prediction that they lack."""
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
    return {
        **settings,
        "beta_schedule": schedules.get(name, "linear"),
        "prediction_type": predictions[parameterisation],
        "clip_sample": sampling.clip is not None,
        "clip_sample_range": 1.0 if sampling.clip is None else sampling.clip,
        "timestep_spacing": _SPACINGS.get(sampling.grid or "", "leading"),
    }


def _whole(kind: str, **given: Any) -> dict[str, Any]:
    """A configuration with every field, so that other defaults elsewhere change nothing."""
    return {"_class_name": kind, **FIELDS[kind], **given}
