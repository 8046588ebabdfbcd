"""Facts about single samplers, and about walks that begin, end or turn elsewhere."""

from dataclasses import dataclass, replace

import pytest
import torch
from exact import SCHEDULES, Correlated, drawn, mixture
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.errors import SettingError
from neblina.core.noise import SampleNoise
from neblina.core.plan import conditional
from neblina.core.posterior import Gaussian
from neblina.denoisers.oracles import MixtureDenoiser, gaussian_denoiser
from neblina.evaluation.laws import BasisNoise, between, marginal_std
from neblina.guidance.bootstrap import Backdrop, bootstrapped
from neblina.guidance.reschedule import on_schedule
from neblina.processes.continuous import VP, Flow
from neblina.processes.gaussian import GaussianProcess
from neblina.processes.grids import make_grid, truncate
from neblina.processes.tables import Linear
from neblina.samplers import samplers
from neblina.samplers.ancestral import ddim_invert
from neblina.samplers.drive import Step, sample

VPROCESS = GaussianProcess(VP())


@dataclass(frozen=True)
class Optimal:
    """The exact denoiser of N(0, std²) with the fraction that makes each reverse step of a grid exact."""

    process: GaussianProcess
    std: float
    grid: Tensor

    def posterior(self, x: Tensor, t: Tensor, condition: Condition) -> Gaussian:
        belief = gaussian_denoiser(self.process, 0.0, self.std).posterior(x, t, condition)
        schedule = self.process.schedule
        s = self.grid[(self.grid < t[0]).nonzero()[0]]
        small, large = self.process.true_variance(t[:1], s), self.process.added_variance(s, t[:1])
        # Var(x_s | x_t) = σ̃² + (coefficient of x_0)² Var(x_0 | x_t)
        gain = schedule.alpha(s) - schedule.alpha(t[:1]) * (schedule.sigma(s) ** 2 - small).clamp(
            min=0
        ).sqrt() / schedule.sigma(t[:1])
        spread = 1 / (1 / self.std**2 + schedule.alpha(t[:1]) ** 2 / schedule.sigma(t[:1]) ** 2)
        fraction = ((small + gain**2 * spread) / small).log() / (large / small).log()
        return replace(belief, variance_fraction=torch.ones_like(x) * torch.where(fraction.isfinite(), fraction, 0.0))


@pytest.mark.parametrize("std", [1.0, 0.4])
def test_with_the_right_learned_variance_a_few_large_steps_are_exact(std: float) -> None:
    grid = torch.tensor([0.9, 0.55, 0.3, 0.1], dtype=torch.float64)
    begin, end = (marginal_std(VPROCESS, std, one) for one in (grid[:1], grid[-1:]))
    x = torch.zeros(5, 1, dtype=torch.float64)
    x[0] = begin
    plan = conditional(Optimal(VPROCESS, std, grid), Condition())
    made = sample(samplers["ddpm_learned"](VPROCESS, x, grid, noise=BasisNoise()), plan)
    assert float(made.square().sum().sqrt()) == pytest.approx(end, rel=1e-9)


def test_a_model_that_did_not_learn_its_variance_is_refused() -> None:
    x = torch.zeros(1, 1)
    walk = samplers["ddpm_learned"](VPROCESS, x, make_grid("uniform", VPROCESS.schedule, 3), noise=drawn(0))
    with pytest.raises(SettingError, match="did not learn its variance"):
        sample(walk, conditional(mixture(VPROCESS), Condition()))


def test_inversion_undoes_ddim() -> None:
    """With enough iterations exactly; with one, at first order in the step."""
    plan = conditional(mixture(VPROCESS), Condition())
    x = torch.linspace(-1.5, 1.5, 9, dtype=torch.float64)[:, None]

    def gap(steps: int, iterations: int) -> float:
        grid = between(VPROCESS, 2.0, 0.2, steps)
        noisy = sample(ddim_invert(VPROCESS, x, grid.flip(0), iterations=iterations), plan)
        back = sample(samplers["ddim"](VPROCESS, noisy, grid, noise=BasisNoise()), plan)
        return float((back - x).abs().max())

    assert gap(20, 60) < 1e-10
    assert gap(80, 1) < 0.6 * gap(40, 1)


