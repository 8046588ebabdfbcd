"""The density under the probability-flow ODE is the analytic one, whatever the schedule."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from exact import SCHEDULES, Correlated, mixture, resolvable

from neblina.core.conditions import Condition
from neblina.core.errors import DivergenceError, SettingError
from neblina.core.posterior import Gaussian
from neblina.core.shapes import expand
from neblina.denoisers.oracles import gaussian_denoiser
from neblina.objectives.likelihood import check_density, flow_density
from neblina.processes.continuous import Flow
from neblina.processes.gaussian import GaussianProcess
from neblina.processes.schedules import Schedule
from neblina.processes.tables import ScaledLinear

BIT = math.log(2)


@dataclass(frozen=True)
class Invented:
    """No data's denoiser: a belief made up, smooth in x and t, that moves nothing at t = 0."""

    process: GaussianProcess

    def posterior(self, x: torch.Tensor, t: torch.Tensor, condition: Condition) -> Gaussian:
        schedule = self.process.schedule
        alpha, sigma = (expand(one, x) for one in (schedule.alpha(t), schedule.sigma(t)))
        share, y = sigma / (alpha + sigma), x / (alpha**2 + sigma**2).sqrt()
        return Gaussian((1 - share) * y + share * torch.sin(2 * y + 1) * 0.7)


def cross_entropy(process: GaussianProcess, mean: float, std: float, **settings: float) -> float:
    """E[−log₂ p(x)] of the model's density under N(mean, std²): Gauss-Hermite nodes, no sampling."""
    places, weights = np.polynomial.hermite_e.hermegauss(11)
    x = mean + std * torch.from_numpy(places)[:, None]
    found = flow_density(gaussian_denoiser(process, mean, std), process, x, Condition(), torch.ones_like(x), **settings)
    return float(-(torch.from_numpy(weights / weights.sum()) @ found.log_density)) / BIT


def entropy(std: float) -> float:
    return 0.5 * math.log2(2 * math.pi * math.e * std**2)


@pytest.mark.parametrize("mean", [0.0, 0.4])
def test_gaussian_data_costs_its_entropy_on_every_schedule(schedule: Schedule, mean: float) -> None:
    process = GaussianProcess(schedule)
    for std in resolvable(process):
        assert cross_entropy(process, mean, std) == pytest.approx(entropy(std), abs=0.01), std


def test_stopping_short_of_the_data_costs_the_divergence_that_it_says() -> None:
    """A discrete schedule's first step k smooths N(0, s²) to N(0, s² + k²). With zero SNR the prior is exact."""
    process = GaussianProcess(ScaledLinear(zero_snr=True))
    first = torch.tensor([1e-3], dtype=torch.float64)
    k = float(process.schedule.sigma(first) / process.schedule.alpha(first))
    for std in (0.3, 0.05):
        r = (k / std) ** 2
        nats = (math.log1p(r) + 1 / (1 + r) - 1) / 2
        assert nats <= r**2 / 4
        found = cross_entropy(process, 0.0, std, tolerance=1e-7)
        assert found - entropy(std) == pytest.approx(nats / BIT, abs=1e-4), std


@pytest.mark.parametrize("name", ["vp", "sub-vp", "ve", "edm", "flow", "linear", "cosine", "zero-snr"])
def test_a_correlated_gaussian_with_a_mean_is_exact_over_all_probes(name: str) -> None:
    """The mean over all sign vectors is the trace itself; single ones scatter around it."""
    process = GaussianProcess(SCHEDULES[name])
    generator = torch.Generator().manual_seed(3)
    root = torch.randn(3, 3, dtype=torch.float64, generator=generator) * 0.4
    mean, covariance = torch.tensor([0.3, -0.5, 0.1], dtype=torch.float64), root @ root.T + 0.05 * torch.eye(3)
    law = torch.distributions.MultivariateNormal(mean, covariance)
    x = mean + torch.randn(8, 3, dtype=torch.float64, generator=generator) @ torch.linalg.cholesky(covariance).T
    probes = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)), dtype=torch.float64)
    found = flow_density(
        Correlated(process, mean, covariance),
        process,
        x.repeat_interleave(8, 0),
        Condition(),
        probes.repeat(8, 1),
        tolerance=1e-6,
    ).log_density.reshape(8, 8)
    # a prior that is not quite the marginal at t = 1 shifts single samples: the VE ones by up to m x/σ_max
    assert torch.allclose(found.mean(1), law.log_prob(x), atol=0.03 if name in ("ve", "edm") else 0.01)
    assert float(found.mean()) == pytest.approx(float(law.log_prob(x).mean()), abs=0.01 * 3 * BIT)
    assert float(found.std(1).min()) > 0.1


