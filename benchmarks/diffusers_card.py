"""The samplers' card, measured for diffusers' schedulers at their defaults.

    python benchmarks/diffusers_card.py --out docs/samplers-diffusers.json

The denoiser is exact and told to the scheduler as eps; N(0, s²) under the linear schedule of 1000 steps. A scheduler
takes as many inference steps as stay within the evaluations. 2^17 numbers a run, from noise of exactly the schedule's
width: the sampling error of a stochastic one is 0.2 %.
"""

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import diffusers
import torch

from neblina.core.conditions import Condition
from neblina.denoisers.oracles import gaussian_denoiser
from neblina.evaluation.card import EVALUATIONS, PROBLEMS, PROCESS

STOCHASTIC = {"DDPMScheduler", "EulerAncestralDiscreteScheduler", "KDPM2AncestralDiscreteScheduler"}
NAMES = (
    "DDPMScheduler",
    "DDIMScheduler",
    "PNDMScheduler",
    "LMSDiscreteScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverSinglestepScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
)


def std_error(name: str, std: float, steps: int) -> tuple[float, int]:
    """Relative error of the sampled standard deviation, and the evaluations it took."""
    settings: dict[str, Any] = {"beta_schedule": "linear", "num_train_timesteps": 1000}
    if name in ("DDPMScheduler", "DDIMScheduler"):
        settings["clip_sample"] = False  # the problems are not pictures
    scheduler = getattr(diffusers, name)(**settings)
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 2**17, generator=generator, dtype=torch.float64)
    x = x / x.square().mean().sqrt() * float(scheduler.init_noise_sigma)
    denoiser = gaussian_denoiser(PROCESS, 0.0, std)
    for index in scheduler.timesteps:
        given = scheduler.scale_model_input(x, index).double()
        t = (torch.as_tensor(index, dtype=torch.float64).reshape(1) + 1) / 1000
        alpha, sigma = PROCESS.schedule.alpha(t), PROCESS.schedule.sigma(t)
        eps = (given - alpha * denoiser.posterior(given, t, Condition()).mean) / sigma
        extra = {"generator": generator} if name in STOCHASTIC else {}
        x = scheduler.step(eps, index, x, **extra).prev_sample.double()
    return abs(float(x.square().mean().sqrt()) / std - 1), len(scheduler.timesteps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    logging.disable(logging.WARNING)
    rows = []
    for name in NAMES:
        table: dict[str, dict[str, float | None]] = {problem: {} for problem in PROBLEMS}
        for most in EVALUATIONS:
            for problem, std in PROBLEMS.items():
                table[problem][str(most)] = None
                for steps in range(most, 3 if name == "PNDMScheduler" else 1, -1):  # PNDM refuses fewer
                    error, taken = std_error(name, std, steps)
                    if taken <= most:
                        table[problem][str(most)] = float(f"{error:.3g}")
                        break
        rows.append({"name": name, "stochastic": name in STOCHASTIC, "std_error": table})
        print(json.dumps(rows[-1], ensure_ascii=False))
    out.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
