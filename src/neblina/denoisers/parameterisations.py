"""What a network predicts: one table, and everything else is solved from its rows.

A network predicts F = p x_0 + q ε, with p and q functions of (α, σ). Since x = α x_0 + σ ε,

    x̂_0 = (σ F − q x) / (p σ − q α),

and the training target is F itself, so the two cannot disagree.

| name  | F | p | q | defined by |
| --- | --- | --- | --- | --- |
| eps   | ε | 0 | 1 | Ho et al. 2020, eq. 14 |
| x0    | x_0 | 1 | 0 | Ho et al. 2020, section 3.2 |
| v     | α ε − σ x_0 | −σ | α | Salimans, Ho 2022, appendix D |
| score | −ε / σ | 0 | −1/σ | Song et al. 2021, eq. 7 |
| flow  | ε − x_0 | −1 | 1 | Lipman et al. 2023, eq. 22 with data at t = 0 |
| edm   | (x_0 − c_skip x) / c_out | σ/(σ_d n) | −α σ_d/n, n² = σ² + α² σ_d² | Karras et al. 2022, eq. 7 and table 1 |

The network's input is scaled by c_in = 1/n for edm (which at α = 1 is the paper's) and left alone otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from neblina.core.errors import SettingError
from neblina.core.registry import Registry
from neblina.core.shapes import expand
from neblina.processes.gaussian import ratio
from neblina.processes.schedules import Schedule

Coefficient = Callable[[Tensor, Tensor], Tensor]
Clock = Callable[[Schedule, Tensor], Tensor]

SIGMA_DATA = 0.5  # the standard deviation of pictures in [−1, 1] that EDM assumes


def _one(alpha: Tensor, sigma: Tensor) -> Tensor:
    return torch.ones_like(alpha)


def _zero(alpha: Tensor, sigma: Tensor) -> Tensor:
    return torch.zeros_like(alpha)


def _spread(alpha: Tensor, sigma: Tensor) -> Tensor:
    """n: the standard deviation of x when the data's is σ_d."""
    return (sigma**2 + (alpha * SIGMA_DATA) ** 2).sqrt()


@dataclass(frozen=True)
class Parameterisation:
    """One row of the table; coefficients take (α, σ), float64 of shape (B,).

    Attributes:
        data: p.
        noise: q.
        scale: c_in, what the network's input is multiplied with.
        weight: what the squared error of F is weighted with in the simple loss.
        clock: name of the clock that the network's time is read from, None for the schedule's own.
    """

    data: Coefficient
    noise: Coefficient
    scale: Coefficient = _one
    weight: Coefficient = _one
    clock: str | None = None

    def target(self, schedule: Schedule, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """F for clean data and noise of shape (B, *)."""
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return expand(self.data(alpha, sigma), x0) * x0 + expand(self.noise(alpha, sigma), x0) * noise

    def mean(self, schedule: Schedule, x: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """x̂_0 from the noisy batch and the network's prediction, both of shape (B, *)."""
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        p, q = self.data(alpha, sigma), self.noise(alpha, sigma)
        determinant = p * sigma - q * alpha
        # where both vanish (x0 at σ = 0) the prediction is the clean data itself
        return expand(ratio(sigma, determinant), x) * prediction - expand(q / _nonzero(determinant), x) * x


parameterisations: Registry[Parameterisation] = Registry("parameterisation")
parameterisations.add(Parameterisation(data=_zero, noise=_one), "eps")
parameterisations.add(Parameterisation(data=_one, noise=_zero), "x0")
parameterisations.add(Parameterisation(data=lambda alpha, sigma: -sigma, noise=lambda alpha, sigma: alpha), "v")
parameterisations.add(
    # weighted by σ², the inverse of E‖F‖² (Song et al. 2021, section 3.3)
    Parameterisation(data=_zero, noise=lambda alpha, sigma: -1 / sigma, weight=lambda alpha, sigma: sigma**2),
    "score",
)
parameterisations.add(Parameterisation(data=lambda alpha, sigma: -_one(alpha, sigma), noise=_one), "flow")
parameterisations.add(
    Parameterisation(
        data=lambda alpha, sigma: sigma / (SIGMA_DATA * _spread(alpha, sigma)),
        noise=lambda alpha, sigma: -alpha * SIGMA_DATA / _spread(alpha, sigma),
        scale=lambda alpha, sigma: 1 / _spread(alpha, sigma),
        clock="c_noise",
    ),
    "edm",
)


def _nonzero(determinant: Tensor) -> Tensor:
    return torch.where(determinant == 0, 1.0, determinant)


def check_end(parameterisation: str, clock: str | None, schedule: Schedule) -> None:
    """Refuse a prediction or a clock that cannot say where sampling begins.

    Raises:
        SettingError: an unknown name; or at t = 1 of this schedule the clean data does not follow from the prediction
            (eps where nothing is left of the data), or the clock is infinite.
    """
    row, end = parameterisations[parameterisation], torch.ones(1, dtype=torch.float64)
    alpha, sigma = schedule.alpha(end), schedule.sigma(end)
    if float(row.data(alpha, sigma) * sigma - row.noise(alpha, sigma) * alpha) == 0:
        raise SettingError(
            f"{parameterisation} says nothing about the data at t = 1 of the {schedule.name} schedule, where α = 0; "
            "predict v, x0 or flow"
        )
    told = clocks[clock or default_clock(row, schedule)](schedule, end)
    if not bool(told.isfinite()):
        raise SettingError(
            f"the clock {clock} is infinite at t = 1 of the {schedule.name} schedule; use time or c_noise"
        )


clocks: Registry[Clock] = Registry("clock")


def clock(name: str) -> Callable[[Clock], Clock]:
    """Register how a network is told the time."""
    return lambda read: clocks.add(read, name)


@clock("index")
def index(schedule: Schedule, t: Tensor) -> Tensor:
    """The zero-based step of a discrete-time schedule, t T − 1, fractional between its points and never below 0."""
    if schedule.steps is None:
        raise SettingError(f"the index clock counts the steps of a discrete schedule, and {schedule.name} has none")
    return (t * schedule.steps - 1).clamp(min=0)


@clock("time")
def time(schedule: Schedule, t: Tensor) -> Tensor:
    """1000 t, the range that sinusoidal embeddings are made for."""
    return 1000 * t


@clock("c_noise")
def c_noise(schedule: Schedule, t: Tensor) -> Tensor:
    """¼ log(σ/α) (EDM, table 1), held within ±5 where the ratio leaves 1e-9 … 1e9."""
    return (-schedule.log_snr(t) / 8).clamp(-5, 5)


@clock("sigma")
def sigma(schedule: Schedule, t: Tensor) -> Tensor:
    """σ/α: the noise level as NCSN++ and k-diffusion networks are told it."""
    return schedule.ratio(t)


def default_clock(parameterisation: Parameterisation, schedule: Schedule) -> str:
    """The row's own clock; else the index of a discrete schedule; else the time."""
    return parameterisation.clock or ("index" if schedule.steps is not None else "time")
