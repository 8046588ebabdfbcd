"""The hybrid loss is the paper's, and score matching learns the score."""

import math
from typing import Any

import pytest
import torch
from exact import SCHEDULES, mixture
from numpy.polynomial.hermite_e import hermegauss

from neblina.core.conditions import Condition
from neblina.core.errors import SettingError
from neblina.denoisers.denoiser import NetworkDenoiser
from neblina.objectives.hybrid import Objective, variance_loss
from neblina.objectives.simple import compare
from neblina.objectives.variational import decoder, level_log_probability, step_term
from neblina.processes.gaussian import GaussianProcess, Learned
from neblina.processes.schedules import Schedule
from neblina.processes.tables import Cosine, Linear

STEPS = 50


class TwoHalves(torch.nn.Module):
    """A prediction and a variance, each from weights of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.nn.Conv2d(1, 1, 3, padding=1)
        self.spread = torch.nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.mean(x), self.spread(x)], 1)


def setting(seed: int = 0, parameterisation: str = "eps") -> tuple[Any, NetworkDenoiser, tuple[torch.Tensor, ...]]:
    torch.manual_seed(seed)
    net = TwoHalves()
    denoiser = NetworkDenoiser(net, GaussianProcess(Linear(STEPS)), parameterisation, learned_variance=True)
    x0 = torch.randint(0, 256, (6, 1, 4, 4)) / 127.5 - 1
    t = torch.tensor([1, 2, 3, 20, 49, 50], dtype=torch.float64) / STEPS
    return net, denoiser, (x0, torch.randn_like(x0), t)


def gradients(net: Any, loss: torch.Tensor) -> tuple[list[torch.Tensor | None], list[torch.Tensor | None]]:
    net.zero_grad()
    loss.backward()
    return [one.grad for one in net.mean.parameters()], [one.grad for one in net.spread.parameters()]


def test_each_loss_reaches_its_own_half_of_the_network() -> None:
    """Improved DDPM, section 3.1: the mean learns from L_simple alone, the variance from L_vlb alone."""
    net, denoiser, (x0, noise, t) = setting()
    hybrid = Objective(vlb_weight=0.7)(denoiser, x0, noise, t, Condition()).loss.sum()
    mean, spread = ([one.clone() for one in half if one is not None] for half in gradients(net, hybrid))
    simple_mean, simple_spread = gradients(net, compare(denoiser, x0, noise, t, Condition()).loss.sum())
    assert all(torch.equal(one, other) for one, other in zip(mean, simple_mean, strict=True) if other is not None)
    assert all(one is None or not bool(one.any()) for one in simple_spread)
    assert all(bool(one.any()) and bool(one.isfinite().all()) for one in spread)
    compared = compare(denoiser, x0, noise, t, Condition())
    vlb_mean, vlb_spread = gradients(net, 0.7 * variance_loss(denoiser, compared, x0, t).sum())
    assert all(one is None or not bool(one.any()) for one in vlb_mean)
    assert all(torch.allclose(one, other) for one, other in zip(spread, vlb_spread, strict=True) if other is not None)


def test_its_value_is_that_of_the_bound_s_terms() -> None:
    """T times the term of each step, in bits per dimension; the first step's is the decoder's surprise."""
    _, denoiser, (x0, noise, t) = setting(parameterisation="v")
    process = denoiser.process
    compared = compare(denoiser, x0, noise, t, Condition())
    loss = variance_loss(denoiser, compared, x0, t)
    x = process.diffuse(x0, noise, t)
    belief = denoiser.posterior(x, t, Condition())
    for row, time in enumerate(t):
        one = slice(row, row + 1)
        when = time[None]
        part = type(belief)(belief.mean[one], variance_fraction=belief.variance_fraction[one])  # type: ignore[index]
        if row == 0:
            decoded = decoder(process, when, when + 1 / STEPS, part, Learned())
            nats = -level_log_probability(x0[one], decoded).sum()
        else:
            nats = step_term(process, x0[one], x[one], when, when - 1 / STEPS, part, Learned())
        assert float(loss[row].detach()) == pytest.approx(STEPS * float(nats.detach()) / (16 * math.log(2)), rel=1e-4)


@pytest.mark.parametrize("schedule", [Linear(1000), Cosine(1000)], ids=["linear", "cosine"])
def test_a_network_that_knows_nothing_yet_has_a_finite_loss_and_gradient_at_every_step(schedule: Schedule) -> None:
    """A new network's eps is 0, so its x̂_0 = x/α is a hundred to a hundred thousand near t = 1."""
    net = TwoHalves()
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)
    denoiser = NetworkDenoiser(net, GaussianProcess(schedule), "eps", learned_variance=True)
    generator = torch.Generator().manual_seed(0)
    t = torch.tensor([1, 2, 3, 500, 900, 990, 998, 999, 1000], dtype=torch.float64) / 1000
    x0 = torch.randint(0, 256, (9, 1, 4, 4), generator=generator) / 127.5 - 1
    x0[:, :, 0, 0], x0[:, :, 0, 1] = -1, 1
    noise = torch.randn(x0.shape, generator=generator)
    loss = Objective(vlb_weight=0.001)(denoiser, x0, noise, t, Condition()).loss
    assert bool(loss.isfinite().all())
    for half in gradients(net, loss.sum()):
        assert all(one is not None and bool(one.isfinite().all()) for one in half)


