"""Readers of the schedulers of straight lines, and of the solvers that are told to walk on them."""

import math
from collections.abc import Callable

from neblina.bundle.schedulers.conversion import Conversion
from neblina.bundle.schedulers.parts import read_final, read_ladder
from neblina.bundle.schedulers.values import Values
from neblina.core.errors import SettingError
from neblina.processes.continuous import Flow
from neblina.processes.foreign_continuous import FlowGrid


def lines(sampler: str) -> Callable[[Values, float | None], Conversion]:
    """A reader of the schedulers of straight lines."""

    def read(values: Values, mu: float | None) -> Conversion:
        _told_in_thousands(values)
        values.only("invert_sigmas", False, "it walks from data to noise")
        values.only("stochastic_sampling", False, "it draws all of the noise anew at every step")
        dynamic = values.flag("use_dynamic_shifting")
        shift = _shift(values, mu, "shift")
        grid = FlowGrid(
            shift,
            shifts_last=not dynamic,
            terminal=(values.take("shift_terminal") or None) if "shift_terminal" in values else None,
            ladder=read_ladder(values),
        )
        return Conversion(Flow(), "flow", sampler, grid, clock="time")

    return read


def solver_on_lines(values: Values, mu: float | None) -> FlowGrid:
    """The walk of DPM-Solver++, DEIS and UniPC over straight lines."""
    values.idle("beta_start", "beta_end", "beta_schedule", "trained_betas", "timestep_spacing", "steps_offset")
    values.idle("rescale_betas_zero_snr", "lambda_min_clipped", "sigma_min", "sigma_max")
    _told_in_thousands(values)
    if read_ladder(values) is not None:
        raise values.refusal("use_flow_sigmas", "a ladder beside it is one of the table of betas")
    unipc, deis = values.kind == "UniPCMultistepScheduler", values.kind == "DEISMultistepScheduler"
    clean = not deis and read_final(values) == "zero"
    if not clean and not deis and not unipc:
        raise values.refusal("final_sigmas_type", "beside use_flow_sigmas it ends at a level of the table of betas")
    return FlowGrid(
        _shift(values, mu, "flow_shift"),
        even="inner" if unipc else "outer",
        terminal=(values.take("shift_terminal") or None) if unipc else None,
        whole=True,
        below_one=unipc,
        ends_at_zero=clean,
    )


def _told_in_thousands(values: Values) -> None:
    values.only("num_train_timesteps", 1000, "the clock of straight lines tells the network 1000 t")


def _shift(values: Values, mu: float | None, field: str) -> float:
    """The shift of straight lines; e^μ, or μ itself where time_shift_type is linear, under dynamic shifting."""
    # what a pipeline works μ out with
    values.idle("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len")
    if not values.flag("use_dynamic_shifting"):
        values.idle("time_shift_type")
        return float(values.take(field))
    values.idle(field)
    if mu is None:
        reason = "the shift depends on the size of the picture; give its logarithm, mu"
        raise values.refusal("use_dynamic_shifting", reason)
    linear = values.one_of("time_shift_type", {"exponential": False, "linear": True})
    if not abs(mu) <= 100 or (linear and mu <= 0):
        at = "the shift itself, above 0 and at most 100" if linear else "the shift's logarithm, from -100 to 100"
        raise SettingError(f"{values.kind}: mu = {mu:g} must be a number: {at}")
    return mu if linear else math.exp(mu)