def test_inversion_finds_the_latents_of_clean_data() -> None:
    """From data of N(0, s²), the latents have the law of the process at t = 1."""
    process, std = GaussianProcess(Flow()), 0.5
    plan = conditional(gaussian_denoiser(process, 0.0, std), Condition())
    grid = make_grid("log_snr", process.schedule, 400).flip(0)[:-1]
    x = torch.tensor([[std]], dtype=torch.float64)
    latent = sample(ddim_invert(process, x, grid, iterations=3), plan)
    assert float(latent) == pytest.approx(marginal_std(process, std, grid[-1:]), rel=0.01)


@pytest.mark.parametrize(
    ("times", "iterations", "sentence"),
    [([0.5, 0.1], 1, "times rise"), ([0.1, 1.2], 1, "times rise"), ([0.1, 0.5], 0, "at least 1 iteration")],
)
def test_impossible_inversions_are_refused(times: list[float], iterations: int, sentence: str) -> None:
    walk = ddim_invert(VPROCESS, torch.zeros(1, 1), torch.tensor(times, dtype=torch.float64), iterations=iterations)
    with pytest.raises(SettingError, match=sentence):
        next(walk)


def test_a_truncated_grid_keeps_what_lies_between() -> None:
    times = make_grid("uniform", VPROCESS.schedule, 10)
    assert torch.allclose(truncate(times, 0.55, 0.2), torch.tensor([0.55, 0.5, 0.4, 0.3, 0.2], dtype=torch.float64))
    assert torch.equal(truncate(times, 1.0, 0.0), times)
    short = torch.tensor([0.9, 0.5, 0.001, 0.001], dtype=torch.float64)  # a foreign walk, which stops above clean data
    assert torch.equal(truncate(short, 1.0, 0.0), short)
    for steps in (5, 20, 35, 40):
        for twentieth in range(1, 20):
            cut = truncate(make_grid("uniform", VPROCESS.schedule, steps), twentieth / 20, 0.0)
            assert float(cut.diff().max()) < -1e-4
    for start, end in ((0.2, 0.5), (1.2, 0.0), (0.5, -0.1), (0.4, 0.4)):
        with pytest.raises(SettingError, match="t_start"):
            truncate(times, start, end)


def test_starting_from_data_diffused_half_way_gives_the_data_s_law() -> None:
    """Noise to t = 0.5 and walk back: the law returns, whatever the picture it began with became."""
    denoiser, count = mixture(VPROCESS), 20000
    generator = torch.Generator().manual_seed(0)
    component = torch.multinomial(denoiser.weights, count, replacement=True, generator=generator)
    x0 = denoiser.means[component] + denoiser.stds[component, None] * torch.randn(count, 1, generator=generator)
    grid = truncate(make_grid("log_snr", VPROCESS.schedule, 60), 0.5, 0.0)
    x = VPROCESS.diffuse(x0, drawn(1)(x0), grid[0].expand(count))
    made = sample(samplers["dpmpp_2m"](VPROCESS, x, grid, noise=drawn(2)), conditional(denoiser, Condition()))
    for w in (1.0, 3.0):
        assert float((torch.cos(w * made) - torch.cos(w * x0)).mean()) == pytest.approx(0, abs=0.015)


@pytest.mark.parametrize("trained", list(SCHEDULES))
@pytest.mark.parametrize("sampled", ["vp", "flow", "edm", "zero-snr"])
def test_another_schedule_is_walked_from_its_very_noise_to_data(trained: str, sampled: str) -> None:
    """From t = 1, where nothing may be left of the data, down to t = 0: finite, and the data's law."""
    theirs, ours = GaussianProcess(SCHEDULES[trained]), GaussianProcess(SCHEDULES[sampled])
    plan = on_schedule(conditional(gaussian_denoiser(theirs, 0.0, 0.5), Condition()), theirs.schedule, ours.schedule)
    grid = make_grid("log_snr", ours.schedule, 40)
    x = torch.full((1, 1), ours.schedule.prior_std, dtype=torch.float64)
    made = sample(samplers["dpmpp_2m"](ours, x, grid), plan)
    assert float(made) == pytest.approx(0.5, rel=0.03)


