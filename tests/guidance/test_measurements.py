"""Inverse problems: on Gaussian data the conditional is known, so each guess at the likelihood can be held to it."""

from dataclasses import replace

import pytest
import torch
from exact import Correlated
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.errors import SettingError
from neblina.core.noise import SampleNoise
from neblina.core.plan import Plan, Query, answer, conditional, evaluate
from neblina.core.posterior import Gaussian
from neblina.guidance.inverse import moment_matched, posterior_sampled
from neblina.guidance.operators import AveragePool, Mask, Operator
from neblina.guidance.registry import guidances
from neblina.processes.continuous import VP
from neblina.processes.gaussian import Eta, GaussianProcess
from neblina.processes.grids import make_grid
from neblina.processes.schedules import Schedule
from neblina.processes.tables import Linear
from neblina.samplers import samplers
from neblina.samplers.drive import sample

SHAPE = (1, 4, 4)
TIMES = torch.tensor([0.0, 0.05, 0.3, 0.6, 0.95], dtype=torch.float64)
NOISE = 0.1
KNOWN = torch.arange(16).reshape(4, 4) % 3 == 0
OPERATORS = [AveragePool(2), Mask(KNOWN)]


def smooth_pictures(process: GaussianProcess) -> Correlated:
    """Gaussian pictures whose neighbouring pixels are alike."""
    rows = torch.arange(16) // 4
    columns = torch.arange(16) % 4
    distance = (rows[:, None] - rows).abs() + (columns[:, None] - columns).abs()
    return Correlated(process, torch.linspace(-1, 1, 16, dtype=torch.float64), 0.5 * 0.7 ** distance.double())


def conditioned(prior: Correlated, operator: Operator, y: Tensor, noise: float) -> Correlated:
    """The exact denoiser of the same data given one y = A x_0 + noise."""
    a = operator(torch.eye(16, dtype=torch.float64).reshape(16, *SHAPE)).flatten(1).T
    gain = (
        prior.covariance
        @ a.T
        @ torch.linalg.inv(a @ prior.covariance @ a.T + noise**2 * torch.eye(len(a), dtype=torch.float64))
    )
    mean = prior.mean + gain @ (y.flatten() - a @ prior.mean)
    return Correlated(prior.process, mean, prior.covariance - gain @ a @ prior.covariance)


def measured(operator: Operator) -> Tensor:
    """One measurement of a smooth picture."""
    generator = torch.Generator().manual_seed(3)
    prior = smooth_pictures(GaussianProcess(VP()))
    draw = torch.linalg.cholesky(prior.covariance) @ torch.randn(16, dtype=torch.float64, generator=generator)
    clean = operator((prior.mean + draw).reshape(1, *SHAPE))
    return clean + operator_noise(clean, generator) if isinstance(operator, AveragePool) else clean


def operator_noise(clean: Tensor, generator: torch.Generator) -> Tensor:
    return NOISE * torch.randn(clean.shape, dtype=torch.float64, generator=generator)


