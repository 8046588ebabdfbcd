"""The samplers against diffusers' schedulers: equal weights, noise and walk.

Both sides ask one small network of random weights. What is compared is everything it was asked, evaluation by
evaluation: the input it was given, the time it was told, and the sample at the end.
"""

from typing import Any

import pytest
from parity.harness import Case, agree, replay

# NumPy's, where a scheduler meets a table in float64
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

EPS, V, X0 = ({"prediction_type": name} for name in ("epsilon", "v_prediction", "sample"))
ALL, NO_X0 = (EPS, V, X0), (EPS, V)
LEADING, TRAILING, KARRAS, EXPONENTIAL, BETA = (
    {"timestep_spacing": "leading", "steps_offset": 1},
    {"timestep_spacing": "trailing"},
    {"use_karras_sigmas": True},
    {"use_exponential_sigmas": True},
    {"use_beta_sigmas": True},
)
COSINE, ZERO = {"beta_schedule": "squaredcos_cap_v2"}, {"rescale_betas_zero_snr": True}
# these schedulers hold x/α in float32, which loses 1e-3 of x at the 20,000 that σ/α is at the cosine table's end
GENTLE = {**COSINE, "timestep_spacing": "leading"}
SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
LINSPACE, UNCLIPPED, OFF_DATA = {"timestep_spacing": "linspace"}, {"clip_sample": False}, {"set_alpha_to_one": False}
EXP, SDE = {"beta_schedule": "exp"}, {"algorithm_type": "sde-dpmsolver++"}
EXPONENTIAL_EDM, TO_SIGMA_MIN = {"sigma_schedule": "exponential"}, {"final_sigmas_type": "sigma_min"}
OWN = {"num_train_timesteps": 40, "trained_betas": [0.001 + 0.004 * n for n in range(40)]}


def cases(kind: str, predictions: Any, options: Any, **common: Any) -> list[Case]:
    """Every prediction with the first option, and the first two with every other."""
    first, *rest = options
    found = [Case(kind, {**common, **prediction, **first}) for prediction in predictions]
    for number, option in enumerate(rest):
        found.append(Case(kind, {**common, **predictions[number % 2], **option}, steps=(10, 7)[number % 2]))
    return found