@pytest.mark.parametrize("trained", list(SCHEDULES))
@pytest.mark.parametrize("sampled", ["vp", "flow", "edm", "linear"])
def test_a_model_of_one_schedule_is_sampled_on_another(trained: str, sampled: str) -> None:
    theirs, ours = GaussianProcess(SCHEDULES[trained]), GaussianProcess(SCHEDULES[sampled])
    grid = between(ours, 5.0, 0.1, 8)
    x = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None] * ours.schedule.sigma(grid[:1])
    foreign = on_schedule(conditional(mixture(theirs), Condition()), theirs.schedule, ours.schedule)
    own = conditional(mixture(ours), Condition())
    walks = [sample(samplers["dpmpp_2m"](ours, x, grid, noise=drawn(0)), plan) for plan in (foreign, own)]
    assert torch.allclose(*walks, atol=1e-8)


def test_repaint_fills_in_what_the_known_part_says_and_better_the_more_it_repeats() -> None:
    """x_2 given x_1 = 1 under correlation 0.9: mean 0.9, variance 0.19."""
    covariance = torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)
    plan = conditional(Correlated(VPROCESS, torch.zeros(2).double(), covariance), Condition())
    count, mask = 4000, torch.tensor([1.0, 0.0], dtype=torch.float64)
    known = torch.ones(count, 2, dtype=torch.float64)
    grid = make_grid("log_snr", VPROCESS.schedule, 40)
    errors = []
    for repeats in (1, 8):
        noise = drawn(repeats)
        x = noise(known)
        walk = samplers["repaint"](VPROCESS, x, grid, noise=noise, known=known, mask=mask, jump=4, repeats=repeats)
        made = sample(walk, plan)
        assert torch.equal(made[:, 0], known[:, 0])
        errors.append(abs(float(made[:, 1].mean()) - 0.9))
    assert errors[1] < 0.06
    assert errors[1] < errors[0] / 2


@pytest.mark.parametrize("repeats", [1, 4])
def test_going_back_brings_a_place_shown_alone_into_agreement_with_what_is_around_it(repeats: int) -> None:
    """x_2, a place, given x_1 = 1, its backdrop, under correlation 0.9: mean 0.9, where one walk through makes 0.6."""
    covariance = torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)
    noise, count = drawn(0), 200
    x = noise(torch.empty(count, 1, 1, 2, dtype=torch.float64))
    behind = Backdrop(torch.ones(1, 1, dtype=torch.float64), x, 0, range(count))
    exact = conditional(Correlated(VPROCESS, torch.zeros(2).double(), covariance), Condition())
    plan = bootstrapped(exact, torch.tensor([[0.0, 1.0]]), behind, VPROCESS.schedule, until=0.0)
    grid = make_grid("log_snr", VPROCESS.schedule, 24)
    walk = samplers["restart_ancestral"](VPROCESS, x, grid, noise=noise, last=0.95, jump=1, repeats=repeats)
    error = abs(float(sample(walk, plan)[..., 1].mean()) - 0.9)
    assert error < 0.15 if repeats > 1 else error > 0.25


def test_going_back_over_nothing_is_ancestral_sampling() -> None:
    plan, grid = conditional(mixture(VPROCESS), Condition()), make_grid("log_snr", VPROCESS.schedule, 12)
    x = drawn(0)(torch.empty(5, 1, dtype=torch.float64))
    walks = [("ddpm", {}), ("restart_ancestral", {"repeats": 1}), ("restart_ancestral", {"repeats": 2})]
    plain, once, twice = (sample(samplers[n](VPROCESS, x, grid, noise=drawn(1), **s), plan) for n, s in walks)
    assert torch.equal(plain, once)
    assert not torch.equal(plain, twice)


