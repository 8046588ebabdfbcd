"""How much the error counts at each time: weightings of the squared error, the same for every parameterisation.

A weighting is w(t) of w(t) ‖x̂_0 − x_0‖². At a given x_t the errors of all predictions are proportional,

    ε̂ − ε = −(α/σ) (x̂_0 − x_0),    F̂ − F = ((p σ − q α)/σ) (x̂_0 − x_0)

for F = p x_0 + q ε, so what multiplies the squared error of F is w(t) σ²/(p σ − q α)². With SNR = α²/σ²:

| name | w(t), of the error of x_0 | defined by |
| --- | --- | --- |
| simple        | whatever makes the weight of F that of its row: 1, for most | Ho et al. 2020, eq. 14 |
| snr           | SNR: 1, of the error of ε | Salimans, Ho 2022, section 4 |
| truncated-snr | max(SNR, 1) | Salimans, Ho 2022, section 4 |
| min-snr       | min(SNR, γ), γ = 5 | Hang et al. 2023 |
| p2            | SNR/(k + SNR)^γ, k = γ = 1: 1/(k + SNR)^γ, of the error of ε | Choi et al. 2022, eq. 8 |
| edm           | 1/σ_d² + SNR = (k² + σ_d²)/(k σ_d)² with k = σ/α | Karras et al. 2022, table 1 |

Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. NeurIPS 2020.
Salimans, Ho. Progressive Distillation for Fast Sampling of Diffusion Models. ICLR 2022.
Hang et al. Efficient Diffusion Training via Min-SNR Weighting Strategy. ICCV 2023.
Choi et al. Perception Prioritized Training of Diffusion Models. CVPR 2022.
Karras et al. Elucidating the Design Space of Diffusion-Based Generative Models. NeurIPS 2022.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor

from neblina.core.errors import SettingError, choose
from neblina.core.registry import Registry
from neblina.denoisers.parameterisations import SIGMA_DATA, Parameterisation
from neblina.processes.gaussian import ratio
from neblina.processes.schedules import Schedule

Weighting = Callable[[Schedule, Parameterisation, Tensor], Tensor]
"What multiplies the squared error of F at times of shape (B,): float64, shape (B,)."

weightings: Registry[Callable[..., Tensor]] = Registry("weighting")


def make_weighting(name: str, settings: Mapping[str, float] | None = None) -> Weighting:
    """A registered weighting with its settings.

    Raises:
        SettingError: unknown weighting, a setting that this one does not have, or one out of range.
    """
    weighting, given = weightings[name], dict(settings or {})
    own = [one.name for one in inspect.signature(weighting).parameters.values() if one.kind is one.KEYWORD_ONLY]
    for setting, value in given.items():
        choose(f"setting of the {name} weighting", setting, own)
        zero = (name, setting) == ("p2", "gamma")  # a power; the others are an SNR
        if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
            least = "at least 0" if zero else "above 0"
            raise SettingError(f"{setting} of the {name} weighting is a finite number {least}, and {value:g} is not")
    return partial(weighting, **given)


def simple(schedule: Schedule, row: Parameterisation, t: Tensor) -> Tensor:
    """The row's own weight."""
    return row.weight(schedule.alpha(t), schedule.sigma(t))


weightings.add(simple, "simple")


def _of_prediction(weight: Tensor, schedule: Schedule, row: Parameterisation, t: Tensor) -> Tensor:
    """The weight of F's squared error that is `weight` of x_0's."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    return weight * ratio(sigma, row.data(alpha, sigma) * sigma - row.noise(alpha, sigma) * alpha) ** 2


def _signal_to_noise(schedule: Schedule, t: Tensor) -> Tensor:
    return schedule.log_snr(t).exp()


def snr(schedule: Schedule, row: Parameterisation, t: Tensor) -> Tensor:
    """The error of ε, all times alike."""
    return _of_prediction(_signal_to_noise(schedule, t), schedule, row, t)


def truncated_snr(schedule: Schedule, row: Parameterisation, t: Tensor) -> Tensor:
    """The larger of the errors of x_0 and ε."""
    return _of_prediction(_signal_to_noise(schedule, t).clamp(min=1), schedule, row, t)


def min_snr(schedule: Schedule, row: Parameterisation, t: Tensor, *, gamma: float = 5.0) -> Tensor:
    """The error of ε, but of x_0 times γ where there is little noise."""
    return _of_prediction(_signal_to_noise(schedule, t).clamp(max=gamma), schedule, row, t)


def p2(schedule: Schedule, row: Parameterisation, t: Tensor, *, k: float = 1.0, gamma: float = 1.0) -> Tensor:
    """The error of ε, less where there is little noise."""
    signal = _signal_to_noise(schedule, t)
    return _of_prediction(signal / (k + signal) ** gamma, schedule, row, t)


def edm(schedule: Schedule, row: Parameterisation, t: Tensor) -> Tensor:
    """What makes the weight of EDM's own prediction 1."""
    return _of_prediction(SIGMA_DATA**-2 + _signal_to_noise(schedule, t), schedule, row, t)


for _name, _entry in {
    "snr": snr,
    "truncated-snr": truncated_snr,
    "min-snr": min_snr,
    "p2": p2,
    "edm": edm,
}.items():
    weightings.add(_entry, _name)
