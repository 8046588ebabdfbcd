"""The likelihood of data under the probability-flow ODE, by the change of variables along its path.

On the circle of `processes/circle.py`, φ from 0 (data) to noise, n = √(α² + σ²), the ODE is

    dy/dφ = v(y, φ) = (cos φ y − x̂_0(n y, t(φ))) / sin φ,    y = x/n.

The density of y changes along a path by d log p/dφ = −tr ∂v/∂y. So, from φ_0 near the data to φ_1 at t = 1, where the
prior N(0, σ_1²) is what sampling starts from,

    log p(x) = log N(n_1 y_1; 0, σ_1² I) + D log n_1 + ∫_{φ_0}^{φ_1} tr ∂v/∂y dφ + D log cos φ_0,    y_0 = cos φ_0 x,

which is exactly the density of what the ODE makes of the prior when it stops at φ_0 and divides by cos φ_0. The trace
is Hutchinson's, E[eᵀ (∂v/∂y) e] for a probe e with E[e eᵀ] = I: unbiased, one backward pass.

Stopping at the ratio k = σ/α = tan φ_0 smooths the model with noise of standard deviation k. What that adds to the
mean of −log p is the divergence from the data to the smoothed data: at most k⁴/(4 s⁴) nats a dimension for normal data
of standard deviation s, and up to about k/w for levels that were dequantised over a width w and are otherwise certain.
k is 1e-3 (t = 1e-5 on the vp schedule, as in Song et al.), or that of a discrete schedule's first step, below which no
network was trained.

The integral runs in log φ, where it is smooth at every scale of the data, by Dormand and Prince's pair of orders 5 and
4 (`samplers/embedded.py`). Every sample has its own steps, so its result does not depend on its company.

Song et al. Score-Based Generative Modeling through Stochastic Differential Equations. ICLR 2021, eq. 39 and 40,
appendix D.2.
Grathwohl et al. FFJORD. ICLR 2019, eq. 3 and 7. Hutchinson. A stochastic estimator of the trace. 1989.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.errors import DivergenceError, SettingError
from neblina.core.plan import Denoiser
from neblina.core.posterior import gaussian
from neblina.core.shapes import expand
from neblina.processes.circle import Circle
from neblina.processes.gaussian import GaussianProcess
from neblina.samplers.embedded import DORMAND_PRINCE, Step, integrate

_CLEANEST = 1e-3
_SHORTEST = 1e-7


@dataclass(frozen=True)
class Density:
    """How likely samples are.

    Attributes:
        log_density: log p(x) in nats, shape (B,), float64 on the CPU.
        evaluations: how often the denoiser and its derivative were asked for each sample, shape (B,).
    """

    log_density: Tensor
    evaluations: Tensor


def check_density(process: object) -> None:
    """Refuse a process under which data has no density.

    Raises:
        SettingError: not a Gaussian process, one that adds no noise somewhere, or one without a normal prior.
    """
    if not isinstance(process, GaussianProcess):
        raise SettingError(
            f"nll is of a model whose process has a density, a GaussianProcess, and a {type(process).__name__} has none"
        )
    schedule = process.schedule
    times = torch.linspace(0, 1, 101, dtype=torch.float64)[1:]
    still = ~(schedule.sigma(times) > 0)
    if bool(still.any()):
        raise SettingError(
            f"nll is of a model whose process has a density, and the {type(schedule).__name__} schedule adds no noise "
            f"at t = {float(times[still][0]):g}: what it makes of a picture is a point"
        )
    if not 0 < schedule.prior_std < math.inf:
        raise SettingError(
            f"nll is of a model whose process has a density, and the {type(schedule).__name__} schedule has a prior of "
            f"standard deviation {schedule.prior_std:g}"
        )


def flow_density(
    denoiser: Denoiser,
    process: GaussianProcess,
    x: Tensor,
    condition: Condition,
    probe: Tensor,
    *,
    tolerance: float = 3e-4,
    on_share: Callable[[float], None] | None = None,
) -> Density:
    """How likely samples are under the model's probability-flow ODE.

    Args:
        denoiser: the model; it is differentiated with respect to its input.
        process: its process.
        x: clean data, shape (B, *), float32 or wider.
        condition: of the B samples.
        probe: e of each sample, shape of x: signs or standard normal numbers.
        tolerance: most error of a step, in y as a root mean square and in log p as nats a dimension.
        on_share: told after every answer which share of the way is done.
    Raises:
        SettingError: a tolerance that is not positive, or a process without a density.
        DivergenceError: the denoiser's answers are not finite, or cannot be integrated to this tolerance.
    """
    if not tolerance > 0:
        raise SettingError(f"tolerance {tolerance:g} must be positive; 3e-4 is the default")
    check_density(process)
    schedule, circle = process.schedule, Circle(process.schedule)
    end = torch.ones(1, dtype=torch.float64)
    first, last = circle.cleanest(_CLEANEST), float(circle.angle(end))
    dimensions = x[0].numel()
    path = _Path(denoiser, circle, condition, probe)
    y, gained, evaluations = _integrate(path, math.cos(first) * x, math.log(first), math.log(last), tolerance, on_share)
    radius, prior = float(schedule.radius(end)), schedule.prior_std
    distance = (y.cpu().double() * radius / prior).square().flatten(1).sum(1)
    normal = -0.5 * distance - dimensions * (0.5 * math.log(2 * math.pi) + math.log(prior))
    scaled = dimensions * (math.log(radius) + math.log(math.cos(first)))
    return Density(normal + gained + scaled, evaluations)


@dataclass(frozen=True)
class _Path:
    """The right-hand side in w = log φ: of y, and of the integral of the trace."""

    denoiser: Denoiser
    circle: Circle
    condition: Condition
    probe: Tensor

    def slope(self, y: Tensor, w: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """φ v, shape (N, *), and φ eᵀ (∂v/∂y) e, shape (N,), for the samples `rows` at w, shape (N,)."""
        angle = torch.exp(w).clamp(max=math.pi / 2)
        t = self.circle.time(angle)
        probe = self.probe[rows.to(y.device)]
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            x = expand(self.circle.schedule.radius(t), y) * y
            belief = gaussian(self.denoiser.posterior(x, t, self.condition.take(rows)), "a density")
            velocity = self.circle.velocity(y, angle, belief.mean.to(y.dtype))
            (turned,) = torch.autograd.grad((velocity * probe).sum(), y)
        return expand(angle, y) * velocity.detach(), angle * (turned * probe).flatten(1).sum(1).cpu().double()


def _integrate(
    path: _Path, y: Tensor, start: float, end: float, tolerance: float, on_share: Callable[[float], None] | None
) -> tuple[Tensor, Tensor, Tensor]:
    """y and the integral of the trace at the end, and the evaluations taken, each sample with its own steps."""
    count, dimensions = len(y), y[0].numel()

    def error(step: Step) -> Tensor:
        gap_y, gap_gained = step.gaps
        off_y = gap_y.square().flatten(1).mean(1).sqrt().cpu().double()
        off = torch.maximum(off_y, gap_gained.abs() / dimensions) / tolerance
        if bool((step.length <= _SHORTEST)[~(off <= 1)].any()):
            raise DivergenceError(
                "the probability-flow ODE cannot be followed: the network's answers are not finite or jump. "
                "Look at what it generates, or raise the tolerance"
            )
        return off

    one = torch.ones(count, dtype=torch.float64)
    evaluations = torch.zeros(count, dtype=torch.int64)
    walk = integrate(DORMAND_PRINCE, (y, 0 * one), start * one, end * one, steps=20, error=error)
    try:
        asked = next(walk)
        while True:
            evaluations[asked.rows] += 1
            slope = path.slope(asked.state[0], asked.place, asked.rows)
            if on_share is not None:
                on_share(float((asked.reached - start).mean()) / (end - start))
            asked = walk.send(slope)
    except StopIteration as finished:
        y, gained = finished.value
    if on_share is not None:
        on_share(1.0)
    return y, gained, evaluations
