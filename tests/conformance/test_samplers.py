"""Suites 1 and 2: every registered sampler against exact denoisers. A sampler that is registered is tested here."""

import math
from itertools import pairwise

import pytest
import torch
from exact import SCHEDULES, BasisNoise, final_std, marginal_std, mixture, resolvable, std_error, steps_for

from neblina.core.conditions import Condition
from neblina.core.noise import SampleNoise
from neblina.core.plan import conditional
from neblina.denoisers.oracles import MixtureDenoiser, dataset_denoiser, gaussian_denoiser
from neblina.processes.continuous import VP, Flow
from neblina.processes.gaussian import GaussianProcess
from neblina.processes.grids import grids, make_grid
from neblina.processes.schedules import Schedule
from neblina.processes.tables import Cosine
from neblina.samplers import Sampler, samplers
from neblina.samplers.drive import sample

DISTINCT = {entry.name: entry for _, entry in samplers.items()}
EVERY = pytest.mark.parametrize("sampler", DISTINCT.values(), ids=list(DISTINCT))
DETERMINISTIC = [entry for entry in DISTINCT.values() if not entry.stochastic]
HIGHER = [entry for entry in DISTINCT.values() if entry.order > 1]


def between(process: GaussianProcess, noisiest: float, cleanest: float, steps: int) -> torch.Tensor:
    """A grid from σ/α = noisiest to cleanest, even in the log-SNR."""
    ratios = torch.linspace(math.log(noisiest), math.log(cleanest), steps + 1, dtype=torch.float64)
    return process.schedule.time(-2 * ratios)


def fitted_order(errors: list[float]) -> float:
    """Slope of log error against log step, for steps that halve."""
    return math.log2(errors[0] / errors[-1]) / (len(errors) - 1)


@EVERY
def test_the_sampled_law_converges_at_the_declared_order(sampler: Sampler, schedule: Schedule) -> None:
    """On Gaussian data, between two noise levels, from the exact law at the first: exact for stochastic ones too."""
    process = GaussianProcess(schedule)
    errors = []
    for steps in (64, 128, 256):
        grid = between(process, 3.0, 0.1, steps)
        begin, end = (marginal_std(process, 0.3, one) for one in (grid[:1], grid[-1:]))
        errors.append(abs(final_std(sampler, process, 0.3, grid, begin) / end - 1))
    assert fitted_order(errors) >= sampler.order - 0.1, errors


@pytest.mark.parametrize("sampler", DETERMINISTIC, ids=[entry.name for entry in DETERMINISTIC])
@pytest.mark.parametrize("kind", [VP, Cosine, Flow])
def test_every_path_through_a_mixture_converges_at_the_declared_order(sampler: Sampler, kind: type[Schedule]) -> None:
    process = GaussianProcess(kind())
    plan = conditional(mixture(process), Condition())
    begin = between(process, 3.0, 0.3, 1)[:1]
    x = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None] * process.schedule.sigma(begin)

    def end(which: Sampler, steps: int) -> torch.Tensor:
        return sample(which(process, x, between(process, 3.0, 0.3, steps), noise=BasisNoise()), plan)

    exact = end(samplers["heun"], 4096)
    errors = [float((end(sampler, steps) - exact).square().mean().sqrt()) for steps in (64, 128, 256)]
    assert fitted_order(errors) >= sampler.order - 0.1, errors


@pytest.mark.parametrize("sampler", HIGHER, ids=[entry.name for entry in HIGHER])
def test_at_twenty_evaluations_the_worst_width_error_is_small(sampler: Sampler, schedule: Schedule) -> None:
    """Multistep within 2 % at 20 evaluations; two-stage within 5 % at 20 and 1.5 % at 50; on the one default grid."""
    process = GaussianProcess(schedule)
    widths = resolvable(process)
    multistep = steps_for(sampler, process, 20) == 20
    bounds = {20: 0.02} if multistep else {20: 0.05, 50: 0.015}
    for evaluations, bound in bounds.items():
        steps = steps_for(sampler, process, evaluations)
        errors = {std: std_error(sampler, process, std, steps) for std in widths}
        assert max(errors.values()) <= bound, (evaluations, errors)


