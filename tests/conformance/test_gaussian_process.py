"""The process itself: published tables, closed forms, exact reverse steps, and both ends of time."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from exact import SCHEDULES

from neblina.core.errors import SettingError
from neblina.core.posterior import Gaussian
from neblina.processes.continuous import EDM, VE, VP, Flow, SubVP
from neblina.processes.gaussian import Eta, GaussianProcess, Large, Learned, Normal, Variance
from neblina.processes.grids import grids, make_grid
from neblina.processes.schedules import Schedule, make_schedule
from neblina.processes.tables import Cosine, Linear, Table

TABLES = {name: one for name, one in SCHEDULES.items() if isinstance(one, Table) and not one.zero_snr}


def moments(normal: Normal) -> tuple[torch.Tensor, torch.Tensor]:
    return normal.mean, torch.zeros(()) if normal.std is None else normal.std**2


@pytest.mark.parametrize("name", TABLES)
def test_a_discrete_schedule_is_its_published_table(name: str) -> None:
    schedule = TABLES[name]
    steps = schedule.steps
    n = torch.arange(1, steps + 1, dtype=torch.float64)
    alpha_bar = torch.cumprod(1 - schedule.betas, 0)
    assert torch.allclose(schedule.alpha(n / steps) ** 2, alpha_bar, rtol=1e-9, atol=0)
    assert torch.allclose(schedule.sigma(n / steps) ** 2, 1 - alpha_bar, rtol=1e-9, atol=0)


def test_ddpm_s_linear_table_ends_where_the_paper_says() -> None:
    """Ho et al. 2020, section 4: KL(q(x_T | x_0) ‖ N(0, I)) ≈ 1e-5 bits a dimension; β_1 = 1e-4, β_T = 0.02."""
    schedule = Linear()
    assert float(schedule.betas[0]) == pytest.approx(1e-4)
    assert float(schedule.betas[-1]) == pytest.approx(0.02)
    end = torch.ones(1, dtype=torch.float64)
    alpha, sigma = float(schedule.alpha(end)), float(schedule.sigma(end))
    # averaged over data uniform in [−1, 1], of second moment 1/3
    kl = 0.5 * (sigma**2 + alpha**2 / 3 - 1 - torch.log(torch.tensor(sigma**2)).item()) / 0.6931
    assert 5e-6 < kl < 2e-5


def test_the_cosine_table_is_the_paper_s() -> None:
    """Nichol, Dhariwal 2021, eq. 17: ᾱ_t = f(t)/f(0), f(t) = cos²((t/T + s)/(1 + s) · π/2), β at most 0.999."""
    schedule = Cosine(steps=4000)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    f = torch.cos((t + 0.008) / 1.008 * torch.pi / 2) ** 2
    f_0 = torch.cos(torch.tensor(0.008 / 1.008 * torch.pi / 2, dtype=torch.float64)) ** 2
    assert torch.allclose(schedule.alpha(t) ** 2, f / f_0, rtol=1e-9)
    assert float(schedule.betas.max()) == 0.999


def test_the_vp_path_solves_its_sde() -> None:
    """dx = −½ β(t) x dt + …: d log α/dt = −½ β(t) with β linear (Song et al. 2021, eq. 32)."""
    schedule = VP()
    t = torch.linspace(0.05, 0.95, 7, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(schedule.alpha(t).log().sum(), t)
    assert torch.allclose(slope, -0.5 * (0.1 + t.detach() * 19.9), rtol=1e-9)


def test_log_snr_is_what_alpha_and_sigma_say_and_falls(schedule: Schedule) -> None:
    t = torch.linspace(0.003, 0.997, 331, dtype=torch.float64)
    ratio = 2 * (schedule.alpha(t).log() - schedule.sigma(t).log())
    assert torch.allclose(schedule.log_snr(t), ratio, atol=1e-8)
    assert bool((schedule.log_snr(t).diff() < 0).all())


def test_time_is_the_inverse_of_log_snr(schedule: Schedule) -> None:
    t = torch.linspace(1e-4, 0.9999, 1001, dtype=torch.float64)
    assert torch.allclose(schedule.time(schedule.log_snr(t)), t, atol=1e-9)


def test_time_is_finite_where_nothing_is_left_of_the_data_and_where_all_is(schedule: Schedule) -> None:
    ends = schedule.time(torch.tensor([-torch.inf, -90.0, torch.inf], dtype=torch.float64))
    assert bool((ends[:2] >= 1 - 1e-9).all())
    assert float(ends[2]) == 0


def test_between_table_points_the_log_snr_is_interpolated() -> None:
    schedule = Linear(steps=10)
    points = schedule.log_snr(torch.tensor([0.3, 0.4], dtype=torch.float64))
    middle = schedule.log_snr(torch.tensor([0.35], dtype=torch.float64))
    assert torch.allclose(middle[0], points.mean())


def test_data_is_where_time_begins(schedule: Schedule) -> None:
    zero = torch.zeros(1, dtype=torch.float64)
    assert float(schedule.alpha(zero)) == 1
    assert float(schedule.sigma(zero)) == 0
    assert float(schedule.log_snr(zero)) == torch.inf


def test_forward_steps_compose(schedule: Schedule) -> None:
    """q(x_u | x_s) is q(x_u | x_t) after q(x_t | x_s), whatever t lies between (Chapman-Kolmogorov)."""
    process = GaussianProcess(schedule)
    x = torch.randn(3, 2, dtype=torch.float64)
    s, t, u = (torch.full((3,), value, dtype=torch.float64) for value in (0.2, 0.55, 0.9))
    first, second = process.forward(x, s, t), process.forward(torch.ones(3, 1, dtype=torch.float64), t, u)
    direct = process.forward(x, s, u)
    gain = second.mean
    assert torch.allclose(gain * first.mean, direct.mean)
    assert torch.allclose(gain[:, 0] ** 2 * moments(first)[1] + moments(second)[1], moments(direct)[1])


def test_from_clean_data_forward_is_alpha_and_sigma(schedule: Schedule) -> None:
    process = GaussianProcess(schedule)
    x0, noise = torch.randn(2, 4, 3, dtype=torch.float64)
    t = torch.tensor([0.1, 0.4, 0.7, 1.0], dtype=torch.float64)
    mean, variance = moments(process.forward(x0, torch.zeros_like(t), t))
    assert torch.allclose(variance, schedule.sigma(t) ** 2)
    assert torch.allclose(mean + variance.sqrt()[:, None] * noise, process.diffuse(x0, noise, t))


def test_the_reverse_step_is_bayes_rule(schedule: Schedule) -> None:
    """η = 1 given the clean data: q(x_s | x_t, x_0) ∝ q(x_t | x_s) q(x_s | x_0), products of normals by hand."""
    process = GaussianProcess(schedule)
    x0, x = torch.randn(2, 5, 1, dtype=torch.float64)
    s = torch.tensor([0.05, 0.1, 0.3, 0.6, 0.8], dtype=torch.float64)
    t = torch.tensor([0.1, 0.5, 0.31, 0.95, 0.9], dtype=torch.float64)
    alpha_s, sigma_s = schedule.alpha(s), schedule.sigma(s)
    gain = schedule.alpha(t) / alpha_s
    added = schedule.sigma(t) ** 2 - gain**2 * sigma_s**2
    precision = 1 / sigma_s**2 + gain**2 / added
    mean = (alpha_s * x0[:, 0] / sigma_s**2 + gain * x[:, 0] / added) / precision
    ours, variance = moments(process.reverse(x, t, s, Gaussian(x0), Eta(1.0)))
    assert torch.allclose(ours[:, 0], mean, rtol=1e-8)
    assert torch.allclose(variance, 1 / precision, rtol=1e-8)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_every_eta_keeps_the_marginals(eta: float, schedule: Schedule) -> None:
    """If x_t ~ q(x_t | x_0) then the step gives x_s ~ q(x_s | x_0) (DDIM, lemma 1)."""
    process = GaussianProcess(schedule)
    t, s = torch.tensor([0.8], dtype=torch.float64), torch.tensor([0.35], dtype=torch.float64)
    x0 = torch.tensor([[0.7]], dtype=torch.float64)
    alpha_t, sigma_t = schedule.alpha(t), schedule.sigma(t)
    centre, spread = moments(process.reverse(alpha_t[:, None] * x0, t, s, Gaussian(x0), Eta(eta)))
    moved = process.reverse(alpha_t[:, None] * x0 + sigma_t[:, None], t, s, Gaussian(x0), Eta(eta)).mean
    assert torch.allclose(centre[:, 0], schedule.alpha(s) * x0[:, 0])
    assert torch.allclose((moved - centre)[:, 0] ** 2 + spread, schedule.sigma(s) ** 2)


def test_the_large_variance_is_the_forward_step_s_and_none_at_the_end(schedule: Schedule) -> None:
    process = GaussianProcess(schedule)
    x, t = torch.randn(2, 1, dtype=torch.float64), torch.tensor([0.6, 0.2], dtype=torch.float64)
    s = torch.tensor([0.5, 0.0], dtype=torch.float64)
    step = process.reverse(x, t, s, Gaussian(x), Large())
    assert torch.allclose(moments(step)[1][0], moments(process.forward(x, s, t))[1][0])
    assert float(moments(step)[1][1]) == 0


@pytest.mark.parametrize("variance", [Eta(0.0), Eta(0.5), Eta(1.0), Large(), Learned()])
def test_standing_still_is_the_identity_at_every_time(variance: Variance, schedule: Schedule) -> None:
    process = GaussianProcess(schedule)
    t = torch.tensor([0.0, 1e-6, 0.5, 1.0], dtype=torch.float64)
    x = torch.randn(4, 3)
    mean, spread = moments(
        process.reverse(x, t, t, Gaussian(torch.randn(4, 3), variance_fraction=torch.rand(4, 3)), variance)
    )
    assert torch.equal(mean, x)
    assert float(spread.max()) == 0


def test_a_step_to_clean_data_is_the_belief(schedule: Schedule) -> None:
    process = GaussianProcess(schedule)
    t, zero = torch.tensor([1.0, 0.3], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    belief = torch.randn(2, 3)
    step = process.reverse(torch.randn(2, 3), t, zero, Gaussian(belief), Eta(1.0))
    assert torch.allclose(step.mean, belief, atol=1e-6)
    assert float(moments(step)[1].max()) < 1e-20


def test_an_unclipped_belief_points_the_step() -> None:
    process = GaussianProcess(VP())
    t, s = torch.tensor([0.8], dtype=torch.float64), torch.tensor([0.4], dtype=torch.float64)
    x, raw = torch.randn(2, 1, 3, dtype=torch.float64)
    kept = process.reverse(x, t, s, Gaussian(raw.clamp(-0.1, 0.1), raw), Eta(0.0)).mean
    direction = (x - process.schedule.alpha(t) * raw) / process.schedule.sigma(t)
    exact = process.schedule.alpha(s) * raw.clamp(-0.1, 0.1) + process.schedule.sigma(s) * direction
    assert torch.allclose(kept, exact)


def test_the_uniform_grid_of_all_steps_is_the_discrete_process() -> None:
    times = make_grid("uniform", Linear(), 1000)
    assert torch.allclose(times * 1000, torch.arange(1000, -1, -1, dtype=torch.float64))


def test_edm_s_grid_is_the_paper_s() -> None:
    """Karras et al. 2022, eq. 5: σ_i = (σ_max^(1/ρ) + i/(N−1) (σ_min^(1/ρ) − σ_max^(1/ρ)))^ρ, then 0."""
    schedule, steps = EDM(), 18
    i = torch.arange(steps, dtype=torch.float64)
    sigmas = (80 ** (1 / 7) + i / (steps - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    ours = schedule.sigma(make_grid("karras", schedule, steps))
    assert torch.allclose(ours, torch.cat([sigmas, torch.zeros(1, dtype=torch.float64)]), rtol=1e-9)


@pytest.mark.parametrize("grid", list(grids))
@pytest.mark.parametrize("steps", [0, -3, 1001])
def test_impossible_step_counts_are_refused(grid: str, steps: int) -> None:
    with pytest.raises(SettingError, match=str(steps)):
        make_grid(grid, Linear(), steps)


def test_a_schedule_is_rebuilt_from_its_configuration(schedule: Schedule) -> None:
    assert make_schedule(**schedule.config()) == schedule


def test_unknown_schedules_and_settings_are_refused_with_the_closest_name() -> None:
    with pytest.raises(SettingError, match="Did you mean cosine"):
        make_schedule("cosin")
    with pytest.raises(SettingError, match="Did you mean beta_start"):
        make_schedule("linear", beta_stat=2.0)
    for name, settings in (
        ("linear", {"steps": 10.5}),
        ("linear", {"beta_start": "a"}),
        ("linear", {"zero_snr": 1}),
        ("scaled-linear", {"beta_start": -0.1}),
        ("edm", {"sigma_max": float("nan")}),
        ("vp", {"beta_max": float("inf")}),
        ("ve", {"sigma_min": 2.0, "sigma_max": 1.0}),
        ("betas", {"values": (0.1, 0.2), "steps": 7}),
        ("betas", {}),
    ):
        with pytest.raises(SettingError):
            make_schedule(name, **settings)
    with pytest.raises(SettingError, match="between 0 and 1"):
        make_schedule("linear", beta_end=1.5).log_snr(torch.ones(1))


def test_training_times_follow_their_declared_law(schedule: Schedule) -> None:
    u = (torch.arange(10000, dtype=torch.float64) + 0.5) / 10000
    t = schedule.training_time(u)
    assert bool(((t > 0) & (t <= 1)).all())
    assert bool((t.diff() >= 0).all())  # a quantile function
    if schedule.steps is not None:
        counts = torch.bincount((t * schedule.steps).round().long(), minlength=schedule.steps + 1)[1:]
        assert int(counts.min()) == int(counts.max()) == 10000 // schedule.steps
    elif isinstance(schedule, EDM):
        log_sigma = schedule.sigma(t).log()
        assert float(log_sigma.mean()) == pytest.approx(-1.2, abs=0.01)
        assert float(log_sigma.std()) == pytest.approx(1.2, abs=0.01)
    elif isinstance(schedule, VP | SubVP | VE | Flow):
        assert torch.equal(t, u)


def derivative(values: Callable[[torch.Tensor], torch.Tensor], t: torch.Tensor) -> torch.Tensor:
    """A central difference, inside the cells of every table."""
    step = 1e-6
    return (values(t + step) - values(t - step)) / (2 * step)


def test_drift_and_diffusion_are_those_of_the_marginals(schedule: Schedule) -> None:
    """d log α/dt = f and dσ²/dt = 2 f σ² + g²: the moment equations of dx = f x dt + g dw."""
    t = torch.tensor([0.0001, 0.0302, 0.2503, 0.5005, 0.7507, 0.9707], dtype=torch.float64) + 1e-4
    slope = derivative(lambda u: schedule.alpha(u).log(), t)
    assert torch.allclose(schedule.drift(t), slope, rtol=1e-5, atol=1e-8)
    growth = derivative(lambda u: schedule.sigma(u) ** 2, t)
    expected = 2 * schedule.drift(t) * schedule.sigma(t) ** 2 + schedule.diffusion(t) ** 2
    assert torch.allclose(expected, growth, rtol=1e-5, atol=1e-8)


def test_simulating_the_forward_equation_gives_the_closed_form_marginals(schedule: Schedule) -> None:
    """Euler-Maruyama from clean data, up to a time at which every coefficient is still finite."""
    end, steps, count = 0.6, 600, 10000
    times = torch.linspace(0, end**0.5, steps + 1, dtype=torch.float64) ** 2
    generator = torch.Generator().manual_seed(0)
    x = torch.full((count,), 1.5, dtype=torch.float64)
    for s, t in pairwise(times):
        # coefficients at the middle of the step: a table's β jumps at its points
        f, g = schedule.drift((s + t) / 2), schedule.diffusion((s + t) / 2)
        noise = torch.randn(count, generator=generator, dtype=torch.float64)
        x = x + f * x * (t - s) + g * (t - s).sqrt() * noise
    sigma = float(schedule.sigma(times[-1]))
    assert float(x.mean()) == pytest.approx(1.5 * float(schedule.alpha(times[-1])), abs=4 * sigma / count**0.5)
    assert float(x.std()) == pytest.approx(sigma, rel=4 / (2 * count) ** 0.5)


def test_the_published_coefficients() -> None:
    """Song et al. 2021, eq. 30, 32 and 33: VE, VP and sub-VP."""
    t = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    beta = 0.1 + t * 19.9
    total = 0.1 * t + 0.5 * 19.9 * t**2
    assert torch.allclose(VP().drift(t), -0.5 * beta)
    assert torch.allclose(VP().diffusion(t), beta.sqrt())
    assert torch.allclose(SubVP().drift(t), -0.5 * beta)
    assert torch.allclose(SubVP().diffusion(t), (beta * (1 - torch.exp(-2 * total))).sqrt())
    ratio = torch.tensor(50 / 0.01, dtype=torch.float64)
    assert torch.allclose(VE().diffusion(t), 0.01 * ratio**t * (2 * ratio.log()).sqrt())


def test_a_table_rescaled_to_zero_terminal_snr_is_the_published_one() -> None:
    """Lin et al. 2024, algorithm 1: √ᾱ shifted to end at 0 and scaled to begin where it began."""
    plain, rescaled = Linear(), Linear(zero_snr=True)
    n = torch.tensor([1, 2, 500, 999, 1000], dtype=torch.float64) / 1000
    first, last = plain.alpha(n[:1]), plain.alpha(n[-1:])
    expected = (plain.alpha(n) - last) * first / (first - last)
    assert torch.allclose(rescaled.alpha(n), expected, atol=1e-12)
    assert float(rescaled.alpha(n[-1:])) == 0
    assert float(rescaled.sigma(n[-1:])) == 1


def test_a_learned_variance_lies_between_the_two_fixed_ones(schedule: Schedule) -> None:
    process = GaussianProcess(schedule)
    t, s = torch.tensor([0.6, 0.6, 0.6, 0.6], dtype=torch.float64), torch.tensor([0.5, 0.5, 0.5, 0.0]).double()
    x = torch.randn(4, 2, dtype=torch.float64)
    fraction = torch.tensor([0.0, 1.0, 0.5, 0.3], dtype=torch.float64)[:, None].expand(4, 2)
    std = process.reverse(x, t, s, Gaussian(x, variance_fraction=fraction), Learned()).std
    assert std is not None
    small, large = process.true_variance(t, s), process.added_variance(s, t)
    assert torch.allclose(std[0] ** 2, small[0].expand(2))
    assert torch.allclose(std[1] ** 2, large[1].expand(2))
    assert torch.allclose(std[2] ** 2, (small[2] * large[2]).sqrt().expand(2))  # improved DDPM, eq. 15
    assert float(std[3].max()) == 0
    with pytest.raises(SettingError, match="did not learn its variance"):
        process.reverse(x, t, s, Gaussian(x), Learned())
