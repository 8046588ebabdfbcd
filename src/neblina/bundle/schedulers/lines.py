"""Readers of the schedulers of straight lines, and of the solvers that are told to walk on them."""

from collections.abc import Callable

from neblina.bundle.schedulers.conversion import Conversion
from neblina.bundle.schedulers.parts import read_final, read_ladder
from neblina.bundle.schedulers.values import Values
from neblina.processes.continuous import Flow
from neblina.processes.foreign_continuous import FlowGrid


def lines(sampler: str) -> Callable[[Values], Conversion]:
    """A reader of the schedulers of straight lines."""

    def read(values: Values) -> Conversion:
        _told_in_thousands(values)
        values.only("invert_sigmas", False, "it walks from data to noise")
        values.only("stochastic_sampling", False, "it draws all of the noise anew at every step")
        grid = FlowGrid(
            _shift(values, "shift"),
            terminal=(values.take("shift_terminal") or None) if "shift_terminal" in values else None,
            ladder=read_ladder(values),
        )
        return Conversion(Flow(), "flow", sampler, grid, clock="time")

    return read


def solver_on_lines(values: Values) -> FlowGrid:
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
        _shift(values, "flow_shift"),
        even="inner" if unipc else "outer",
        terminal=(values.take("shift_terminal") or None) if unipc else None,
        whole=True,
        below_one=unipc,
        ends_at_zero=clean,
    )


def _told_in_thousands(values: Values) -> None:
    values.only("num_train_timesteps", 1000, "the clock of straight lines tells the network 1000 t")


def _shift(values: Values, field: str) -> float:
    """The shift of straight lines, of one size of picture."""
    values.only("use_dynamic_shifting", False, "the shift then depends on the size of the picture")
    # what a pipeline works that one out with
    values.idle("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "time_shift_type")
    return float(values.take(field))
