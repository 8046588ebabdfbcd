"""Fields that many schedulers share, read in one place each."""

from neblina.bundle.schedulers.values import Values
from neblina.processes.foreign_tables import SPACINGS


def read_spacing(values: Values) -> str:
    """timestep_spacing."""
    spacing: str = values.one_of("timestep_spacing", {name: name for name in SPACINGS})
    return spacing


def read_offset(values: Values) -> int:
    """steps_offset, which the leading spacing alone looks at."""
    offset = int(values.take("steps_offset"))
    return offset if values.take("timestep_spacing") == "leading" else 0


def read_alpha_end(values: Values) -> str:
    """set_alpha_to_one: clean data, or the first level of the table."""
    return "zero" if values.take("set_alpha_to_one") else "first"


def read_final(values: Values) -> str:
    """Where a walk ends; to a level's first for the schedulers that say nothing, DEIS among them."""
    if "final_sigmas_type" not in values:
        return "first" if values.kind == "DEISMultistepScheduler" else "zero"
    end: str = values.one_of("final_sigmas_type", {"zero": "zero", "sigma_min": "first"})
    return end


def read_ladder(values: Values) -> str | None:
    """The ladder that is asked for.

    Raises:
        CheckpointError: two at once.
    """
    fields = {"use_karras_sigmas": "karras", "use_exponential_sigmas": "exponential", "use_beta_sigmas": "beta"}
    asked = [field for field in fields if values.flag(field)]
    if len(asked) > 1:
        raise values.refusal(asked[1], f"{asked[0]} asks for another ladder")
    return fields[asked[0]] if asked else None


def read_clip(values: Values) -> float | None:
    """The limit of the belief. Thresholding at most at 1, diffusers' default, is clipping at 1."""
    if values.flag("thresholding"):
        values.idle("dynamic_thresholding_ratio", "clip_sample", "clip_sample_range")
        values.only("sample_max_value", 1.0, "thresholding above 1 is not part of a model's own sampling")
        return 1.0
    values.idle("dynamic_thresholding_ratio", "sample_max_value")
    if values.flag("clip_sample"):
        return float(values.take("clip_sample_range"))
    values.idle("clip_sample_range")
    return None