@pytest.mark.parametrize("sampler", [one for one in DISTINCT.values() if one.order == 1], ids=lambda one: one.name)
def test_a_first_order_sampler_halves_its_error_when_the_evaluations_double(
    sampler: Sampler, schedule: Schedule
) -> None:
    """Up to the logarithm that the grid's opening ends cost: ½ (1 + log 2 / log(k_max/k_min)), 0.55 here."""
    process = GaussianProcess(schedule)
    for std in (1.0, 0.5, 0.3):
        if std not in resolvable(process):
            continue
        errors = [std_error(sampler, process, std, steps) for steps in (25, 50, 100)]
        assert errors[-1] <= 2e-3 or errors[-1] <= 0.56**2 * errors[0], (std, errors)


@EVERY
def test_sampling_a_finite_dataset_gives_the_dataset_in_its_proportions(sampler: Sampler) -> None:
    process = GaussianProcess(Cosine())
    points = torch.tensor([[-1.0, 0.5], [-0.2, -0.8], [0.6, 0.9], [0.9, -0.4]])
    count = 4000
    noise = SampleNoise(5, range(count))
    x = process.prior(noise(torch.empty(count, 2, dtype=torch.float64)))
    grid = make_grid(sampler.grid, process.schedule, 60)
    made = sample(sampler(process, x, grid, noise=noise), conditional(dataset_denoiser(process, points), Condition()))
    distance = torch.cdist(made, points.double())
    assert float(distance.min(1).values.quantile(0.99)) < 0.02
    shares = torch.bincount(distance.argmin(1), minlength=4) / count
    spread = (0.25 * 0.75 / count) ** 0.5
    assert float((shares - 0.25).abs().max()) < 4 * spread + 0.01, shares


@EVERY
def test_weighted_classes_come_out_in_their_proportions_and_a_label_picks_its_own(sampler: Sampler) -> None:
    process = GaussianProcess(VP())
    denoiser = mixture(process)
    count = 3000
    noise = SampleNoise(6, range(count))
    x = process.prior(noise(torch.empty(count, 1, dtype=torch.float64)))
    grid = make_grid(sampler.grid, process.schedule, 60)
    made = sample(sampler(process, x, grid, noise=noise), conditional(denoiser, Condition()))
    truth = float((denoiser.weights * denoiser.means[:, 0]).sum())
    assert abs(float(made.mean()) - truth) < 4 * float(made.std()) / count**0.5 + 0.01
    labels = Condition(torch.ones(count, dtype=torch.int64))
    noise = SampleNoise(6, range(count))
    chosen = sample(
        sampler(process, process.prior(noise(torch.empty(count, 1, dtype=torch.float64))), grid, noise=noise),
        conditional(denoiser, labels),
    )
    assert abs(float(chosen.mean()) - 0.2) < 0.01
    assert abs(float(chosen.std()) - 0.1) < 0.02


@EVERY
@pytest.mark.parametrize("grid", list(grids))
def test_every_grid_of_every_schedule_is_walked_to_finite_samples(
    sampler: Sampler, grid: str, schedule: Schedule
) -> None:
    if grid in ("leading", "trailing") and schedule.steps is None:
        pytest.skip("these grids are of discrete schedules")
    process = GaussianProcess(schedule)
    plan = conditional(gaussian_denoiser(process, 0.2, 0.5), Condition())
    for steps in (1, 2, 3, 7):
        grid_times = make_grid(grid, schedule, steps)
        assert grid_times.shape == (steps + 1,)
        assert bool((grid_times.diff() < 0).all())
        assert float(grid_times[-1]) == 0
        noise = SampleNoise(1, range(4))
        x = process.prior(noise(torch.empty(4, 1, dtype=torch.float64)))
        assert bool(sample(sampler(process, x, grid_times, noise=noise), plan).isfinite().all())