@pytest.mark.parametrize(("jump", "repeats"), [(1, 2), (2, 4), (5, 3)])
def test_going_back_asks_so_often_more(jump: int, repeats: int) -> None:
    grid = make_grid("log_snr", VPROCESS.schedule, 20)
    settings = {"first": 0.2, "last": 0.55, "jump": jump, "repeats": repeats}
    assert samplers["restart_ancestral"].evaluations(VPROCESS, grid, **settings) == 20 + (repeats - 1) * (11 - 4)


@pytest.mark.parametrize("name", ["dpmpp_sde", "dpmpp_2m_sde", "euler_maruyama"])
def test_a_seed_means_the_same_picture_whatever_the_number_of_steps(name: str) -> None:
    """Brownian noise is keyed by its interval: refining the grid refines one path; another seed is another picture."""
    plan = conditional(gaussian_denoiser(VPROCESS, 0.0, 0.5), Condition())

    def walk(steps: int, seed: int) -> Tensor:
        x = SampleNoise(0, [0])(torch.empty(1, 300, dtype=torch.float64))
        grid = between(VPROCESS, 10.0, 0.05, steps)
        return sample(samplers[name](VPROCESS, x, grid, noise=SampleNoise(seed, [0])), plan)[0]

    coarse, fine, other = walk(40, 1), walk(80, 1), walk(80, 2)
    assert float(torch.corrcoef(torch.stack([coarse, fine]))[0, 1]) > 0.97
    assert float(torch.corrcoef(torch.stack([coarse, other]))[0, 1]) < 0.9


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        *((name, {"eta": 1.5}, "eta lies between 0") for name, one in samplers.items() if "eta" in one.choices),
        *((name, {"memory": 0}, "memory lies between 1") for name in ("lms", "deis", "dpmpp_3m", "unipc")),
        ("deis", {"memory": 2.5}, "memory of deis is a whole number, not 2.5"),
        ("dpmpp_3m", {"lower_order_final": 1}, "is true or false"),
        ("predictor_corrector", {"snr": float("nan")}, "snr of predictor_corrector is a finite number"),
        ("repaint", {"jump": 1.5}, "jump of repaint is a whole number"),
        ("repaint", {"known": torch.ones(1, 1), "mask": torch.ones(2, 1)}, "do not fit a batch"),
        ("edm_stochastic", {"churn": -5.0}, "churn >= 0"),
        ("edm_stochastic", {"churn_min": 5.0, "churn_max": 1.0}, "churn_min < churn_max"),
        ("adaptive", {"tolerance": 0.0}, "tolerance 0 is not positive"),
        ("dopri5", {"tolerance": -1.0}, "not positive"),
        ("ddim", {"etta": 1.0}, "Did you mean eta"),
        ("predictor_corrector", {"snr": 0.0}, "snr"),
        ("annealed_langevin", {"corrections": 0}, "corrections"),
        ("restart", {"first": 0.8, "last": 0.5}, "first < last"),
        ("restart_ancestral", {"last": 1.0}, "last < 1"),
        ("restart_ancestral", {"jump": 0}, "at least 1"),
        ("repaint", {"mask": torch.ones(1)}, "one of them is missing"),
        ("repaint", {"jump": 0}, "at least 1"),
    ],
)
def test_impossible_settings_are_refused_before_the_first_question(
    name: str, settings: dict[str, object], sentence: str
) -> None:
    grid = make_grid("log_snr", VPROCESS.schedule, 4)
    with pytest.raises(SettingError, match=sentence):
        next(samplers[name](VPROCESS, torch.zeros(1, 1), grid, noise=drawn(0), **settings))


