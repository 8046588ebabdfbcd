"""Readers of the schedulers that visit a table: DDPM, DDIM, PNDM, and those that come from k-diffusion."""

from collections.abc import Callable

from neblina.bundle.schedulers.conversion import Conversion
from neblina.bundle.schedulers.parts import (
    read_alpha_end,
    read_clip,
    read_final,
    read_ladder,
    read_offset,
    read_spacing,
)
from neblina.bundle.schedulers.tables import read_table
from neblina.bundle.schedulers.values import Values
from neblina.processes.foreign_tables import TableGrid


def ddpm(values: Values) -> Conversion:
    """DDPMScheduler and its parallel twin: the variance type is the sampler."""
    samplers = {"fixed_small": "ddpm", "fixed_small_log": "ddpm", "fixed_large": "ddpm_large"}
    variance = values.one_of("variance_type", {**samplers, "learned_range": "ddpm_learned"})
    names = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace")
    schedule, parameterisation = read_table(values, *names)
    return Conversion(
        schedule,
        parameterisation,
        variance,
        TableGrid(spacing=read_spacing(values), offset=read_offset(values)),
        steps=values.take("num_train_timesteps"),
        clip=read_clip(values),
        learned_variance=variance == "ddpm_learned",
    )


def ddim(values: Values) -> Conversion:
    """DDIMScheduler and its parallel twin: steps keep the direction of the raw ε where the belief is clipped."""
    schedule, parameterisation = read_table(values)
    clip = read_clip(values)
    grid = TableGrid(spacing=read_spacing(values), offset=read_offset(values), end=read_alpha_end(values))
    return Conversion(schedule, parameterisation, "ddim", grid, clip=clip, clip_keeps_direction=clip is not None)


def pndm(values: Values) -> Conversion:
    """PNDMScheduler: with or without its Runge-Kutta start."""
    schedule, parameterisation = read_table(values, predictions=("epsilon", "v_prediction"))
    grid = TableGrid(spacing=read_spacing(values), offset=read_offset(values), end=read_alpha_end(values))
    return Conversion(schedule, parameterisation, "plms" if values.take("skip_prk_steps") else "pndm", grid)


def levels(sampler: str, *, rounding: str = "none", clean: bool = True) -> Callable[[Values], Conversion]:
    """A reader of the schedulers that come from k-diffusion.

    Args:
        sampler: a registered name.
        rounding: of the index that is told under the karras ladder.
        clean: whether a network may predict clean data.
    """

    def read(values: Values) -> Conversion:
        names = ("linear", "scaled_linear", "squaredcos_cap_v2") + (("exp",) if sampler == "heun_edm" else ())
        predictions = ("epsilon", "v_prediction") + (("sample",) if clean else ())
        if values.kind == "EulerDiscreteScheduler":
            predictions = (*predictions, "original_sample")
        schedule, parameterisation = read_table(values, *names, predictions=predictions)
        if parameterisation == "v":
            values.only("timestep_type", "discrete", "its network is told c_noise on a walk that leaves the table")
        values.idle("timestep_type")  # which only a v network looks at
        values.only("noise_sampler_seed", None, "a seed is given when pictures are asked for")
        spacing, ladder = read_spacing(values), read_ladder(values)
        log_linear = "interpolation_type" in values and values.one_of(
            "interpolation_type", {"linear": False, "log_linear": True}
        )
        if ladder is not None and log_linear:
            raise values.refusal("interpolation_type", "a ladder beside it replaces what it interpolates")
        if ladder is None:
            values.idle("sigma_min", "sigma_max")
        grid = TableGrid(
            spacing=spacing,
            offset=read_offset(values),
            whole=False,
            ladder=ladder,
            **{key: values.take(key) for key in ("sigma_min", "sigma_max") if ladder and key in values},
            rounding=rounding if ladder == "karras" else "none",
            end=read_final(values),
            starts_at_sigma=spacing != "leading",
            capped=values.flag("rescale_betas_zero_snr"),
            log_linear=log_linear,
        )
        return Conversion(schedule, parameterisation, sampler, grid, clip=read_clip(values))

    return read