@EVERY
def test_samples_of_one_batch_may_begin_end_and_stand_still_at_different_times(sampler: Sampler) -> None:
    """A ragged batch gives each sample what it gets alone."""
    process = GaussianProcess(Cosine())
    plan = conditional(mixture(process), Condition())
    columns = [
        make_grid("log_snr", process.schedule, 6),
        torch.tensor([0.8, 0.6, 0.4, 0.3, 0.0, 0.0, 0.0], dtype=torch.float64),
        torch.tensor([0.7, 0.7, 0.5, 0.5, 0.3, 0.2, 0.1], dtype=torch.float64),
    ]
    x = SampleNoise(2, range(3))(torch.empty(3, 1, dtype=torch.float64))
    ragged = sample(sampler(process, x, torch.stack(columns, 1), noise=SampleNoise(3, range(3))), plan)
    assert bool(ragged.isfinite().all())
    for row, column in enumerate(columns):
        alone = sample(sampler(process, x[row : row + 1], column, noise=SampleNoise(3, [row])), plan)
        assert torch.allclose(ragged[row], alone[0], atol=1e-10)


@pytest.mark.parametrize("sampler", DETERMINISTIC, ids=[entry.name for entry in DETERMINISTIC])
def test_changing_the_schedule_at_sampling_time_changes_nothing_else(sampler: Sampler) -> None:
    """The same signal-to-noise ratios on another schedule are the same path, up to its scale."""
    ends = []
    for schedule in SCHEDULES.values():
        process = GaussianProcess(schedule)
        grid = between(process, 8.0, 0.05, 12)
        scale = (process.schedule.alpha(grid) ** 2 + process.schedule.sigma(grid) ** 2).sqrt()
        x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None] * scale[0]
        plan = conditional(mixture(process), Condition())
        ends.append(sample(sampler(process, x, grid, noise=BasisNoise()), plan) / scale[-1])
    for end in ends[1:]:
        assert torch.allclose(end, ends[0], atol=1e-9)


@EVERY
def test_two_names_of_one_map_give_the_same_samples(sampler: Sampler) -> None:
    process = GaussianProcess(VP())
    plan = conditional(mixture(process), Condition())
    grid = make_grid("log_snr", process.schedule, 5)
    results = []
    for name, entry in samplers.items():
        if entry.name == sampler.name:
            noise = SampleNoise(1, range(3))
            x = noise(torch.empty(3, 1, dtype=torch.float64))
            results.append(sample(samplers[name](process, x, grid, noise=noise), plan))
    assert all(torch.equal(one, results[0]) for one in results)


def test_euler_on_the_probability_flow_ode_is_ddim() -> None:
    """dx̄/dk = (x̄ − x̂_0)/k with x̄ = x/α, k = σ/α, integrated by hand."""
    process = GaussianProcess(Flow())
    denoiser = mixture(process)
    grid = torch.tensor([0.9, 0.7, 0.4, 0.2, 0.1], dtype=torch.float64)
    x = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    by_sampler = sample(samplers["euler"](process, x, grid, noise=BasisNoise()), conditional(denoiser, Condition()))
    for t, s in pairwise(grid):
        k_t, k_s = t / (1 - t), s / (1 - s)
        scaled = x / (1 - t)
        belief = denoiser.posterior(x, t.expand(5), Condition()).mean
        x = (scaled + (k_s - k_t) * (scaled - belief) / k_t) * (1 - s)
    assert torch.allclose(by_sampler, x, atol=1e-12)


def test_a_narrow_component_is_not_a_dataset() -> None:
    """The oracle itself: its posterior mean agrees with numerical integration."""
    process = GaussianProcess(VP())
    denoiser: MixtureDenoiser = mixture(process)
    t = torch.tensor([0.4], dtype=torch.float64)
    alpha, sigma = process.schedule.alpha(t), process.schedule.sigma(t)
    grid = torch.linspace(-4, 4, 20001, dtype=torch.float64)
    density = sum(
        weight * torch.exp(-((grid - mean) ** 2) / (2 * std**2)) / std
        for weight, mean, std in zip(denoiser.weights, denoiser.means[:, 0], denoiser.stds, strict=True)
    )
    for x in (-1.5, 0.0, 0.7):
        likelihood = density * torch.exp(-((x - alpha * grid) ** 2) / (2 * sigma**2))
        exact = (grid * likelihood).sum() / likelihood.sum()
        ours = denoiser.posterior(torch.tensor([[x]], dtype=torch.float64), t, Condition()).mean
        assert torch.allclose(ours[0, 0], exact, atol=1e-9)
