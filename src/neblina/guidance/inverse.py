"""Following a measurement y = A x_0 + noise with a model that never saw one, by the gradient of its likelihood.

By Tweedie's formula, E[x_0 | x_t, y] = x̂_0 + (σ²/α) ∇_x log p(y | x_t). The likelihood of noisy data is not known; two
guesses at it, both differentiating the denoiser, x̂_0 = x̂_0(x_t) and r = y − A x̂_0:

Diffusion posterior sampling (DPS) takes p(y | x_t) ≈ p(y | x̂_0) and normalises by the residual: its algorithm 1 moves
each ancestral step by −ζ ∇_x ‖r‖. A change δ of the belief moves such a step from t to s by (α_s/σ_t²) σ²_{t|s} δ, and
N small steps by α g² δ/(σ² N) each, g the diffusion coefficient. So what pushes as hard, whatever the sampler, is

    δ = −ζ N σ²/(α g²) ∇_x ‖r‖.

(Chung et al. differentiate ‖r‖² and divide by ‖r‖: their ζ' is ζ/2.)

Moment matching takes p(x_0 | x_t) ≈ N(x̂_0, C) with the covariance that the denoiser itself implies, C = (σ²/α) ∂x̂_0/∂x
(Tweedie's second moment), which for Gaussian data is exact:

    δ = C Aᵀ (A C Aᵀ + σ_y² I)⁻¹ r,

with products by C as vector-Jacobian products (C is symmetric) and the inverse by conjugate gradients. Where α = 0,
x_t says nothing of x_0 and neither shift is defined; both are taken to be 0.

The plan's answers are differentiated, and nothing else is: the shift that a classifier (guidance/classifier.py) makes
inside `plan` comes as a number, without the second derivative that its own change with x would need.

Chung et al. Diffusion Posterior Sampling for General Noisy Inverse Problems. ICLR 2023, eq. 16 and algorithm 1.
Rozet et al. Learning Diffusion Priors from Observations by Expectation Maximization. NeurIPS 2024, section 4.
Boys et al. Tweedie Moment Projected Diffusions for Inverse Problems. TMLR 2024.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from neblina.core.errors import SettingError
from neblina.core.plan import Combine, Leaf, Plan, Query
from neblina.core.posterior import Gaussian, Posterior, gaussian
from neblina.core.shapes import expand
from neblina.guidance.operators import Operator
from neblina.guidance.registry import register
from neblina.processes.schedules import Schedule

# the shift of the belief from (x_t, t, x̂_0 as a function of x_t, y)
Shift = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@register("posterior-sampling", source="Chung et al. 2023, eq. 16 and algorithm 1", strength=0.0)
def posterior_sampled(
    plan: Plan, operator: Operator, measurement: Tensor, schedule: Schedule, *, strength: float = 150.0
) -> Plan:
    """DPS: the plan's belief, moved against the gradient of the residual's norm.

    Args:
        plan: whose belief is moved; asked once, and differentiated.
        operator: A.
        measurement: y of each sample, shape (B, *).
        schedule: that the times are of.
        strength: ζ N: the paper's step size, times the number of steps that it is applied at.
    Raises:
        SettingError: a strength that is negative or not finite.
    """
    if not 0 <= strength < math.inf:
        raise SettingError(
            f"the strength of posterior sampling is a finite number, at least 0, and {strength:g} is not"
        )

    def shift(x: Tensor, t: Tensor, mean: Tensor, y: Tensor) -> Tensor:
        norm = (y - operator(mean)).flatten(1).norm(dim=1)
        (gradient,) = torch.autograd.grad(norm.sum(), x, retain_graph=True)
        alpha, sigma, g = schedule.alpha(t), schedule.sigma(t), schedule.diffusion(t)
        weight = torch.where((alpha > 0) & (g > 0), strength * sigma**2 / (alpha * g**2), 0.0)
        return _weighted(-weight, gradient)

    return _followed(plan, operator, measurement, shift)


@register("moment-matching", source="Rozet et al. 2024, section 4; Boys et al. 2024", noise=1e12)
def moment_matched(
    plan: Plan, operator: Operator, measurement: Tensor, schedule: Schedule, *, noise: float = 0.05, iterations: int = 4
) -> Plan:
    """The plan's belief, moved as Gaussian data of the denoiser's own covariance would have it; exact for such data.

    Args:
        plan: whose belief is moved; asked once, and differentiated `iterations` + 1 times.
        operator: A.
        measurement: y of each sample, shape (B, *).
        schedule: that the times are of.
        noise: σ_y, the standard deviation of the measurement's noise, above 0.
        iterations: of conjugate gradients; as many as y has entries are exact.
    Raises:
        SettingError: no noise, an infinite one, or no iterations.
    """
    if not 0 < noise < math.inf or iterations < 1:
        raise SettingError(
            f"moment matching takes a finite noise above 0 and at least 1 iteration, not {noise:g} and {iterations}; "
            "a measurement without noise is one of little noise, such as 0.01"
        )

    def shift(x: Tensor, t: Tensor, mean: Tensor, y: Tensor) -> Tensor:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        weight = torch.where(alpha > 0, sigma**2 / alpha, 0.0)
        measured = operator(mean)

        def spread(v: Tensor) -> Tensor:
            """C Aᵀ v."""
            (product,) = torch.autograd.grad(measured, x, v, retain_graph=True)
            return _weighted(weight, product)

        def covariance(v: Tensor) -> Tensor:
            return operator(spread(v)) + noise**2 * v

        return spread(_conjugate_gradients(covariance, (y - measured).detach(), iterations))

    return _followed(plan, operator, measurement, shift)


def _followed(plan: Plan, operator: Operator, measurement: Tensor, shift: Shift) -> Plan:
    """The plan with its belief shifted; its leaves are differentiated, and nothing that is comes out."""

    def followed(query: Query) -> tuple[list[Leaf], Combine]:
        x = query.x.detach().requires_grad_()
        with torch.enable_grad():  # a plan may ask about a part of x only
            leaves, combine = plan(replace(query, x=x))
        y = measurement if query.rows is None else measurement[query.rows.to(measurement.device)]

        def shifted(posteriors: Sequence[Posterior]) -> Posterior:
            with torch.enable_grad():
                belief = gaussian(combine(posteriors), "A measurement")
                moved = shift(x, query.t, belief.mean, operator.seen(y.to(belief.mean)))
            kept = (belief.mean + moved, belief.unclipped_mean, belief.variance_fraction)
            return Gaussian(*(None if one is None else one.detach() for one in kept))  # type: ignore[arg-type]

        return [replace(leaf, needs_grad=True) for leaf in leaves], shifted

    return followed


def _conjugate_gradients(product: Callable[[Tensor], Tensor], right: Tensor, iterations: int) -> Tensor:
    """M⁻¹ right for a symmetric positive M given by its products, each sample by itself; right of shape (B, *).

    Hestenes, Stiefel. Methods of Conjugate Gradients for Solving Linear Systems. 1952.
    """

    def inner(one: Tensor, other: Tensor) -> Tensor:
        return (one * other).flatten(1).sum(1)

    solution, rest = torch.zeros_like(right), right
    direction, size = right, inner(right, right)
    for _ in range(iterations):
        image = product(direction)
        along = inner(direction, image)
        # a sample that is solved stays as it is
        step = torch.where(along > 0, size / along, 0.0)
        solution = solution + expand(step, right) * direction
        rest = rest - expand(step, right) * image
        before, size = size, inner(rest, rest)
        direction = rest + expand(torch.where(before > 0, size / before, 0.0), right) * direction
    return solution


def _weighted(weight: Tensor, gradient: Tensor) -> Tensor:
    """weight of shape (B,) times gradient of shape (B, *), 0 where the weight is, whatever the gradient."""
    wide = expand(weight, gradient)
    return torch.where(wide == 0, 0.0, wide * gradient)