def test_a_stochastic_walk_without_noise_is_refused_and_another_needs_none() -> None:
    grid = make_grid("log_snr", VPROCESS.schedule, 4)
    plan = conditional(mixture(VPROCESS), Condition())
    for name, settings in (("ddpm", {}), ("ddim", {"eta": 0.5}), ("dpmpp_sde", {}), ("predictor_corrector", {})):
        with pytest.raises(SettingError, match="draws noise on the way and was given none"):
            samplers[name](VPROCESS, torch.zeros(1, 1), grid, **settings)
    assert bool(sample(samplers["ddim"](VPROCESS, torch.zeros(1, 1), grid), plan).isfinite())


def test_times_of_another_batch_are_refused() -> None:
    for shape in ((5, 3), (1,), (5, 2, 1)):
        with pytest.raises(SettingError, match="a grid of times has shape"):
            samplers["ddim"](VPROCESS, torch.zeros(2, 1), torch.zeros(shape).double())


def test_a_walk_stopped_early_believes_something_about_every_sample() -> None:
    """Adaptive samplers ask about fewer and fewer; the others keep what was last believed of them."""
    x = torch.tensor([[0.1], [2.5], [-1.0]], dtype=torch.float64)
    grid = torch.tensor([[0.95, 0.3, 0.9], [0.05, 0.25, 0.1]], dtype=torch.float64)
    walk = samplers["adaptive"](VPROCESS, x, grid, tolerance=1e-6)
    believed = torch.full_like(x, torch.nan)

    def remember(step: Step) -> bool:
        rows = slice(None) if step.query.rows is None else step.query.rows
        believed[rows] = step.posterior.mean
        return len(step.query.x) < 3

    stopped = sample(walk, conditional(mixture(VPROCESS), Condition()), on_step=remember)
    assert bool(believed.isfinite().all())
    assert torch.equal(stopped, believed)


def test_times_that_rise_or_leave_the_interval_are_refused() -> None:
    for times in ([0.5, 0.7], [1.1, 0.5], [0.5, -0.1], [float("nan"), 0.1]):
        with pytest.raises(SettingError, match="falls from at most 1 to at least 0"):
            samplers["ddim"](VPROCESS, torch.zeros(1, 1), torch.tensor(times, dtype=torch.float64), noise=drawn(0))


def test_a_sampler_on_a_process_it_does_not_support_names_those_that_do() -> None:
    flow = GaussianProcess(Flow())
    grid = make_grid("log_snr", flow.schedule, 4)
    with pytest.raises(SettingError, match=r"euler_maruyama integrates the reverse SDE.*flow.*sub-vp"):
        samplers["euler_maruyama"](flow, torch.zeros(1, 1), grid, noise=drawn(0))
    with pytest.raises(SettingError, match="walks on a GaussianProcess, not a str"):
        samplers["ddim"]("vp", torch.zeros(1, 1), grid, noise=drawn(0))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["ddim", "ddpm", "dpmpp_2m", "heun", "unipc", "deis", "plms", "dpm2", "dpmpp_sde"])
def test_zero_terminal_snr_begins_at_nothing_and_the_law_comes_out_all_the_same(name: str) -> None:
    """α(1) = 0: the first belief is the data's mean."""
    process = GaussianProcess(Linear(zero_snr=True))
    denoiser: MixtureDenoiser = mixture(process)
    x = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    mean = float((denoiser.weights * denoiser.means[:, 0]).sum())
    belief = denoiser.posterior(x, torch.ones(5, dtype=torch.float64), Condition()).mean
    assert torch.allclose(belief, torch.full_like(x, mean))
    noise, count = drawn(3), 4000
    start = noise(torch.empty(count, 1, dtype=torch.float64))
    grid = make_grid("log_snr", process.schedule, 100)
    made = sample(samplers[name](process, start, grid, noise=noise), conditional(denoiser, Condition()))
    variance = float((denoiser.weights * (denoiser.means[:, 0] ** 2 + denoiser.stds**2)).sum()) - mean**2
    assert float(made.mean()) == pytest.approx(mean, abs=4 * (variance / count) ** 0.5)
    assert float(made.var()) == pytest.approx(variance, rel=0.12)
