"""Exact laws: what a sampler makes of Gaussian data, without sampling.

With the exact denoiser of N(0, s²) every step of a linear sampler is linear in the noise. So the batch is a basis: row
0 carries the starting noise and row j the j-th draw, each 1 where it is drawn and 0 elsewhere. The law of the result is
normal with the sum of squares of the rows as its variance: exact, with no Monte Carlo error. A sampler whose steps
depend on norms or errors is sampled instead, many numbers at once.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.noise import Noise, SampleNoise
from neblina.core.plan import Denoiser, Plan, conditional
from neblina.core.posterior import Gaussian, gaussian
from neblina.denoisers.oracles import gaussian_denoiser
from neblina.processes.gaussian import GaussianProcess
from neblina.processes.grids import make_grid
from neblina.samplers.drive import Step, sample
from neblina.samplers.registry import Sampler


@dataclass
class WalkNoise(ABC):
    """Noise of a whole batch, and one Brownian path made of its draws, latest time first."""

    path: dict[float, Tensor] = field(default_factory=dict)

    @abstractmethod
    def __call__(self, like: Tensor) -> Tensor:
        """The next draw, of a batch's shape."""

    def between(self, like: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """Intervals of a walk from 1 to 0: a new one begins where a known one does, and reaches further down."""
        a, b = float(start[0]), float(end[0])
        for place in (b, a):
            if place not in self.path:
                last = min(self.path, default=place)
                if place > last:
                    raise ValueError("a walk goes down")
                before = self.path.get(last, torch.zeros_like(like))
                self.path[place] = before - math.sqrt(last - place) * self(like) if last > place else before
        return (self.path[b] - self.path[a]) / math.sqrt(b - a) if b > a else torch.zeros_like(like)


@dataclass
class BasisNoise(WalkNoise):
    """The j-th draw is 1 in row j and 0 elsewhere."""

    draws: int = 0

    def __call__(self, like: Tensor) -> Tensor:
        self.draws += 1
        noise = torch.zeros_like(like)
        noise[self.draws] = 1
        return noise


def exact_plan(sampler: Sampler, denoiser: Denoiser, condition: Condition | None = None) -> Plan:
    """An exact denoiser as a sampler needs it: one that wants a learned variance gets the middle of its range."""

    @dataclass(frozen=True)
    class Halfway:
        def posterior(self, x: Tensor, t: Tensor, condition: Condition) -> Gaussian:
            belief = gaussian(denoiser.posterior(x, t, condition), "this law")
            return replace(belief, variance_fraction=torch.full_like(belief.mean, 0.5))

    return conditional(Halfway() if sampler.learned_variance else denoiser, condition or Condition())


def final_std(sampler: Sampler, process: GaussianProcess, std: float, grid: Tensor, start_std: float) -> float:
    """Standard deviation of what the sampler makes of N(0, start_std²) along a grid of shape (N + 1,)."""
    plan = exact_plan(sampler, gaussian_denoiser(process, 0.0, std))
    noise: Noise
    if sampler.linear:
        draws = 1 if not sampler.stochastic else 2 + 6 * len(grid)
        x = torch.zeros(draws, 1, dtype=torch.float64)
        x[0] = start_std
        noise = BasisNoise()
        return float(sample(sampler(process, x, grid, noise=noise), plan).square().sum().sqrt())
    # many numbers a sample, so that its norms are those of high dimension; few samples, since each has its own steps
    noise = SampleNoise(0, range(4))
    x = start_std * noise(torch.empty(4, 2**14, dtype=torch.float64))
    x = x / x.square().mean().sqrt() * start_std
    return float(sample(sampler(process, x, grid, noise=noise), plan).square().mean().sqrt())


def marginal_std(process: GaussianProcess, std: float, t: Tensor) -> float:
    """Standard deviation of x_t for data of standard deviation std."""
    alpha, sigma = process.schedule.alpha(t), process.schedule.sigma(t)
    return float((alpha**2 * std**2 + sigma**2).sqrt())


def std_error(sampler: Sampler, process: GaussianProcess, std: float, steps: int) -> float:
    """Relative error of the sampled standard deviation, on the sampler's default grid."""
    grid = make_grid(sampler.grid, process.schedule, steps)
    return abs(final_std(sampler, process, std, grid, process.schedule.prior_std) / std - 1)


def steps_for(sampler: Sampler, process: GaussianProcess, evaluations: int) -> int:
    """The most steps, on the default grid, that take at most so many evaluations; 0 if even one takes more."""

    for steps in range(evaluations, 0, -1):
        taken = sampler.evaluations(process, make_grid(sampler.grid, process.schedule, steps))
        if taken is not None and taken <= evaluations:
            return steps
    return 0


def between(process: GaussianProcess, noisiest: float, cleanest: float, steps: int, *, graded: bool = False) -> Tensor:
    """A grid of times from σ/α = noisiest to cleanest, even in the log-SNR.

    Args:
        graded: begin with two steps so short (h² and h^(4/3) for a step of h, as shares of the whole) that what a
            multistep method loses while it has nothing to look back on does not show.
    """
    places = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    if graded:
        short = torch.tensor([steps**-2.0, steps ** (-4 / 3)], dtype=torch.float64)
        places = torch.cat([places[:1], short.cumsum(0), short.sum() + (1 - short.sum()) * places[1:]])
    low, high = math.log(noisiest), math.log(cleanest)
    return process.schedule.time(-2 * (low + (high - low) * places))


def fitted_order(errors: list[float]) -> float:
    """Slope of log error against log step, for steps that halve."""
    return math.log2(errors[0] / errors[-1]) / (len(errors) - 1)


def measured_order(sampler: Sampler, process: GaussianProcess, *, std: float = 0.3) -> float:
    """How fast the law's error falls between two noise levels, from the exact law at the first."""
    errors = []
    for steps in (128, 256):
        grid = between(process, 3.0, 0.1, steps, graded=True)
        begin, end = (marginal_std(process, std, one) for one in (grid[:1], grid[-1:]))
        errors.append(abs(final_std(sampler, process, std, grid, begin) / end - 1))
    return fitted_order(errors)


def adaptive_std_error(sampler: Sampler, process: GaussianProcess, std: float, tolerance: float) -> tuple[float, int]:
    """Relative error of an adaptive sampler's standard deviation at a tolerance, and the evaluations it took."""
    taken = 0

    def count(step: Step) -> None:
        nonlocal taken
        taken = step.evaluation

    times = torch.tensor([1.0, 0.0], dtype=torch.float64)
    noise = SampleNoise(0, range(1))
    x = noise(torch.empty(1, 2**12, dtype=torch.float64))
    x = x / x.square().mean().sqrt() * process.schedule.prior_std
    plan = exact_plan(sampler, gaussian_denoiser(process, 0.0, std))
    made = sample(sampler(process, x, times, noise=noise, tolerance=tolerance), plan, on_step=count)
    return abs(float(made.square().mean().sqrt()) / std - 1), taken
