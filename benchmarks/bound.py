"""What the variational bound costs over the exact bits of rounded normal pictures, by where its last step begins.

    python benchmarks/bound.py

The denoiser is the exact one of the normal distribution before rounding, so it does not know that there are levels.
Times are even in log σ/α from 100 to the last ratio, then 0, on straight lines (any schedule is alike).
"""

import math

import numpy as np
import torch
from scipy.stats import norm

from neblina.core.conditions import Condition
from neblina.core.noise import SampleNoise
from neblina.core.plan import conditional
from neblina.denoisers.oracles import gaussian_denoiser
from neblina.objectives.stratified import estimated_terms
from neblina.processes.continuous import Flow
from neblina.processes.gaussian import Eta, GaussianProcess, Large

MEAN, STD, COUNT, SIDE = 0.1, 0.18, 96, 16
LEVEL = 2 / 255


def main() -> None:
    process = GaussianProcess(Flow())
    chance = np.diff(norm.cdf(((np.arange(257) * 2 - 1) / 255 - 1 - MEAN) / STD))
    pixels = np.random.default_rng(0).choice(256, (COUNT, 1, SIDE, SIDE), p=chance / chance.sum())
    exact = torch.from_numpy(-np.log2(chance)[pixels]).flatten(1).mean(1)
    x0 = torch.from_numpy(pixels * 2 / 255 - 1)
    plan = conditional(gaussian_denoiser(process, MEAN, STD, (1, SIDE, SIDE)), Condition())
    end = torch.ones(1, dtype=torch.float64)
    print(f"bits per dimension over the exact {float(exact.mean()):.3f}, and standard error\n")
    print("| last σ/α, in levels | steps | large variance | small variance |\n| ---: | ---: | ---: | ---: |")
    for steps in (250, 1000):
        for levels in (2, 1, 0.5, 0.1):
            ratios = torch.logspace(2, math.log10(LEVEL * levels), steps - 1, dtype=torch.float64)
            times = torch.cat([end, process.schedule.time(-2 * ratios.log()), 0 * end])
            every, noise = torch.zeros(COUNT, steps - 1), SampleNoise(0, range(COUNT))
            terms = estimated_terms(process, plan, x0, times, every, variances=[Large(), Eta(1.0)], noise=noise)
            cells = []
            for own in zip(*terms, strict=True):
                over = torch.stack([term.bits_per_dim for term in own]).sum(0) - exact
                cells.append(f"{float(over.mean()):.3f} ± {float(over.std()) / COUNT**0.5:.3f}")
            print(f"| {levels:g} | {steps} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
