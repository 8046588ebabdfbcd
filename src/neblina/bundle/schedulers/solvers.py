"""Readers of the multistep solvers: DPM-Solver++, DEIS and UniPC."""

import math
from collections.abc import Mapping
from typing import Any

from neblina.bundle.schedulers.conversion import Conversion
from neblina.bundle.schedulers.lines import solver_on_lines
from neblina.bundle.schedulers.parts import read_clip, read_final, read_ladder, read_offset, read_spacing
from neblina.bundle.schedulers.tables import read_table
from neblina.bundle.schedulers.values import Values
from neblina.processes.continuous import Flow
from neblina.processes.foreign_tables import TableGrid


def dpm(values: Values) -> Conversion:
    """DPMSolverMultistepScheduler: DPM-Solver++ and its SDE."""
    sampler, settings, short = multistep(values)
    values.only("variance_type", None, "it drops a learned variance; read the model with a DDPMScheduler")
    values.only("use_lu_lambdas", False, "its levels are those of use_exponential_sigmas")
    return _solver(values, sampler, settings, short)


def deis(values: Values) -> Conversion:
    """DEISMultistepScheduler."""
    # one algorithm under three names
    values.one_of("algorithm_type", dict.fromkeys(("deis", "dpmsolver", "dpmsolver++")))
    values.one_of("solver_type", dict.fromkeys(("logrho", "midpoint", "heun", "bh1", "bh2")))
    memory = values.one_of("solver_order", {1: 1, 2: 2, 3: 3})
    short = {"lower_order_final": True} if values.take("lower_order_final") else {}
    return _solver(values, "deis", {"memory": memory}, short)


def unipc(values: Values) -> Conversion:
    """UniPCMultistepScheduler: the solver of the belief with B_2(h)."""
    values.only("predict_x0", True, "only the solver of the belief is here")
    values.only("disable_corrector", [], "every step is corrected")
    values.only("solver_p", None, "the predictor is UniPC's own")
    values.one_of("solver_type", dict.fromkeys(("bh2", "midpoint", "heun", "logrho")))  # B_2(h) under four names
    memory = values.one_of("solver_order", {1: 1, 2: 2, 3: 3})
    settings = {"memory": memory, "lower_order_final": bool(values.take("lower_order_final"))}
    return _solver(values, "unipc", settings, {})


def _solver(values: Values, sampler: str, settings: Mapping[str, Any], short: Mapping[str, Any]) -> Conversion:
    """What DPM-Solver++, DEIS and UniPC have in common."""
    clip = read_clip(values)
    if values.take("use_flow_sigmas"):
        values.only("prediction_type", "flow_prediction", "with use_flow_sigmas it can be 'flow_prediction'")
        lines = solver_on_lines(values)
        return Conversion(Flow(), "flow", sampler, lines, clock="time", clip=clip, settings=settings, short=short)
    values.idle("flow_shift", "time_shift_type")
    values.only("use_dynamic_shifting", False, "it belongs to use_flow_sigmas")
    values.only("shift_terminal", None, "it belongs to use_flow_sigmas")
    schedule, parameterisation = read_table(values)
    ladder, end = read_ladder(values), read_final(values)
    whole_under = {"karras"}
    if values.kind == "DPMSolverMultistepScheduler":
        if values.take("beta_schedule") == "squaredcos_cap_v2":
            whole_under = set()
    elif ladder is not None and end == "first":
        end = "last"
    if ladder is None:
        values.idle("sigma_min", "sigma_max")
    ends = {key: values.take(key) for key in ("sigma_min", "sigma_max") if ladder and key in values}
    least = values.take("lambda_min_clipped") if "lambda_min_clipped" in values else -math.inf
    grid = TableGrid(
        spacing=read_spacing(values),
        offset=read_offset(values),
        drops_last=True,
        ladder=ladder,
        **ends,
        rounding="nearest" if ladder in whole_under else "down",
        end=end,
        capped=values.flag("rescale_betas_zero_snr"),
        least_log_snr=least,
    )
    return Conversion(schedule, parameterisation, sampler, grid, clip=clip, settings=settings, short=short)


def multistep(values: Values) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Sampler, settings and those of short walks of DPM-Solver++ with one evaluation a step."""
    noisy = values.one_of("algorithm_type", {"dpmsolver++": False, "sde-dpmsolver++": True})
    # three solver types are other names of midpoint
    exact = values.one_of("solver_type", {"midpoint": False, "heun": True, "logrho": False, "bh1": False, "bh2": False})
    order, always, short = (values.take(key) for key in ("solver_order", "euler_at_final", "lower_order_final"))
    if order not in (1, 2):
        reason = "its third-order step takes half of the second difference; take the sampler dpmpp_3m"
        raise values.refusal("solver_order", reason)
    if order == 1:
        return ("ddpm" if noisy else "ddim"), {}, {}
    if noisy and exact:
        raise values.refusal("solver_type", "the stochastic solver is the midpoint's")
    settings: dict[str, Any] = {"memory": 2} if exact else {}
    if always:
        settings["lower_order_final"] = True
    sampler = "dpmpp_2m_sde" if noisy else "dpmpp_3m" if exact else "dpmpp_2m"
    return sampler, settings, {"lower_order_final": True} if short else {}