def test_a_mixture_has_the_mixtures_density_and_a_label_picks_its_component() -> None:
    process = GaussianProcess(Flow())
    denoiser = mixture(process)
    x = torch.linspace(-1.5, 1.6, 23, dtype=torch.float64)[:, None]
    each = torch.distributions.Normal(denoiser.means[:, 0], denoiser.stds).log_prob(x)
    whole = torch.logsumexp(denoiser.weights.log() + each, 1)
    found = flow_density(denoiser, process, x, Condition(), torch.ones_like(x), tolerance=1e-6).log_density
    assert torch.allclose(found, whole, atol=2e-3)
    labels = torch.arange(23) % 3
    found = flow_density(denoiser, process, x, Condition(labels), torch.ones_like(x), tolerance=1e-6).log_density
    chosen = each[torch.arange(23), labels]
    near = chosen > -10  # far from its component the prior's tail decides
    assert torch.allclose(found[near], chosen[near], atol=2e-3)
    assert int(near.sum()) > 8


@pytest.mark.parametrize("name", ["vp", "edm", "flow", "cosine"])
def test_the_density_of_any_denoiser_integrates_to_one(name: str) -> None:
    process = GaussianProcess(SCHEDULES[name])
    x = torch.linspace(-6, 6, 1201, dtype=torch.float64)[:, None]
    found = flow_density(Invented(process), process, x, Condition(), torch.ones_like(x), tolerance=1e-6)
    mass = torch.trapezoid(found.log_density.exp(), x[:, 0])
    assert float(mass) == pytest.approx(1, abs=1e-3)
    assert float(found.log_density.exp().diff(dim=0).sign().diff().abs().sum()) > 2  # more than one bump


def test_a_smaller_tolerance_comes_closer() -> None:
    process = GaussianProcess(SCHEDULES["vp"])
    best = cross_entropy(process, 0.1, 0.05, tolerance=1e-9)
    errors = [abs(cross_entropy(process, 0.1, 0.05, tolerance=tolerance) - best) for tolerance in (1e-2, 1e-4, 1e-6)]
    assert errors[0] > 5 * errors[1] > 25 * errors[2]
    assert errors[1] < 1e-3


def test_a_samples_density_does_not_depend_on_its_company() -> None:
    process = GaussianProcess(SCHEDULES["cosine"])
    denoiser = mixture(process)
    x = torch.tensor([[-1.1], [0.21], [0.5], [2.0]], dtype=torch.float64)
    together = flow_density(denoiser, process, x, Condition(), torch.ones_like(x))
    for row in range(4):
        alone = flow_density(denoiser, process, x[row : row + 1], Condition(), torch.ones(1, 1, dtype=torch.float64))
        assert torch.allclose(alone.log_density, together.log_density[row], atol=1e-10)
        assert int(alone.evaluations) == int(together.evaluations[row])
    assert len(set(together.evaluations.tolist())) > 1  # each has steps of its own


def test_float32_agrees_with_float64() -> None:
    process = GaussianProcess(SCHEDULES["edm"])
    denoiser = gaussian_denoiser(process, 0.1, 0.2, (3, 8, 8))
    x = 0.1 + 0.2 * torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    probe = torch.ones_like(x)
    wide = flow_density(denoiser, process, x, Condition(), probe).log_density
    narrow = flow_density(denoiser, process, x.float(), Condition(), probe.float()).log_density
    assert torch.allclose(wide, narrow, atol=1e-3 * 192 * BIT)


@dataclass(frozen=True)
class Still(Flow):
    """A blur, say: data moves and no noise is added."""

    name = "still"

    def sigma(self, t: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(t)


@pytest.mark.parametrize(
    ("process", "said"),
    [
        (GaussianProcess(Still()), "Still schedule adds no noise at t = 0.01: what it makes of a picture is a point"),
        ("a kernel", "a str has none"),
    ],
)
def test_a_process_without_a_density_is_refused(process: object, said: str) -> None:
    with pytest.raises(SettingError, match="nll is of a model whose process has a density") as refused:
        check_density(process)
    assert said in str(refused.value)


def test_every_schedule_has_a_density(schedule: Schedule) -> None:
    check_density(GaussianProcess(schedule))


def test_what_cannot_be_integrated_is_an_error_and_never_a_number() -> None:
    process = GaussianProcess(Flow())

    class Broken:
        def posterior(self, x: torch.Tensor, t: torch.Tensor, condition: Condition) -> Gaussian:
            return Gaussian(x * torch.where(expand(t, x) > 0.5, torch.nan, 1.0))

    x = torch.zeros(2, 1, dtype=torch.float64)
    with pytest.raises(DivergenceError, match="cannot be followed"):
        flow_density(Broken(), process, x, Condition(), torch.ones_like(x))
    for tolerance in (0.0, -1.0, math.nan):
        with pytest.raises(SettingError, match="must be positive"):
            flow_density(mixture(process), process, x, Condition(), torch.ones_like(x), tolerance=tolerance)
