"""Readers of the schedulers of EDM and of the variance-exploding SDE."""

from neblina.bundle.schedulers.conversion import Conversion
from neblina.bundle.schedulers.parts import read_clip, read_final
from neblina.bundle.schedulers.solvers import multistep
from neblina.bundle.schedulers.values import Values
from neblina.processes.continuous import EDM, VE
from neblina.processes.foreign_continuous import EDMGrid, ScoreGrid


def edm(values: Values) -> Conversion:
    """EDMEulerScheduler and EDMDPMSolverMultistepScheduler."""
    values.only("prediction_type", "epsilon", "an EDM network's output is added (c_out > 0)")
    values.only("sigma_data", 0.5, "the parameterisation assumes pictures of standard deviation 0.5")
    values.take("num_train_timesteps")  # of the levels before a walk is chosen, which no walk uses
    karras = values.one_of("sigma_schedule", {"karras": True, "exponential": False})
    low, high, rho = values.take("sigma_min"), values.take("sigma_max"), values.take("rho")
    grid = EDMGrid(low, high, rho if karras else None, ends_at_zero=read_final(values) == "zero")
    sampler, settings, short = ("ddim", {}, {}) if "solver_order" not in values else multistep(values)
    clip = read_clip(values)
    return Conversion(EDM(high), "edm", sampler, grid, clip=clip, settings=settings, short=short)


def score(values: Values) -> Conversion:
    """ScoreSdeVeScheduler: the predictor-corrector of the VE SDE."""
    low, high = values.take("sigma_min"), values.take("sigma_max")
    return Conversion(
        VE(low, high),
        "score",
        "predictor_corrector",
        ScoreGrid(low, high, values.take("sampling_eps")),
        steps=values.take("num_train_timesteps"),
        clock="sigma",
        settings={"snr": values.take("snr"), "corrections": values.take("correct_steps")},
    )
