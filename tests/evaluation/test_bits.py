"""Bits per dimension of pictures: right on data whose exact cost is known, and the same whoever shares the work."""

import json
import math
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from bounds import every_term
from exact import SCHEDULES
from models import small_bundle
from processes import run_in_two_processes
from scipy.stats import norm

from neblina.core.conditions import Condition
from neblina.core.errors import Interrupted, SettingError
from neblina.core.noise import SampleNoise
from neblina.core.plan import conditional
from neblina.core.posterior import Gaussian
from neblina.core.shapes import expand
from neblina.data.pictures import InMemory, to_float
from neblina.denoisers.oracles import MixtureDenoiser, gaussian_denoiser
from neblina.evaluation.bits import SCALE_BITS, dequantised
from neblina.evaluation.likelihood import How, Likelihood, likelihood
from neblina.objectives.stratified import bound_times, estimated_terms, strata
from neblina.objectives.variational import drawn_term, prior_term
from neblina.processes.gaussian import Eta, GaussianProcess, Large
from neblina.processes.grids import make_grid
from neblina.processes.schedules import Schedule

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Oracle(MixtureDenoiser):
    """An exact denoiser where a network is expected."""

    learned_variance = False

    def check(self, condition: Condition) -> None:
        """It answers for every condition."""


def oracle(schedule: Schedule, mean: float, std: float, shape: tuple[int, ...]) -> Oracle:
    exact = gaussian_denoiser(GaussianProcess(schedule), mean, std, shape)
    return Oracle(exact.process, exact.means, exact.stds, exact.weights)


def normal_pictures(mean: float, std: float, count: int, side: int) -> tuple[InMemory, torch.Tensor]:
    """Pictures whose levels are drawn from N(mean, std²) rounded to levels, and −log₂ P of each per dimension."""
    edges = norm.cdf(((torch.arange(257) * 2 - 1) / 255 - 1 - mean) / std)
    chance = torch.from_numpy(edges[1:] - edges[:-1])
    assert float(chance.sum()) > 1 - 1e-6
    generator = torch.Generator().manual_seed(7)
    pixels = torch.multinomial(chance, count * side**2, replacement=True, generator=generator)
    pixels = pixels.reshape(count, 1, side, side)
    return InMemory(pixels.to(torch.uint8)), -chance.log2()[pixels].flatten(1).mean(1)


@dataclass(frozen=True)
class KnowsItsVariance(Oracle):
    """The exact denoiser of N(mean, std²) with the variance that makes its steps along the bound's times exact too."""

    learned_variance = True

    def posterior(self, x: torch.Tensor, t: torch.Tensor, condition: Condition) -> Gaussian:
        process, times = self.process, bound_times(self.process.schedule, None)
        place = len(times) - 1 - torch.searchsorted(times.flip(0), t.contiguous())
        s, before = times[place + 1], times[place - 1]
        alpha, sigma = process.schedule.alpha(t), process.schedule.sigma(t)
        belief = self.stds**2 * sigma**2 / (alpha**2 * self.stds**2 + sigma**2)
        true, large = process.true_variance(t, s), process.added_variance(s, t)
        keep = (process.schedule.sigma(s) ** 2 - true).clamp(min=0).sqrt() / sigma
        wanted = true + (process.schedule.alpha(s) - alpha * keep) ** 2 * belief
        small = torch.where(s > 0, true, process.true_variance(before, t))  # the decoder's, at the data
        fraction = (wanted / small).log() / (large / small).log()
        return replace(super().posterior(x, t, condition), variance_fraction=expand(fraction, x).expand_as(x))