def noisy(process: GaussianProcess) -> Query:
    x = torch.randn(5, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    return Query(process.diffuse(x, x.flip(0), TIMES), TIMES)


@pytest.mark.parametrize("operator", OPERATORS, ids=["pooled", "masked"])
def test_moment_matching_is_the_exact_conditional_of_gaussian_data(schedule: Schedule, operator: Operator) -> None:
    prior = smooth_pictures(GaussianProcess(schedule))
    y, query = measured(operator), noisy(prior.process)
    plan = moment_matched(
        conditional(prior, Condition()), operator, y.expand(5, *y.shape[1:]), schedule, noise=NOISE, iterations=16
    )
    exact = conditioned(prior, operator, y, NOISE).posterior(query.x, query.t, Condition()).mean
    assert torch.allclose(evaluate(plan, query).mean, exact, rtol=0, atol=1e-8)
    assert float((prior.posterior(query.x, query.t, Condition()).mean - exact)[1:].abs().max()) > 0.05


def drawn(plan: Plan, process: GaussianProcess, count: int, steps: int) -> Tensor:
    """Pictures by ancestral sampling, shape (count, 16)."""
    times = make_grid("uniform", process.schedule, steps)
    noise = SampleNoise(0, range(count))
    x = process.prior(noise(torch.empty(count, *SHAPE, dtype=torch.float64)))
    return sample(samplers["ddpm"](process, x, times, noise=noise), plan).flatten(1)


def test_sampling_by_moment_matching_makes_the_pictures_of_the_exact_conditional() -> None:
    prior, operator, count = smooth_pictures(GaussianProcess(Linear())), AveragePool(2), 50
    y = measured(operator)
    plan = moment_matched(
        conditional(prior, Condition()),
        operator,
        y.expand(count, *y.shape[1:]),
        prior.process.schedule,
        noise=NOISE,
        iterations=4,
    )
    exact = conditional(conditioned(prior, operator, y, NOISE), Condition())
    made, wanted = (drawn(one, prior.process, count, 50) for one in (plan, exact))
    assert torch.allclose(made, wanted, rtol=0, atol=1e-6)


def test_posterior_sampling_is_algorithm_1_where_it_was_defined() -> None:
    """The ancestral step of a fine grid moves by −ζ ∇_x ‖y − A x̂_0‖ (Chung et al. 2023, algorithm 1)."""
    prior, operator, zeta, steps = smooth_pictures(GaussianProcess(Linear())), AveragePool(2), 0.4, 1000
    y = measured(operator).expand(4, 1, 2, 2)
    t = torch.tensor([50, 300, 700, 1000], dtype=torch.float64) / steps
    x = torch.randn(4, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(5), requires_grad=True)
    plain = conditional(prior, Condition())
    plan = posterior_sampled(plain, operator, y, prior.process.schedule, strength=zeta * steps)
    before, after = (
        prior.process.reverse(x, t, t - 1 / steps, evaluate(one, Query(x, t)), Eta(1.0)).mean for one in (plain, plan)
    )
    norm = (y - operator(prior.posterior(x, t, Condition()).mean)).flatten(1).norm(dim=1)
    (gradient,) = torch.autograd.grad(norm.sum(), x)
    moved = (after - before).detach()
    assert torch.allclose(moved, -zeta * gradient, rtol=0.02, atol=1e-6)


def test_posterior_sampling_comes_nearer_the_measurement_but_not_to_the_conditional() -> None:
    """Its guess at the likelihood is not exact even for Gaussian data: the mean is near, the spread is not."""
    prior, operator, count = smooth_pictures(GaussianProcess(Linear())), AveragePool(2), 500
    y = measured(operator)
    exact, many = conditioned(prior, operator, y, NOISE), y.expand(count, *y.shape[1:])
    plain = conditional(prior, Condition())
    plan = posterior_sampled(plain, operator, many, prior.process.schedule, strength=100.0)
    free, made = (drawn(one, prior.process, count, 100) for one in (plain, plan))

    def distance(pictures: Tensor) -> float:
        return float((pictures.mean(0) - exact.mean).norm() / exact.mean.norm())

    def residual(pictures: Tensor) -> float:
        return float((operator(pictures.reshape(-1, *SHAPE)) - many).flatten(1).norm(dim=1).mean())

    assert distance(made) < 0.4 * distance(free)
    assert residual(made) < 0.3 * residual(free)


@pytest.mark.parametrize("method", ["moment-matching", "posterior-sampling"])
@pytest.mark.parametrize("junk", [1e6, torch.nan, torch.inf])
def test_the_pixels_outside_a_mask_are_not_looked_at(method: str, junk: float) -> None:
    prior, operator = smooth_pictures(GaussianProcess(VP())), Mask(KNOWN)
    guidance = guidances[method].function
    settings = {"moment-matching": {"noise": NOISE}, "posterior-sampling": {"strength": 100.0}}[method]
    y, query = measured(operator).expand(5, *SHAPE), noisy(prior.process)
    one, other = (
        evaluate(guidance(conditional(prior, Condition()), operator, seen, VP(), **settings), query).mean
        for seen in (y, torch.where(KNOWN, y, junk))
    )
    assert bool(one.isfinite().all())
    assert torch.equal(one, other)


def test_gradients_are_taken_in_company_without_touching_the_others() -> None:
    """Two requests and a stranger's plain query share one differentiated and one plain call."""
    prior = smooth_pictures(GaussianProcess(VP()))
    query, plain = noisy(prior.process), conditional(prior, Condition())
    plans = [
        moment_matched(plain, operator, measured(operator).expand(5, -1, -1, -1), prior.process.schedule, noise=NOISE)
        for operator in OPERATORS
    ]
    alone = [evaluate(plan, query).mean for plan in plans]
    prior.calls.clear()
    together = answer([(plans[0], query), (plain, query), (plans[1], replace(query, x=query.x.clone()))])
    assert prior.calls == [10, 5]
    for mine, one in zip(alone, (together[0], together[2]), strict=True):
        assert isinstance(one, Gaussian)
        assert torch.allclose(one.mean, mine)
        assert not one.mean.requires_grad


def test_what_cannot_be_measured_or_followed_is_refused() -> None:
    with pytest.raises(SettingError, match="blocks of 3"):
        AveragePool(3).measured((1, 8, 8))
    with pytest.raises(SettingError, match="does not fit"):
        Mask(KNOWN).measured((1, 8, 8))
    prior = smooth_pictures(GaussianProcess(VP()))
    plain, y = conditional(prior, Condition()), torch.zeros(5, 1, 2, 2)
    with pytest.raises(SettingError, match=r"little noise, such as 0\.01"):
        moment_matched(plain, AveragePool(2), y, prior.process.schedule, noise=0.0)
    with pytest.raises(SettingError, match="at least 0"):
        posterior_sampled(plain, AveragePool(2), y, prior.process.schedule, strength=-1.0)
