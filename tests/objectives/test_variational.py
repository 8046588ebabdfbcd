"""The variational bound: exact on Gaussian data, each term by itself and all of them together.

A term of Gaussian data is a quadratic in (x_0, ε), whose expectation three Gauss-Hermite nodes an axis give exactly: no
test here draws anything.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from bounds import every_term
from exact import SCHEDULES
from scipy.integrate import quad
from scipy.stats import norm

from neblina.core.conditions import Condition
from neblina.core.errors import SettingError
from neblina.core.plan import Query, conditional, evaluate
from neblina.core.posterior import Gaussian
from neblina.denoisers.oracles import MixtureDenoiser, gaussian_denoiser
from neblina.objectives.variational import decoder, level_log_probability, prior_term, step_term
from neblina.processes.gaussian import Eta, GaussianProcess, Large, Learned, Normal, Variance
from neblina.processes.grids import make_grid
from neblina.processes.schedules import Schedule

MEAN, STD = 0.1, 0.3


@dataclass
class Nodes:
    """Gauss-Hermite nodes in x_0 and in the noise of every draw: the batch is the product of both."""

    count: int

    def __post_init__(self) -> None:
        places, weights = np.polynomial.hermite_e.hermegauss(self.count)
        node, weight = torch.from_numpy(places), torch.from_numpy(weights / weights.sum())
        self.first = node.repeat_interleave(self.count)[:, None]
        self.second = node.repeat(self.count)[:, None]
        self.weights = (weight[:, None] * weight).flatten()

    def __call__(self, like: torch.Tensor) -> torch.Tensor:
        return self.second

    def mean(self, values: torch.Tensor) -> float:
        return float(self.weights @ values)


@dataclass(frozen=True)
class KnowsItsVariance:
    """The exact denoiser of Gaussian data with the variance fraction that makes its steps exact too."""

    exact: MixtureDenoiser
    times: torch.Tensor

    def posterior(self, x: torch.Tensor, t: torch.Tensor, condition: Condition) -> Gaussian:
        process = self.exact.process
        place = int((self.times == t[0]).nonzero()[0, 0])
        s = self.times[place + 1].expand(len(t))
        true = process.true_variance(t, s)
        data = belief_variance(process.schedule, t)
        alpha_s, alpha_t = process.schedule.alpha(s), process.schedule.alpha(t)
        keep = (process.schedule.sigma(s) ** 2 - true).clamp(min=0).sqrt() / process.schedule.sigma(t)
        low = true
        if float(s[0]) == 0:
            low = process.true_variance(self.times[place - 1].expand(len(t)), t)
        wanted = true + (alpha_s - alpha_t * keep) ** 2 * data
        high = process.added_variance(s, t)
        fraction = (wanted / low).log() / (high / low).log()
        belief = self.exact.posterior(x, t, condition)
        return replace(belief, variance_fraction=fraction[:, None].expand_as(x))


def belief_variance(schedule: Schedule, t: torch.Tensor) -> torch.Tensor:
    """Var(x_0 | x_t) of N(MEAN, STD²)."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    return STD**2 * sigma**2 / (alpha**2 * STD**2 + sigma**2)


def rows(value: float, count: int) -> torch.Tensor:
    return torch.full((count,), value, dtype=torch.float64)


@pytest.mark.parametrize("name", SCHEDULES)
def test_each_step_s_term_is_half_the_gain_in_signal_to_noise_times_the_error(name: str) -> None:
    """Kingma et al. 2021, eq. 13: ½ (SNR(s) − SNR(t)) E‖x_0 − x̂_0‖², for the true posterior's variance."""
    schedule, nodes = SCHEDULES[name], Nodes(3)
    process, x0 = GaussianProcess(schedule), MEAN + STD * nodes.first
    times = make_grid("uniform", schedule, 20)
    denoiser = gaussian_denoiser(process, MEAN, STD)
    for t, s in zip(times[:-2].tolist(), times[1:-1].tolist(), strict=True):
        t_, s_ = rows(t, len(x0)), rows(s, len(x0))
        x = process.diffuse(x0, nodes.second, t_)
        nats = nodes.mean(step_term(process, x0, x, t_, s_, denoiser.posterior(x, t_, Condition()), Eta(1)))
        gain = float(schedule.log_snr(s_)[0].exp() - schedule.log_snr(t_)[0].exp())
        assert nats == pytest.approx(gain / 2 * float(belief_variance(schedule, t_)[0]), rel=1e-6)


