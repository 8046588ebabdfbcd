"""Every field of every diffusers scheduler that can be read, with its default; and the schedulers that cannot, and why.

The defaults are those of diffusers 0.42. A field of another scheduler is passed over where it asks for nothing; a field
that a later version adds is in no table here, and is refused by name.
"""

from typing import Any

_TABLE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "steps_offset": 0,
}
_CLIPPED = {"clip_sample": True, "clip_sample_range": 1.0}
_THRESHOLD = {"thresholding": False, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0}
_LADDERS = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
_K_DIFFUSION = {**_TABLE, "beta_start": 0.00085, "beta_end": 0.012, **_LADDERS, "timestep_spacing": "linspace"}
_DDPM = {
    **_TABLE,
    **_CLIPPED,
    **_THRESHOLD,
    "variance_type": "fixed_small",
    "timestep_spacing": "leading",
    "rescale_betas_zero_snr": False,
}
_DDIM = {
    **_TABLE,
    **_CLIPPED,
    **_THRESHOLD,
    "set_alpha_to_one": True,
    "timestep_spacing": "leading",
    "rescale_betas_zero_snr": False,
}
_SOLVER = {
    **_TABLE,
    **_THRESHOLD,
    **_LADDERS,
    "solver_order": 2,
    "solver_type": "midpoint",
    "lower_order_final": True,
    "use_flow_sigmas": False,
    "flow_shift": 1.0,
    "timestep_spacing": "linspace",
    "use_dynamic_shifting": False,
    "time_shift_type": "exponential",
}
_DPM = {
    **_SOLVER,
    "algorithm_type": "dpmsolver++",
    "final_sigmas_type": "zero",
    "lambda_min_clipped": -float("inf"),
    "variance_type": None,
}
_EDM = {
    "sigma_min": 0.002,
    "sigma_max": 80.0,
    "sigma_data": 0.5,
    "sigma_schedule": "karras",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "rho": 7.0,
    "final_sigmas_type": "zero",
}

FIELDS: dict[str, dict[str, Any]] = {
    "DDPMScheduler": _DDPM,
    "DDPMParallelScheduler": _DDPM,
    "DDIMScheduler": _DDIM,
    "DDIMParallelScheduler": _DDIM,
    "PNDMScheduler": {**_TABLE, "skip_prk_steps": False, "set_alpha_to_one": False, "timestep_spacing": "leading"},
    "EulerDiscreteScheduler": {
        **_TABLE,
        **_LADDERS,
        "interpolation_type": "linear",
        "sigma_min": None,
        "sigma_max": None,
        "timestep_spacing": "linspace",
        "timestep_type": "discrete",
        "rescale_betas_zero_snr": False,
        "final_sigmas_type": "zero",
    },
    "EulerAncestralDiscreteScheduler": {**_TABLE, "timestep_spacing": "linspace", "rescale_betas_zero_snr": False},
    "LMSDiscreteScheduler": {**_TABLE, **_LADDERS, "timestep_spacing": "linspace"},
    "HeunDiscreteScheduler": {**_K_DIFFUSION, "clip_sample": False, "clip_sample_range": 1.0},
    "KDPM2DiscreteScheduler": _K_DIFFUSION,
    "KDPM2AncestralDiscreteScheduler": _K_DIFFUSION,
    "DPMSolverSDEScheduler": {**_K_DIFFUSION, "noise_sampler_seed": None},
    "DPMSolverMultistepScheduler": {
        **_DPM,
        "euler_at_final": False,
        "use_lu_lambdas": False,
        "rescale_betas_zero_snr": False,
    },
    "DEISMultistepScheduler": {**_SOLVER, "algorithm_type": "deis", "solver_type": "logrho"},
    "UniPCMultistepScheduler": {
        **_SOLVER,
        "solver_type": "bh2",
        "predict_x0": True,
        "disable_corrector": [],
        "solver_p": None,
        "final_sigmas_type": "zero",
        "rescale_betas_zero_snr": False,
        "sigma_min": None,
        "sigma_max": None,
        "shift_terminal": None,
    },
    "EDMEulerScheduler": _EDM,
    "EDMDPMSolverMultistepScheduler": {
        **_EDM,
        **_THRESHOLD,
        "solver_order": 2,
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "lower_order_final": True,
        "euler_at_final": False,
    },
    "ScoreSdeVeScheduler": {
        "num_train_timesteps": 2000,
        "snr": 0.15,
        "sigma_min": 0.01,
        "sigma_max": 1348.0,
        "sampling_eps": 1e-5,
        "correct_steps": 1,
    },
    "FlowMatchEulerDiscreteScheduler": {
        "num_train_timesteps": 1000,
        "shift": 1.0,
        "use_dynamic_shifting": False,
        "base_shift": 0.5,
        "max_shift": 1.15,
        "base_image_seq_len": 256,
        "max_image_seq_len": 4096,
        "invert_sigmas": False,
        "shift_terminal": None,
        **_LADDERS,
        "time_shift_type": "exponential",
        "stochastic_sampling": False,
    },
    "FlowMatchHeunDiscreteScheduler": {"num_train_timesteps": 1000, "shift": 1.0},
}

