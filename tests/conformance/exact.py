"""What the suites share: every schedule, the widths of targets, and a mixture."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from neblina.denoisers.oracles import MixtureDenoiser
from neblina.processes.gaussian import GaussianProcess
from neblina.processes.schedules import Schedule, schedules
from neblina.processes.tables import Betas, Linear

# every registered schedule at its defaults, a table of one's own, and one that ends without any signal
SCHEDULES: dict[str, Schedule] = {name: kind() for name, kind in schedules.items() if name != "betas"}
SCHEDULES["betas"] = Betas(values=tuple((torch.arange(1, 501) / 500 * 0.04).tolist()))
SCHEDULES["zero-snr"] = Linear(zero_snr=True)

STDS = (1.0, 0.5, 0.3, 0.1, 0.05)


def resolvable(process: GaussianProcess) -> list[float]:
    """The target widths that a discrete schedule can resolve: seven times its first step's noise k and wider.

    The belief at the first step is all that can be known of the data, and it is ½ (k/std)² too narrow: 1 % at 7 k.
    """
    steps = process.schedule.steps
    if steps is None:
        return list(STDS)
    first = torch.tensor([1 / steps], dtype=torch.float64)
    ratio = float(process.schedule.sigma(first) / process.schedule.alpha(first))
    return [std for std in STDS if std >= 7 * ratio * (1 - 1e-3)]


def mixture(process: GaussianProcess) -> MixtureDenoiser:
    """Three bumps of different weight and width."""
    return MixtureDenoiser(
        process,
        torch.tensor([[-1.0], [0.2], [0.9]], dtype=torch.float64),
        torch.tensor([0.2, 0.1, 0.3], dtype=torch.float64),
        torch.tensor([0.3, 0.2, 0.5], dtype=torch.float64),
    )


@dataclass
class Drawn:
    """Noise for statistics: one generator for the whole batch, and a Brownian path for all of it."""

    generator: torch.Generator
    path: dict[float, Tensor] = field(default_factory=dict)

    def __call__(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.generator, dtype=like.dtype)

    def between(self, like: Tensor, start: Tensor, end: Tensor) -> Tensor:
        a, b = float(start[0]), float(end[0])
        if b <= a:
            return torch.zeros_like(like)
        for place in (b, a):
            if place not in self.path:
                last = min(self.path, default=place)
                before = self.path.get(last, torch.zeros_like(like))
                self.path[place] = before - math.sqrt(last - place) * self(like) if last > place else before
        return (self.path[b] - self.path[a]) / math.sqrt(b - a)


def drawn(seed: int) -> Drawn:
    return Drawn(torch.Generator().manual_seed(seed))