@pytest.mark.parametrize("variance", [Eta(1), Large(), Learned()])
def test_each_step_s_term_is_the_integral(variance: Variance) -> None:
    process = GaussianProcess(SCHEDULES["cosine"])
    t, s = rows(0.6, 1), rows(0.5, 1)
    x, x0 = torch.tensor([[0.4]], dtype=torch.float64), torch.tensor([[-0.2]], dtype=torch.float64)
    belief = Gaussian(torch.tensor([[0.1]], dtype=torch.float64), variance_fraction=torch.full((1, 1), 0.3).double())
    sides = [
        process.reverse(x, t, s, Gaussian(x0), Eta(1)),
        process.reverse(x, t, s, belief, variance),
    ]
    p, q = (norm(float(side.mean), float(side.std)) for side in sides if side.std is not None)
    m, d = p.mean(), p.std()
    integral, _ = quad(lambda u: p.pdf(u) * (p.logpdf(u) - q.logpdf(u)), m - 12 * d, m + 12 * d, epsabs=1e-13)
    assert float(step_term(process, x0, x, t, s, belief, variance)) == pytest.approx(integral, rel=1e-8)


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name not in ("edm", "ve")])
def test_the_prior_s_term_is_the_divergence_of_the_end_from_what_sampling_starts_from(name: str) -> None:
    schedule = SCHEDULES[name]
    x0 = torch.tensor([[0.5, -1.0]], dtype=torch.float64)
    one = rows(1, 1)
    alpha, sigma, prior = float(schedule.alpha(one)), float(schedule.sigma(one)), schedule.prior_std
    wanted = sum(
        (sigma**2 + (alpha * float(x)) ** 2) / (2 * prior**2) - 0.5 - math.log(sigma / prior) for x in x0.flatten()
    )
    assert float(prior_term(GaussianProcess(schedule), x0)) == pytest.approx(wanted, abs=1e-12)


def test_ddpm_s_prior_term_is_the_paper_s_number() -> None:
    """Ho et al. 2020, section 4: L_T ≈ 1e-5 bits a dimension for data scaled to [−1, 1]."""
    x0 = torch.linspace(-1, 1, 1001, dtype=torch.float64)[:, None]
    bits = float(prior_term(GaussianProcess(SCHEDULES["linear"]), x0).mean()) / math.log(2)
    assert 5e-6 < bits < 2e-5


GRIDS = [("cosine", 40), ("linear", 100), ("vp", 30)]


def falling(schedule: Schedule, steps: int) -> torch.Tensor:
    """Denser towards the data, on the points of a discrete schedule."""
    times = make_grid("uniform", schedule, steps) ** 2
    if schedule.steps is not None:
        times = (times * schedule.steps).round().unique().flip(0) / schedule.steps
    return times