@pytest.mark.training
def test_the_variance_it_learns_is_the_best_one() -> None:
    """Data all of one point is known exactly, so the reverse step's true variance is the small one: fraction 0."""
    schedule = Cosine(20)
    process = GaussianProcess(schedule)

    class Fraction(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.raw = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            return torch.cat([torch.full_like(x, 3 / 255), self.raw.expand_as(x)], 1)

    net = Fraction()
    denoiser = NetworkDenoiser(net, process, "x0", learned_variance=True)
    x0 = torch.full((32, 1, 1, 1), 3 / 255)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    for _ in range(200):
        t = torch.randint(2, 21, (32,), generator=generator) / torch.tensor(20.0).double()
        noise = torch.randn(x0.shape, generator=generator)
        compared = compare(denoiser, x0, noise, t, Condition())
        optimizer.zero_grad()
        variance_loss(denoiser, compared, x0, t).mean().backward()
        optimizer.step()
    assert float(net.raw.detach()) == pytest.approx(-1, abs=0.02)  # −1 is the fraction 0


def test_a_schedule_without_steps_is_refused() -> None:
    _, denoiser, (x0, noise, t) = setting()
    continuous = NetworkDenoiser(denoiser.net, GaussianProcess(SCHEDULES["vp"]), "eps", learned_variance=True)
    with pytest.raises(SettingError, match="counts the steps of a discrete schedule, and vp has none"):
        Objective(vlb_weight=0.001)(continuous, x0, noise, t, Condition())


class Score(torch.nn.Module):
    """The true score of the mixture at one time, and something added to it."""

    def __init__(self, process: GaussianProcess, t: torch.Tensor, added: Any) -> None:
        super().__init__()
        self.exact, self.t, self.added = mixture(process), t, added

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        schedule = self.exact.process.schedule
        alpha, sigma = schedule.alpha(self.t)[:, None], schedule.sigma(self.t)[:, None]
        mean = self.exact.posterior(x, self.t, Condition()).mean
        score: torch.Tensor = (alpha * mean - x) / sigma**2 + self.added(x)
        return score


@pytest.mark.parametrize("name", ["vp", "ve"])
@pytest.mark.parametrize("time", [0.2, 0.5, 0.8])
def test_the_score_s_simple_loss_is_denoising_score_matching_weighted_by_sigma_squared(name: str, time: float) -> None:
    """Vincent 2011, section 4; Song et al. 2021, eq. 7: the gradient of log q(x_t|x_0), taken here by autograd."""
    schedule = SCHEDULES[name]
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 5, 1, generator=generator, dtype=torch.float64)
    t = torch.full((5,), time, dtype=torch.float64)
    process = GaussianProcess(schedule)
    net = Score(process, t, torch.sin)
    loss = compare(NetworkDenoiser(net, process, "score"), x0, noise, t, Condition()).loss
    x = process.diffuse(x0, noise, t).requires_grad_()
    kernel = process.forward(x0, torch.zeros_like(t), t)
    assert kernel.std is not None
    log = torch.distributions.Normal(kernel.mean, kernel.std[:, None]).log_prob(x).sum()
    (conditional_score,) = torch.autograd.grad(log, x)
    wanted = schedule.sigma(t) ** 2 * (net(x, t) - conditional_score).square().sum(1).detach()
    assert torch.allclose(loss.double(), wanted, rtol=1e-5)


@pytest.mark.parametrize("name", ["vp", "ve"])
@pytest.mark.parametrize("added", [torch.sin, torch.ones_like, lambda x: 0.1 * x**2, torch.tanh])
def test_its_minimiser_is_the_true_score(name: str, added: Any) -> None:
    """Whatever is added to ∇ log q(x_t) costs its own weighted square and not a bit less: by quadrature, exactly."""
    process = GaussianProcess(SCHEDULES[name])
    exact = mixture(process)
    places, weights = (torch.from_numpy(one) for one in hermegauss(60))
    weights = weights / weights.sum()
    shape = (len(exact.weights), 60, 60)
    x0 = (exact.means[:, :, None] + exact.stds[:, None, None] * places[None, :, None]).expand(shape).reshape(-1, 1)
    noise = places.expand(shape).reshape(-1, 1)
    mass = (exact.weights[:, None, None] * weights[None, :, None] * weights).reshape(-1)
    t = torch.full((len(x0),), 0.3, dtype=torch.float64)

    def loss(extra: Any) -> float:
        net = Score(process, t, extra)
        return float(mass @ compare(NetworkDenoiser(net, process, "score"), x0, noise, t, Condition()).loss.double())

    sigma = process.schedule.sigma(t)[0]
    cost = float(sigma**2 * (mass @ added(process.diffuse(x0, noise, t))[:, 0].square()))
    assert loss(added) - loss(torch.zeros_like) == pytest.approx(cost, rel=1e-4)