@pytest.mark.parametrize("name", ["linear", "flow"])
@pytest.mark.slow
def test_rounded_gaussian_pictures_cost_their_exact_bits_both_ways(name: str) -> None:
    """Within 0.01 bits per dimension of −log₂ P of the very same pictures: the paired difference."""
    mean, std, count, side = 0.1, 0.18, 192, 32
    pictures, exact = normal_pictures(mean, std, count, side)
    fixed = oracle(SCHEDULES[name], mean, std, (1, side, side))
    knows = KnowsItsVariance(fixed.process, fixed.means, fixed.stds, fixed.weights)
    found = likelihood(knows, pictures, range(count), None, How(batch=96, terms=200), device=CPU)
    assert found.ode is not None
    assert found.bound is not None
    assert found.bound.variance == "learned"
    assert found.bound.other is None
    wanted = float(exact.mean())
    assert found.ode.total.bits == pytest.approx(wanted, abs=0.01)
    assert found.bound.total.bits == pytest.approx(wanted, abs=0.01)
    # a fixed variance bounds higher, the small one, which knows nothing of the data's spread, far higher
    found = likelihood(fixed, pictures, range(count), None, How(("bound",), 96, terms=200), device=CPU)
    assert found.bound is not None
    assert found.bound.variance == "large"
    assert found.bound.other is not None
    assert wanted - 0.005 < found.bound.total.bits < wanted + 0.03
    assert found.bound.other.bits > found.bound.total.bits + 0.1


def test_the_bound_is_the_sum_of_its_parts_and_their_errors_are_of_means() -> None:
    pictures, _ = normal_pictures(0.1, 0.15, 12, 4)
    denoiser = oracle(SCHEDULES["cosine"], 0.1, 0.15, (1, 4, 4))
    found = likelihood(denoiser, pictures, range(12), None, How(steps=50), device=CPU).bound
    assert found is not None
    parts = found.prior.bits + found.steps.bits + found.reconstruction.bits
    assert found.total.bits == pytest.approx(parts, rel=1e-12)
    assert found.steps.bits == pytest.approx(sum(one.bits for one in found.strata), rel=1e-12)
    assert (found.evaluated, found.of, len(found.strata)) == (49, 49, 49)
    single = [
        likelihood(denoiser, pictures, [number], None, How(steps=50), device=CPU).bound.total for number in range(12)
    ]
    values = torch.tensor([one.bits for one in single], dtype=torch.float64)
    assert all(one.error is None for one in single)
    assert found.total.bits == pytest.approx(float(values.mean()), rel=1e-6)
    assert found.total.error == pytest.approx(float(values.std()) / math.sqrt(12), rel=1e-4)


def test_all_strata_are_the_whole_bound_draw_for_draw() -> None:
    process = GaussianProcess(SCHEDULES["linear"])
    plan = conditional(gaussian_denoiser(process, 0.0, 0.3, (1, 2, 2)), Condition())
    x0 = to_float(torch.randint(0, 256, (5, 1, 2, 2), generator=torch.Generator().manual_seed(0)))
    times = make_grid("uniform", process.schedule, 30)
    (_, prior), *others = estimated_terms(
        process, plan, x0, times, torch.rand(5, 29), variances=[Eta(1.0), Large()], noise=SampleNoise(0, range(5))
    )
    assert torch.equal(prior.nats, prior_term(process, x0))
    noise, rows = SampleNoise(0, range(5)), times[:, None].expand(-1, 5)
    for (t, s), before, (_, term) in zip(pairwise(rows), [None, *rows[:-2]], others, strict=True):
        (nats,) = drawn_term(process, plan, x0, t, s, before, [Large()], noise)
        assert (term.name, term.t, term.s) == ("step" if s[0] else "reconstruction", t[0], s[0])
        assert torch.allclose(term.nats, nats)


def test_some_terms_have_the_mean_of_all() -> None:
    """Every place in every stratum, equally often: exactly the whole sum, for noise that is the same at every term."""
    process = GaussianProcess(SCHEDULES["cosine"])
    plan = conditional(gaussian_denoiser(process, 0.0, 0.3), Condition())
    times = make_grid("uniform", process.schedule, 13)
    edges = strata(process.schedule, times, 3)
    sizes = edges.diff()
    assert int(sizes.sum()) == 12
    assert int(sizes.min()) < int(sizes.max())
    multiple = math.lcm(*sizes.tolist())
    uniform = ((torch.arange(multiple) + 0.5) / multiple)[:, None].expand(-1, 3)

    class Same:
        def __call__(self, like: torch.Tensor) -> torch.Tensor:
            return torch.full_like(like, 0.7)

    x0 = torch.full((multiple, 1), 51 / 255)
    some = estimated_terms(process, plan, x0, times, uniform, variances=[Large()], noise=Same())
    whole = every_term(process, plan, x0[:1], times, Large(), Same())
    estimate = sum(float(term.nats.double().mean()) for (term,) in some)
    assert estimate == pytest.approx(sum(float(term.nats) for term in whole), rel=1e-5)


