"""Exact laws: what a sampler makes of Gaussian data, without sampling.

With the exact denoiser of N(0, s²) every step is linear in the noise. So the batch is a basis: row 0 carries the
starting noise and row j the j-th draw, each 1 where it is drawn and 0 elsewhere. The law of the result is normal with
the sum of squares of the rows as its variance: exact, with no Monte Carlo error.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.plan import conditional
from neblina.denoisers.oracles import MixtureDenoiser, gaussian_denoiser
from neblina.processes.gaussian import GaussianProcess
from neblina.processes.grids import make_grid
from neblina.processes.schedules import Schedule, schedules
from neblina.processes.tables import Betas, Linear
from neblina.samplers import Sampler
from neblina.samplers.drive import sample

# every registered schedule at its defaults, a table of one's own, and one that ends without any signal
SCHEDULES: dict[str, Schedule] = {name: kind() for name, kind in schedules.items() if name != "betas"}
SCHEDULES["betas"] = Betas(values=tuple((torch.arange(1, 501) / 500 * 0.04).tolist()))
SCHEDULES["zero-snr"] = Linear(zero_snr=True)

STDS = (1.0, 0.5, 0.3, 0.1, 0.05)


@dataclass
class BasisNoise:
    """The j-th draw is 1 in row j and 0 elsewhere; a Brownian path is made of such draws, latest time first."""

    draws: int = 0
    path: dict[float, Tensor] = field(default_factory=dict)

    def __call__(self, like: Tensor) -> Tensor:
        self.draws += 1
        noise = torch.zeros_like(like)
        noise[self.draws] = 1
        return noise

    def between(self, like: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """Intervals of a walk from 1 to 0: a new one begins where a known one does, and reaches further down."""
        a, b = float(start[0]), float(end[0])
        for place in sorted((b, a), reverse=True):
            if place not in self.path:
                last = min(self.path, default=place)
                assert place <= last, "a walk goes down"
                before = self.path.get(last, torch.zeros_like(like))
                self.path[place] = before - (last - place) ** 0.5 * self(like) if last > place else before
        return (self.path[b] - self.path[a]) / (b - a) ** 0.5 if b > a else torch.zeros_like(like)


def final_std(sampler: Sampler, process: GaussianProcess, std: float, grid: Tensor, start_std: float) -> float:
    """Standard deviation of what the sampler makes of N(0, start_std²) along the grid."""
    x = torch.zeros(4 * len(grid) + 1, 1, dtype=torch.float64)
    x[0] = start_std
    plan = conditional(gaussian_denoiser(process, 0.0, std), Condition())
    return float(sample(sampler(process, x, grid, noise=BasisNoise()), plan).square().sum().sqrt())


def marginal_std(process: GaussianProcess, std: float, t: Tensor) -> float:
    """Standard deviation of x_t for data of standard deviation std."""
    alpha, sigma = process.schedule.alpha(t), process.schedule.sigma(t)
    return float((alpha**2 * std**2 + sigma**2).sqrt())


def std_error(sampler: Sampler, process: GaussianProcess, std: float, steps: int) -> float:
    """Relative error of the sampled standard deviation, on the sampler's default grid."""
    grid = make_grid(sampler.grid, process.schedule, steps)
    return abs(final_std(sampler, process, std, grid, process.schedule.prior_std) / std - 1)


def steps_for(sampler: Sampler, process: GaussianProcess, evaluations: int) -> int:
    """The most steps, on the default grid, that take at most so many evaluations."""

    def taken(steps: int) -> int:
        return sampler.evaluations(process, make_grid(sampler.grid, process.schedule, steps)) or 0

    return max(steps for steps in range(1, evaluations + 1) if taken(steps) <= evaluations)


def resolvable(process: GaussianProcess) -> list[float]:
    """The target widths that a discrete schedule can resolve: five times its first step's noise and wider."""
    steps = process.schedule.steps
    if steps is None:
        return list(STDS)
    first = torch.tensor([1 / steps], dtype=torch.float64)
    ratio = float(process.schedule.sigma(first) / process.schedule.alpha(first))
    return [std for std in STDS if std >= 5 * ratio * (1 - 1e-3)]


def mixture(process: GaussianProcess) -> MixtureDenoiser:
    """Three bumps of different weight and width."""
    return MixtureDenoiser(
        process,
        torch.tensor([[-1.0], [0.2], [0.9]], dtype=torch.float64),
        torch.tensor([0.2, 0.1, 0.3], dtype=torch.float64),
        torch.tensor([0.3, 0.2, 0.5], dtype=torch.float64),
    )
