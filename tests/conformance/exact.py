"""What the suites share: every schedule, the widths of targets, and a mixture."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.posterior import Gaussian
from neblina.core.shapes import expand
from neblina.denoisers.oracles import MixtureDenoiser
from neblina.evaluation.laws import WalkNoise
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


@dataclass(frozen=True)
class Correlated:
    """The exact denoiser of N(m, C): m + α C (α² C + σ²)⁻¹ (x − α m), over the entries of a sample."""

    process: GaussianProcess
    mean: Tensor
    covariance: Tensor
    calls: list[int] = field(default_factory=list)

    def posterior(self, x: Tensor, t: Tensor, condition: Condition) -> Gaussian:
        self.calls.append(len(x))
        flat, schedule = x.flatten(1), self.process.schedule
        alpha, sigma = expand(schedule.alpha(t), flat), expand(schedule.sigma(t), flat)
        values, axes = torch.linalg.eigh(self.covariance)
        gain = alpha * values / (alpha**2 * values + sigma**2)
        return Gaussian((self.mean + (((flat - alpha * self.mean) @ axes) * gain) @ axes.T).reshape(x.shape))


@dataclass
class Drawn(WalkNoise):
    """Noise for statistics: one generator for the whole batch."""

    generator: torch.Generator = field(default_factory=torch.Generator)

    def __call__(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.generator, dtype=like.dtype)


def drawn(seed: int) -> Drawn:
    return Drawn(generator=torch.Generator().manual_seed(seed))