@pytest.mark.parametrize(("name", "steps"), GRIDS)
def test_with_an_exact_model_the_bound_is_the_entropy(name: str, steps: int) -> None:
    """Exact means and variances make the chain the data's own: all that is left is KL(q(x_1) ‖ p(x_1))."""
    schedule, nodes = SCHEDULES[name], Nodes(3)
    process, x0 = GaussianProcess(schedule), MEAN + STD * nodes.first
    times = falling(schedule, steps)
    plan = conditional(KnowsItsVariance(gaussian_denoiser(process, MEAN, STD), times), Condition())
    *terms, _ = every_term(process, plan, x0, times, Learned(), nodes)
    # the decoder's density at a real number, in place of the pixel it falls in
    t, before = times[-2].expand(len(x0)), times[-3].expand(len(x0))
    x = process.diffuse(x0, nodes.second, t)
    decoded = decoder(process, t, before, evaluate(plan, Query(x, t)), Learned())
    assert decoded.std is not None
    density = -(((x0 - decoded.mean) / decoded.std) ** 2) / 2 - decoded.std.log() - 0.5 * math.log(2 * math.pi)
    total = sum(nodes.mean(term.nats) for term in terms) - nodes.mean(density[:, 0])
    entropy = 0.5 * math.log(2 * math.pi * math.e * STD**2)
    alpha, sigma = float(schedule.alpha(rows(1, 1))), float(schedule.sigma(rows(1, 1)))
    end = alpha**2 * STD**2 + sigma**2
    gap = 0.5 * (end + alpha**2 * MEAN**2 - 1 - math.log(end))
    assert total == pytest.approx(entropy + gap, abs=1e-10)


@pytest.mark.parametrize(("name", "steps"), GRIDS)
def test_on_pixels_the_bound_lies_just_above_their_entropy(name: str, steps: int) -> None:
    """All 256 levels with the probabilities of the rounded normal distribution, and 30 nodes of noise each."""
    schedule = SCHEDULES[name]
    process, times = GaussianProcess(schedule), falling(schedule, steps)
    levels = torch.linspace(-1, 1, 256, dtype=torch.float64)[:, None]
    pixel = level_log_probability(levels, Normal(torch.full_like(levels, MEAN), rows(STD, 256)))[:, 0].exp()
    nodes = Nodes(30)
    nodes.second = nodes.second[:30].repeat(256, 1)
    nodes.weights = (pixel[:, None] * nodes.weights[:30]).flatten()
    nodes.weights = nodes.weights / nodes.weights.sum()
    x0 = levels.repeat_interleave(30, 0)
    plan = conditional(KnowsItsVariance(gaussian_denoiser(process, MEAN, STD), times), Condition())
    total = sum(nodes.mean(term.nats) for term in every_term(process, plan, x0, times, Learned(), nodes))
    entropy = -float(pixel @ pixel.log())
    assert entropy < total < entropy + 0.01


