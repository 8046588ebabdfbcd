"""The table of betas and the prediction type that most schedulers share.

diffusers builds two tables from a function f of time, β_n = min(1 − f(n/T)/f((n − 1)/T), 0.999): the `exp` one with
f = e^(−12 t), and the `laplace` one with f = sqrt(s/(1 + s)), s the signal-to-noise ratio of a Laplace law. A product
of 1 − β is ᾱ = α², so the square root there gives a table that is not the one its name promises; the model was trained
on it all the same, and it is read as what it is.
"""

import math
from collections.abc import Callable
from itertools import pairwise

from neblina.bundle.schedulers.values import Values
from neblina.processes.schedules import Schedule, make_schedule
from neblina.processes.tables import Betas

SCHEDULES = {
    "linear": "linear",
    "scaled_linear": "scaled-linear",
    "squaredcos_cap_v2": "cosine",
    "sigmoid": "sigmoid",
}
PREDICTIONS = {"epsilon": "eps", "sample": "x0", "original_sample": "x0", "v_prediction": "v"}


def read_table(
    values: Values,
    *names: str,
    predictions: tuple[str, ...] = ("epsilon", "sample", "v_prediction"),
) -> tuple[Schedule, str]:
    """The schedule and the parameterisation.

    Args:
        values: the scheduler's fields.
        names: the beta schedules that the scheduler has; linear, scaled_linear and squaredcos_cap_v2 if none is given.
        predictions: the prediction types that it has.
    """
    parameterisation = values.one_of("prediction_type", {name: PREDICTIONS[name] for name in predictions})
    name = values.one_of(
        "beta_schedule", {name: name for name in names or ("linear", "scaled_linear", "squaredcos_cap_v2")}
    )
    steps = values.take("num_train_timesteps")
    zero_snr = values.flag("rescale_betas_zero_snr")
    start, end, trained = values.take("beta_start"), values.take("beta_end"), values.take("trained_betas")
    if trained is not None:
        if len(trained) != steps:
            raise values.refusal("num_train_timesteps", f"trained_betas has {len(trained)} values")
        return Betas(zero_snr=zero_snr, values=tuple(map(float, trained))), parameterisation
    if name in FUNCTIONS:
        return Betas(zero_snr=zero_snr, values=betas_of(FUNCTIONS[name], steps)), parameterisation
    ends = {} if name == "squaredcos_cap_v2" else {"beta_start": start, "beta_end": end}
    return make_schedule(SCHEDULES[name], steps=steps, zero_snr=zero_snr, **ends), parameterisation


def betas_of(function: Callable[[float], float], steps: int) -> tuple[float, ...]:
    """β_1 … β_T of a function of t that a product of 1 − β follows."""
    values = [function(step / steps) for step in range(steps + 1)]
    return tuple(min(1 - after / before, 0.999) for before, after in pairwise(values))


def _laplace(t: float) -> float:
    half_log_snr = -0.5 * math.copysign(1, 0.5 - t) * math.log(1 - 2 * abs(0.5 - t) + 1e-6)
    snr = math.exp(half_log_snr)
    return math.sqrt(snr / (1 + snr))


FUNCTIONS: dict[str, Callable[[float], float]] = {"exp": lambda t: math.exp(-12 * t), "laplace": _laplace}