def test_strata_cover_every_step_once_and_are_finest_next_to_the_data(schedule: Schedule) -> None:
    times = bound_times(schedule, None)
    steps = len(times) - 2
    assert bool((times.diff() < 0).all())
    assert (float(times[0]), float(times[-1])) == (1, 0)
    for terms in (1, 2, 50, steps - 1, steps):
        edges = strata(schedule, times, terms)
        assert (int(edges[0]), int(edges[-1]), len(edges)) == (0, steps, terms + 1)
        assert int(edges.diff().min()) >= 1
    worth = schedule.log_snr(times[strata(schedule, times, 20)])
    inside = worth.diff()[1:-3]
    assert float(inside.max()) < 2 * float(inside.min()) + 1


def test_levels_spread_over_intervals_that_meet_around_where_training_puts_them() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    middle = dequantised(levels, torch.full((256,), 0.5))
    assert torch.allclose(middle, to_float(levels), atol=1e-6)
    ends = [dequantised(levels, torch.full((256,), place)) for place in (0.0, 1.0)]
    assert torch.allclose(ends[1][:-1], ends[0][1:], atol=1e-6)
    width = float((ends[1] - ends[0]).double().mean())
    assert -math.log2(width) == pytest.approx(SCALE_BITS, abs=1e-5)


def test_a_picture_costs_the_same_in_any_batch_and_choice() -> None:
    pictures, _ = normal_pictures(0.1, 0.15, 9, 4)
    denoiser = oracle(SCHEDULES["cosine"], 0.1, 0.15, (1, 4, 4))
    how = How(steps=40, terms=10, seed=3)

    def bits(numbers: list[int], batch: int) -> tuple[float, float]:
        found = likelihood(denoiser, pictures, numbers, None, replace(how, batch=batch), device=CPU)
        assert found.bound is not None
        assert found.ode is not None
        large = found.bound.total if found.bound.variance == "large" else found.bound.other
        assert large is not None
        return large.bits, found.ode.total.bits

    whole = bits(list(range(9)), 4)
    assert whole == pytest.approx(bits([8, 3, 0, 1, 5, 4, 2, 7, 6], 9), rel=1e-5)
    each = torch.tensor([bits([number], 1) for number in range(9)], dtype=torch.float64).mean(0)
    assert whole == pytest.approx(tuple(each.tolist()), rel=1e-5)
    assert whole != pytest.approx(bits(list(range(8)), 4), rel=1e-5)