# fields that were taken out of diffusers
_GONE: dict[str, Any] = {"timestep_values": None, "tensor_format": "pt", "predict_epsilon": True}

# what a scheduler's fields may say in another scheduler's file, beside False and None: published models carry along
# what the schedulers that they had before looked at, and nobody looks at it any more
LEFT_OVER: dict[str, list[Any]] = {
    **{
        field: [table[field] for table in FIELDS.values() if field in table]
        for field in {field for table in FIELDS.values() for field in table}
    },
    "clip_sample": [],
    "skip_prk_steps": [True],
    "set_alpha_to_one": [True],
    **{field: [value] for field, value in _GONE.items()},
}

_DISTILLED = "it samples a distilled network, for which this package has no sampler"
_DISCRETE = "it samples tokens, and this package reads Gaussian processes"
_TASK = "it belongs to one task or model family, for which this package has no pipeline"
_INVERSE = (
    "it walks from data to noise, which no command does; write a DDIMScheduler into the folder to sample, and invert "
    "in Python with neblina.samplers.ancestral.ddim_invert"
)

REFUSED: dict[str, str] = {
    "DPMSolverSinglestepScheduler": "it places the middle of a step on the grid, not in the step; use "
    "DPMSolverMultistepScheduler, or the sampler dpmpp_2s on a grid of this package",
    "DPMSolverMultistepInverseScheduler": _INVERSE,
    "DDIMInverseScheduler": _INVERSE,
    "IPNDMScheduler": "it knows no table of betas, only its own clock",
    "SASolverScheduler": "this package has no SA-Solver; use DPMSolverMultistepScheduler with sde-dpmsolver++",
    "RePaintScheduler": "it needs a picture and a mask for every call",
    "UnCLIPScheduler": _TASK,
    "DDPMWuerstchenScheduler": _TASK,
    "CogVideoXDDIMScheduler": _TASK,
    "CogVideoXDPMScheduler": _TASK,
    "CosineDPMSolverMultistepScheduler": _TASK,
    "LTXEulerAncestralRFScheduler": _TASK,
    "HeliosScheduler": _TASK,
    "HeliosDMDScheduler": _DISTILLED,
    "MiniMaxH3Scheduler": _TASK,
    "RFD4ProteinaScheduler": _TASK,
    "ConsistencyDecoderScheduler": _DISTILLED,
    "CMStochasticIterativeScheduler": _DISTILLED,
    "LCMScheduler": _DISTILLED,
    "TCDScheduler": _DISTILLED,
    "SCMScheduler": _DISTILLED,
    "FlowMatchLCMScheduler": _DISTILLED,
    "FlowMapEulerDiscreteScheduler": _DISTILLED,
    "PiflowScheduler": _DISTILLED,
    "AmusedScheduler": _DISCRETE,
    "VQDiffusionScheduler": _DISCRETE,
    "BlockRefinementScheduler": _DISCRETE,
    "DiscreteDDIMScheduler": _DISCRETE,
    "EntropyBoundScheduler": _DISCRETE,
}