@pytest.mark.parametrize("std", [1e-3, 0.005, 0.1, 3.0])
@pytest.mark.parametrize("mean", [-1.2, 0.0, 0.37, 1.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_decoder_s_levels_share_all_probability(std: float, mean: float, dtype: torch.dtype) -> None:
    levels = torch.linspace(-1, 1, 256, dtype=dtype)[:, None]
    decoded = Normal(torch.full_like(levels, mean), torch.full((256,), std, dtype=torch.float64))
    log = level_log_probability(levels, decoded)
    assert bool(log.isfinite().all())
    assert float(log.double().exp().sum()) == pytest.approx(1, abs=1e-9 if dtype is torch.float64 else 1e-4)


@pytest.mark.parametrize("mean", [-1e5, -1e2, 1e2, 1e5])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_belief_far_outside_has_a_finite_surprise_that_points_back(mean: float, dtype: torch.dtype) -> None:
    """log Φ(z) ≈ −z²/2 in its tail: nothing of it is lost, nor of its slope −z/σ."""
    levels = torch.linspace(-1, 1, 256, dtype=dtype)[:, None]
    means = torch.full_like(levels, mean, requires_grad=True)
    std = torch.full_like(levels, 0.006, requires_grad=True)
    log = level_log_probability(levels, Normal(means, std))
    log.sum().backward()
    assert means.grad is not None
    assert std.grad is not None
    # the nearer edge of a level's interval; the level next to the belief is open on its side
    away = ((levels - mean).abs() - 1 / 255).detach()[1:-1] / 0.006
    assert torch.allclose(log.detach()[1:-1], -(away**2) / 2, rtol=1e-3)
    assert torch.allclose(means.grad[1:-1], -math.copysign(1, mean) * away / 0.006, rtol=1e-2)
    assert bool(means.grad.isfinite().all())
    assert torch.allclose(std.grad[1:-1], away**2 / 0.006, rtol=1e-2)
    assert bool(std.grad.isfinite().all())


def test_a_level_s_probability_is_the_integral_over_its_interval() -> None:
    level = torch.tensor([[2 * 100 / 255 - 1]], dtype=torch.float64)
    decoded = Normal(torch.tensor([[-0.2]], dtype=torch.float64), torch.tensor([0.02], dtype=torch.float64))
    a, b = float(level) - 1 / 255, float(level) + 1 / 255
    integral, _ = quad(norm(-0.2, 0.02).pdf, a, b, epsabs=1e-15)
    assert float(level_log_probability(level, decoded)) == pytest.approx(math.log(integral), rel=1e-9)


def test_the_decoder_has_the_variance_of_the_model_s_last_step() -> None:
    """Large: β_1. Small: β̃_2, as improved DDPM clips it. Learned: between, in the logarithm."""
    schedule = SCHEDULES["linear"]
    process, count = GaussianProcess(schedule), 1
    first, second = rows(1 / 1000, count), rows(2 / 1000, count)
    betas = schedule.betas  # type: ignore[attr-defined]
    alpha_bar = torch.cumprod(1 - betas, 0)
    clipped = float(betas[1] * (1 - alpha_bar[0]) / (1 - alpha_bar[1]))
    belief = Gaussian(torch.zeros(1, 1).double(), variance_fraction=torch.full((1, 1), 0.25).double())

    def variance_of(variance: Variance, before: torch.Tensor | None = second) -> float:
        std = decoder(process, first, before, belief, variance).std
        assert std is not None
        return float(std) ** 2

    assert variance_of(Large()) == pytest.approx(float(betas[0]))
    assert variance_of(Eta(1)) == pytest.approx(clipped)
    assert variance_of(Learned()) == pytest.approx(clipped**0.75 * float(betas[0]) ** 0.25)
    assert variance_of(Eta(1), None) == pytest.approx(float(betas[0]))


def test_terms_come_in_order_in_nats_and_in_bits() -> None:
    process, nodes = GaussianProcess(SCHEDULES["linear"]), Nodes(3)
    x0 = torch.zeros(9, 2, dtype=torch.float64)
    plan = conditional(gaussian_denoiser(process, MEAN, STD, (2,)), Condition())
    times = make_grid("uniform", process.schedule, 4)
    terms = every_term(process, plan, x0, times, Large(), nodes)
    assert [term.name for term in terms] == ["prior", "step", "step", "step", "reconstruction"]
    assert [(term.t, term.s) for term in terms[1:]] == [(1, 0.75), (0.75, 0.5), (0.5, 0.25), (0.25, 0)]
    for term in terms:
        assert torch.allclose(term.bits_per_dim, term.nats / math.log(2) / 2)


@pytest.mark.parametrize(
    ("times", "variance", "said"),
    [
        ([1.0, 0.5], Large(), "fall from 1 to 0"),
        ([0.9, 0.5, 0], Large(), "fall from 1 to 0"),
        ([1, 0.5, 0.5, 0], Large(), "fall from 1 to 0"),
        ([1, 0.5, 0], Eta(0.5), r"with eta 0\.5"),
        ([1, 0.5, 0], Learned(), "did not learn its variance"),
    ],
)
def test_what_has_no_bound_is_refused(times: list[float], variance: Variance, said: str) -> None:
    process, nodes = GaussianProcess(SCHEDULES["linear"]), Nodes(3)
    plan = conditional(gaussian_denoiser(process, MEAN, STD), Condition())
    grid = torch.tensor(times, dtype=torch.float64)
    with pytest.raises(SettingError, match=said):
        every_term(process, plan, nodes.first, grid, variance, nodes)