def measured(batch: int = 3) -> Likelihood:
    """Seven pictures of a random network, in batches of 3: the last one has 1."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (8, 3, 8, 8), generator=generator).to(torch.uint8)
    denoiser = small_bundle(classes=3, schedule="cosine", parameterisation="v").denoiser()
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    how = How(batch=batch, steps=20, terms=5, tolerance=1e-2)
    return likelihood(denoiser, InMemory(pixels), [7, 1, 2, 6, 4, 5, 0], labels, how, device=CPU)


@pytest.mark.slow
def test_two_processes_with_an_uneven_last_batch_find_what_one_does(tmp_path: Path) -> None:
    run_in_two_processes(
        "import json, os\n"
        "from dataclasses import asdict\n"
        f"from {Path(__file__).stem} import measured\n"
        "found = json.dumps(asdict(measured()))\n"
        "Path(sys.argv[1], os.environ['RANK'] + '.json').write_text(found)\n",
        tmp_path,
        Path(__file__).parent,
    )
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert one == other
    alone = measured()
    assert alone.bound is not None
    assert alone.ode is not None
    assert (one["pictures"], one["asked"]) == (7, 7)
    for method, mean in (("bound", alone.bound.total), ("ode", alone.ode.total)):
        assert one[method]["total"]["bits"] == pytest.approx(mean.bits, rel=1e-5)
        assert one[method]["total"]["error"] == pytest.approx(mean.error, rel=1e-3)
    spent = [stratum["bits"] for stratum in one["bound"]["strata"]]
    assert spent == pytest.approx([stratum.bits for stratum in alone.bound.strata], rel=1e-4)


def test_a_conditional_model_is_asked_about_each_pictures_own_label() -> None:
    """Label k has component k: given the right labels, pictures of two kinds cost the bits of their own kind."""
    schedule = SCHEDULES["flow"]
    kinds = ((-0.5, 0.1), (0.5, 0.08))
    parts = [normal_pictures(mean, std, 16, 8) for mean, std in kinds]
    pixels = torch.cat([part.pixels for part, _ in parts])
    exact = float(torch.cat([bits for _, bits in parts]).mean())
    means = torch.tensor([mean for mean, _ in kinds], dtype=torch.float64)[:, None, None, None].expand(-1, 1, 8, 8)
    stds = torch.tensor([std for _, std in kinds], dtype=torch.float64)
    denoiser = Oracle(GaussianProcess(schedule), means, stds, torch.full((2,), 0.5, dtype=torch.float64))
    labels = torch.tensor([0] * 16 + [1] * 16)
    how = How(methods=("ode",), batch=5)
    order = [31, 0, 16, 15, *range(1, 15), *range(17, 31)]
    right = likelihood(denoiser, InMemory(pixels), order, labels[order], how, device=CPU).ode
    wrong = likelihood(denoiser, InMemory(pixels), order, 1 - labels[order], how, device=CPU).ode
    assert right is not None
    assert wrong is not None
    assert right.total.bits == pytest.approx(exact, abs=0.02)
    assert wrong.total.bits > exact + 3


def test_progress_rises_to_all_pictures_and_ctrl_c_leaves_what_was_done() -> None:
    pictures, _ = normal_pictures(0.1, 0.15, 10, 4)
    denoiser = oracle(SCHEDULES["cosine"], 0.1, 0.15, (1, 4, 4))
    how = How(batch=4, steps=20)
    seen: list[float] = []
    whole = likelihood(
        denoiser, pictures, range(10), None, how, device=CPU, on_progress=lambda done, total: seen.append(done)
    )
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(10)
    assert (whole.pictures, whole.asked) == (10, 10)

    def stop_after(pictures_done: float):
        def on_progress(done: float, total: int) -> None:
            if done > pictures_done:
                raise KeyboardInterrupt

        return on_progress

    some = likelihood(denoiser, pictures, range(10), None, how, device=CPU, on_progress=stop_after(5))
    first = likelihood(denoiser, pictures, range(4), None, how, device=CPU)
    assert (some.pictures, some.asked) == (4, 10)
    assert some.ode == first.ode
    assert some.bound == first.bound
    with pytest.raises(Interrupted, match="before the first batch"):
        likelihood(denoiser, pictures, range(10), None, how, device=CPU, on_progress=stop_after(1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"terms": 0}, "terms 0 is not 1 … 999"),
        ({"terms": 1000}, "terms 1000 is not 1 … 999"),
        ({"steps": 1001}, "1001 steps are more than the 1000"),
        ({"steps": 2}, "at least 3 steps"),
        ({"tolerance": 0.0}, "tolerance 0 must be positive"),
        ({"batch": 0}, "batches of at least 1"),
        ({"methods": ("odd",)}, "Did you mean ode"),
    ],
)
def test_a_wrong_setting_is_refused_before_the_network_is_asked(change: dict[str, object], said: str) -> None:
    class Never(Oracle):
        def posterior(self, x: torch.Tensor, t: torch.Tensor, condition: Condition) -> None:  # type: ignore[override]
            raise AssertionError("asked")

    pictures, _ = normal_pictures(0.1, 0.15, 2, 4)
    exact = oracle(SCHEDULES["cosine"], 0.1, 0.15, (1, 4, 4))
    denoiser = Never(exact.process, exact.means, exact.stds, exact.weights)
    with pytest.raises(SettingError, match=said):
        likelihood(denoiser, pictures, range(2), None, replace(How(), **change), device=CPU)
