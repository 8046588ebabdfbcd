"""What a value of each field may be: its kind and its range, held to before anything is made of it.

A field may be null only where null is its default.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Range:
    """What a value may be.

    Attributes:
        says: the rest of a sentence that begins with "it is".
        holds: whether a value is that.
    """

    says: str
    holds: Callable[[Any], bool]


def whole(least: int, most: int = 1_000_000) -> Range:
    """Whole numbers from `least` to `most`: a table of so many betas still fits."""
    return Range(
        f"a whole number from {least} to {most}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most,
    )


def number(says: str, holds: Callable[[float], bool]) -> Range:
    """Numbers in a range, finite in double precision."""
    return Range(says, lambda value: _is_number(value) and abs(value) <= sys.float_info.max and holds(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_list_in(value: Any, kind: Range) -> bool:
    return isinstance(value, list | tuple) and all(kind.holds(entry) for entry in value)


FLAG = Range("true or false", lambda value: isinstance(value, bool))
NAME = Range("a name", lambda value: isinstance(value, str))
ANY = number("a number", lambda value: True)
POSITIVE = number("a number above 0", lambda value: value > 0)
INSIDE = number("a number between 0 and 1, neither of them", lambda value: 0 < value < 1)
SHARE = number("a number between 0 and 1", lambda value: 0 <= value <= 1)
BELOW_ONE = number("a number from 0 to below 1", lambda value: 0 <= value < 1)
FLOOR = Range("a number or −∞", lambda value: ANY.holds(value) or value == -math.inf)
BETAS = Range("a list of numbers between 0 and 1, neither of them", lambda value: _is_list_in(value, INSIDE))
PLACES = Range("a list of whole numbers", lambda value: _is_list_in(value, whole(0)))

RANGES: dict[str, Range] = {
    "num_train_timesteps": whole(1),
    "beta_start": INSIDE,
    "beta_end": INSIDE,
    "beta_schedule": NAME,
    "trained_betas": BETAS,
    "prediction_type": NAME,
    "steps_offset": whole(0),
    "clip_sample": FLAG,
    "clip_sample_range": POSITIVE,
    "thresholding": FLAG,
    "dynamic_thresholding_ratio": SHARE,
    "sample_max_value": POSITIVE,
    "variance_type": NAME,
    "timestep_spacing": NAME,
    "timestep_type": NAME,
    "rescale_betas_zero_snr": FLAG,
    "set_alpha_to_one": FLAG,
    "skip_prk_steps": FLAG,
    "use_karras_sigmas": FLAG,
    "use_exponential_sigmas": FLAG,
    "use_beta_sigmas": FLAG,
    "use_lu_lambdas": FLAG,
    "interpolation_type": NAME,
    "final_sigmas_type": NAME,
    "noise_sampler_seed": whole(0),
    "algorithm_type": NAME,
    "solver_order": whole(1),
    "solver_type": NAME,
    "lower_order_final": FLAG,
    "euler_at_final": FLAG,
    "lambda_min_clipped": FLOOR,
    "predict_x0": FLAG,
    "disable_corrector": PLACES,
    "solver_p": NAME,
    "use_flow_sigmas": FLAG,
    "flow_shift": POSITIVE,
    "use_dynamic_shifting": FLAG,
    "time_shift_type": NAME,
    "shift": POSITIVE,
    "shift_terminal": BELOW_ONE,
    "base_shift": ANY,
    "max_shift": ANY,
    "base_image_seq_len": whole(1),
    "max_image_seq_len": whole(1),
    "invert_sigmas": FLAG,
    "stochastic_sampling": FLAG,
    "sigma_min": POSITIVE,
    "sigma_max": POSITIVE,
    "sigma_data": POSITIVE,
    "sigma_schedule": NAME,
    "rho": POSITIVE,
    "snr": POSITIVE,
    "sampling_eps": INSIDE,
    "correct_steps": whole(0),
}