LADDERS = (KARRAS, EXPONENTIAL, BETA)
CASES = [
    *cases("DDPMScheduler", ALL, ({}, LEADING, LINSPACE, {**V, **TRAILING, **ZERO}, COSINE, OWN)),
    *cases("DDPMScheduler", ALL, (UNCLIPPED, SD, {"variance_type": "fixed_large"})),
    Case("DDPMScheduler", {"beta_schedule": "laplace", "clip_sample": False, **V}),
    Case("DDPMScheduler", {"beta_schedule": "sigmoid", "thresholding": True}),
    Case("DDPMScheduler", {"variance_type": "fixed_small_log"}),
    Case("DDPMScheduler", {"variance_type": "learned_range", **COSINE}),
    Case("DDPMScheduler", {"variance_type": "learned_range", **V}, steps=10),
    *cases("DDIMScheduler", ALL, ({}, LEADING, OFF_DATA, UNCLIPPED, {"thresholding": True})),
    Case("DDIMScheduler", {**V, **TRAILING, **ZERO, **SD}, steps=10),
    *(Case("PNDMScheduler", {"skip_prk_steps": True, **more}) for more in ({}, LEADING, {"set_alpha_to_one": True})),
    *(Case("PNDMScheduler", more, steps=10) for more in ({}, LEADING, {"set_alpha_to_one": True})),
    *cases("EulerDiscreteScheduler", ALL, ({}, LEADING, TRAILING, *LADDERS, SD, GENTLE)),
    Case("EulerDiscreteScheduler", {**V, **TRAILING, **ZERO}),
    Case("EulerDiscreteScheduler", TO_SIGMA_MIN),
    Case("EulerDiscreteScheduler", {"interpolation_type": "log_linear"}),
    Case("EulerDiscreteScheduler", {**KARRAS, "sigma_min": 0.05, "sigma_max": 12.0}),
    Case("EulerDiscreteScheduler", {"prediction_type": "original_sample"}),
    *cases("EulerAncestralDiscreteScheduler", NO_X0, ({}, LEADING, TRAILING, SD, GENTLE)),
    Case("EulerAncestralDiscreteScheduler", {**V, **TRAILING, **ZERO}),
    *cases("LMSDiscreteScheduler", ALL, ({}, LEADING, TRAILING, *LADDERS, GENTLE)),
    *cases("HeunDiscreteScheduler", ALL, ({}, LEADING, TRAILING, *LADDERS, {"clip_sample": True}, EXP)),
    *cases("KDPM2DiscreteScheduler", NO_X0, ({}, LEADING, TRAILING, *LADDERS)),
    *cases("KDPM2AncestralDiscreteScheduler", NO_X0, ({}, LEADING, TRAILING, EXPONENTIAL, BETA)),
    *cases("DPMSolverSDEScheduler", NO_X0, ({}, LEADING, TRAILING, *LADDERS)),
    *cases("DPMSolverMultistepScheduler", ALL, ({}, LEADING, TRAILING, *LADDERS, SD, COSINE)),
    Case("DPMSolverMultistepScheduler", {**V, **TRAILING, **ZERO}),
    Case("DPMSolverMultistepScheduler", {"lambda_min_clipped": -5.1, **COSINE}),
    Case("DPMSolverMultistepScheduler", {**KARRAS, **COSINE, "lower_order_final": False}),
    Case("DPMSolverMultistepScheduler", TO_SIGMA_MIN),
    Case("DPMSolverMultistepScheduler", TO_SIGMA_MIN, steps=16),
    Case("DPMSolverMultistepScheduler", {**TO_SIGMA_MIN, "euler_at_final": True}, steps=16),
    Case("DPMSolverMultistepScheduler", {"solver_type": "heun"}),
    Case("DPMSolverMultistepScheduler", {"solver_order": 1}),
    *cases(
        "DPMSolverMultistepScheduler", ALL, ({}, LEADING, KARRAS, {"solver_order": 1}), algorithm_type="sde-dpmsolver++"
    ),
    Case("DPMSolverMultistepScheduler", {"thresholding": True}),
    *cases("DEISMultistepScheduler", ALL, ({}, LEADING, TRAILING, *LADDERS, {"solver_order": 3}, {"solver_order": 1})),
    Case("DEISMultistepScheduler", {"solver_order": 3}, steps=16),
    *cases("UniPCMultistepScheduler", ALL, ({}, LEADING, TRAILING, *LADDERS, {"solver_order": 3}, {"solver_order": 1})),
    Case("UniPCMultistepScheduler", TO_SIGMA_MIN),
    Case("UniPCMultistepScheduler", {**TO_SIGMA_MIN, "lower_order_final": False}),
    Case("UniPCMultistepScheduler", {**V, **TRAILING, **ZERO}),
    *cases(
        "EDMEulerScheduler",
        ({},) * 2,
        ({}, EXPONENTIAL_EDM, TO_SIGMA_MIN, {"rho": 5.0}),
    ),
    *cases(
        "EDMDPMSolverMultistepScheduler",
        ({},) * 2,
        ({}, EXPONENTIAL_EDM, SDE),
    ),
    Case("EDMDPMSolverMultistepScheduler", {**TO_SIGMA_MIN, "solver_type": "heun"}),
    Case("ScoreSdeVeScheduler"),
    Case("ScoreSdeVeScheduler", {"snr": 0.1, "sigma_max": 50.0, "correct_steps": 2}),
    *cases("FlowMatchEulerDiscreteScheduler", ({},) * 2, ({}, {"shift": 3.0}, *LADDERS, {"shift_terminal": 0.1})),
    *cases("FlowMatchHeunDiscreteScheduler", ({},) * 2, ({}, {"shift": 3.0})),
]
ON_LINES = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
CASES += [
    Case("DPMSolverMultistepScheduler", {**ON_LINES, "flow_shift": 3.0}),
    Case("DEISMultistepScheduler", {**ON_LINES, "flow_shift": 3.0}),
    Case("UniPCMultistepScheduler", {**ON_LINES, "flow_shift": 3.0}),
    Case("UniPCMultistepScheduler", {**ON_LINES, "flow_shift": 3.0, **TO_SIGMA_MIN}),
    Case("UniPCMultistepScheduler", {**ON_LINES, "shift_terminal": 0.1}),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_network_is_asked_the_same_at_every_evaluation(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    if case.kind == "DPMSolverSDEScheduler":
        pytest.importorskip("torchsde", reason="diffusers' DPMSolverSDEScheduler needs it")
    replay(case.kind, monkeypatch)
    agree(case)
