"""Importance sampling of times changes the variance of the gradient and never its expectation."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from exact import SCHEDULES
from learners import pictures, tiny

from neblina.core.conditions import Condition
from neblina.core.errors import SettingError
from neblina.core.posterior import Categorical
from neblina.denoisers.denoiser import NetworkDenoiser
from neblina.denoisers.oracles import gaussian_denoiser
from neblina.denoisers.parameterisations import parameterisations
from neblina.objectives.categorical import step_loss
from neblina.objectives.importance import (
    BINS,
    HISTORY,
    Importance,
    make_importance,
    make_step_importance,
    rules,
    squared_score,
    step_time,
)
from neblina.objectives.simple import compare
from neblina.processes.discrete import DiscreteProcess
from neblina.processes.gaussian import GaussianProcess
from neblina.processes.kernels import mask_and_replace
from neblina.processes.tables import Cosine
from neblina.training.trainer import Trainer

LEARNING = [name for name in rules if rules[name] is not None]


def learned(name: str, schedule: Any, smallest: float = 1e-3, seed: int = 0) -> Importance:
    """A density with something in its history."""
    return filled(make_importance(name, schedule, smallest), seed)


def filled(importance: Importance | None, seed: int = 0) -> Importance:
    """Something for its history: losses that fall along time."""
    assert importance is not None
    bins = importance.bins
    values = torch.rand(bins, HISTORY, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for column in values.T:
        importance.learn(torch.arange(bins), column * torch.linspace(5, 0.1, bins, dtype=torch.float64))
    return importance


Gradient = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def of_pictures(schedule: Cosine) -> Gradient:
    """The gradient of weighted losses at BINS times, of one picture and one noise each."""
    net = torch.nn.Conv2d(1, 1, 3, padding=1).double()

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net

        def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            return self.inner(x) * (1 + time[:, None, None, None].double())

    denoiser = NetworkDenoiser(Net(), GaussianProcess(schedule), "v")
    generator = torch.Generator().manual_seed(1)
    x0, noise = torch.randn(2, BINS, 1, 4, 4, generator=generator, dtype=torch.float64)

    def gradient(t: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        loss = (weight * compare(denoiser, x0, noise, t, Condition()).loss).sum()
        return torch.cat([one.flatten() for one in torch.autograd.grad(loss, tuple(net.parameters()))])

    return gradient


def of_tokens(schedule: Cosine) -> Gradient:
    """The same of rows of tokens."""
    process = DiscreteProcess(mask_and_replace(3))
    table = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    generator = torch.Generator().manual_seed(1)
    x0 = torch.randint(3, (BINS, 5), generator=generator)
    uniform = torch.rand(BINS, 5, generator=generator, dtype=torch.float64)

    def gradient(t: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        x = process.diffuse(x0, uniform, t)
        belief = Categorical((table[x] * (1 + t[:, None, None])).log_softmax(-1))
        parts = step_loss(process, x0, x, t, t - 1 / BINS, belief)
        return torch.autograd.grad((weight * (parts.bound + 0.01 * parts.cross_entropy)).sum(), table)[0]

    return gradient


@pytest.mark.parametrize(
    ("importance", "state"),
    [
        *((make_importance(name, Cosine(steps=BINS), 1 / BINS), of_pictures) for name in LEARNING),
        (make_step_importance("loss-second-moment", BINS), of_tokens),
    ],
    ids=[*LEARNING, "loss-second-moment of tokens"],
)
def test_the_reweighted_gradient_s_expectation_is_the_uniform_one_s(
    importance: Importance, state: Callable[[Cosine], Gradient]
) -> None:
    """One step of a hundred a bin, so that the expectation is a sum over bins: taken exactly, both ways."""
    importance = filled(importance)
    share = importance.probabilities()
    assert float(share.max() / share.min()) > 10
    gradient = state(Cosine(steps=BINS))
    everywhere = (torch.arange(BINS, dtype=torch.float64) + 1) / BINS
    uniform = gradient(everywhere, torch.full((BINS,), 1 / BINS, dtype=torch.float64))
    # the middle of every bin's share of the uniforms draws that bin, and does so with that share of probability
    drawn = importance.draw(share.cumsum(0) - share / 2)
    assert torch.equal(drawn.t, everywhere)
    reweighted = gradient(drawn.t, share * drawn.weight)
    assert torch.allclose(reweighted, uniform, rtol=1e-6)  # the loss is float32


@pytest.mark.parametrize("steps", [1, 7, 100, 128, 1000])
def test_any_function_of_a_step_has_its_uniform_mean_though_bins_and_steps_differ(steps: int) -> None:
    importance = filled(make_step_importance("loss-second-moment", steps))
    count = 400_000
    drawn = importance.draw((torch.arange(count, dtype=torch.float64) + 0.5) / count)
    every = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    assert set((drawn.t * steps).round().unique().tolist()) <= set(range(1, steps + 1))
    assert step_time(every - 0.5 / steps, steps).tolist() == every.tolist()
    for function in (torch.ones_like, torch.cos, torch.sqrt):
        assert float((drawn.weight * function(drawn.t)).mean()) == pytest.approx(
            float(function(every).mean()), rel=2e-3
        )


def test_tokens_have_no_score_to_look_at() -> None:
    assert make_step_importance("uniform", 100) is None
    with pytest.raises(SettingError, match=r"objective\.times = 'score-norm'.*take loss-second-moment"):
        make_step_importance("score-norm", 100)
    with pytest.raises(SettingError, match="Did you mean loss-second-moment"):
        make_step_importance("loss-second-momentum", 100)


@pytest.mark.parametrize("name", LEARNING)
@pytest.mark.parametrize("schedule", ["cosine", "vp", "edm", "flow"])
def test_any_function_s_reweighted_mean_is_its_uniform_one(name: str, schedule: str) -> None:
    """In closed form: weight times slope of the quantile function is 1, so u' moves as fast as the uniform does."""
    importance = learned(name, SCHEDULES[schedule])
    count = 200_000
    uniforms = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    drawn = importance.draw(uniforms)
    lowest = importance.lowest
    plain = SCHEDULES[schedule].training_time(lowest + (1 - lowest) * uniforms)
    for function in (torch.ones_like, torch.cos, torch.sqrt):
        wanted = float(function(plain).mean())
        assert float((drawn.weight * function(drawn.t)).mean()) == pytest.approx(wanted, rel=2e-3)


@pytest.mark.parametrize("schedule", ["vp", "edm", "flow", "linear"])
@pytest.mark.parametrize("smallest", [1e-3, 0.05])
def test_score_norm_draws_no_time_below_its_bound(schedule: str, smallest: float) -> None:
    importance = learned("score-norm", SCHEDULES[schedule], smallest)
    extremes = importance.draw(torch.tensor([1e-12, 0.5, 1 - 1e-12], dtype=torch.float64))
    assert float(extremes.t.min()) >= smallest * (1 - 1e-9)
    assert float(extremes.t.min()) <= smallest * 1.2


def test_the_density_is_what_the_table_says() -> None:
    for name in LEARNING:
        importance = learned(name, Cosine())
        values = importance.history
        density = values.mean(1) if name == "score-norm" else (values**2).mean(1).sqrt()
        share = density / density.sum()
        if name == "loss-second-moment":
            share = 0.999 * share + 0.001 / BINS
        assert torch.allclose(importance.probabilities(), share)


@pytest.mark.parametrize("name", LEARNING)
def test_it_is_uniform_until_every_bin_has_ten_values_and_then_follows_the_last_ten(name: str) -> None:
    importance = make_importance(name, Cosine(), 1e-3)
    assert importance is not None
    bins = torch.arange(BINS)
    for value in range(HISTORY):
        uniforms = torch.linspace(0.005, 0.995, BINS, dtype=torch.float64)
        assert torch.allclose(importance.draw(uniforms).weight, torch.ones(BINS, dtype=torch.float64))
        importance.learn(bins, torch.full((BINS,), 100.0 * value) + bins)
    assert float(importance.probabilities().max()) > 1 / BINS
    for _ in range(HISTORY):
        importance.learn(bins, torch.ones(BINS))
    assert torch.allclose(importance.probabilities(), torch.full((BINS,), 1 / BINS, dtype=torch.float64))


def test_what_is_not_finite_is_not_remembered() -> None:
    importance = learned("score-norm", Cosine())
    before = importance.probabilities()
    importance.learn(torch.tensor([3, 4, 5]), torch.tensor([torch.nan, torch.inf, -torch.inf]))
    assert torch.equal(importance.probabilities(), before)


@pytest.mark.parametrize("parameterisation", ["eps", "v", "score", "x0"])
def test_the_score_it_measures_is_the_model_s_own(parameterisation: str) -> None:
    """A network that knows Gaussian data exactly has the score −(x − α m)/(α² s² + σ²)."""
    schedule, mean, std = Cosine(), 0.2, 0.4
    process = GaussianProcess(schedule)
    exact, row = gaussian_denoiser(process, mean, std), parameterisations[parameterisation]
    t = torch.tensor([0.1, 0.6], dtype=torch.float64)

    class Knows(torch.nn.Module):
        def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            belief = exact.posterior(x, t, Condition()).mean
            alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
            return row.target(schedule, belief, (x - alpha * belief) / sigma, t)

    x0, noise = torch.randn(2, 2, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    denoiser = NetworkDenoiser(Knows(), process, parameterisation)
    compared = compare(denoiser, x0, noise, t, Condition())
    alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
    score = -(compared.x - alpha * mean) / (alpha**2 * std**2 + sigma**2)
    assert torch.allclose(squared_score(denoiser, compared, t), score[:, 0] ** 2, rtol=1e-4)


@pytest.mark.parametrize("bound", [0.0, -0.1, 1.0, 2.0, float("nan")])
@pytest.mark.parametrize("name", LEARNING)
def test_a_bound_that_leaves_no_times_or_reaches_the_singularity_is_refused(bound: float, name: str) -> None:
    with pytest.raises(SettingError, match="smallest_time lies between 0 and 1"):
        make_importance(name, Cosine(), bound)


@pytest.mark.training
@pytest.mark.parametrize("name", LEARNING)
def test_the_trainer_learns_from_every_sample_and_weighs_its_loss(name: str) -> None:
    recipe = tiny(batch=64)
    recipe = recipe.model_copy(update={"objective": recipe.objective.model_copy(update={"times": name})})
    trainer = Trainer(recipe, pictures(), device="cpu")
    while not bool((trainer.importance.counts >= HISTORY).all()):  # type: ignore[union-attr]
        trainer.advance()
    assert trainer.importance is not None
    assert int(trainer.importance.counts.sum()) == 64 * trainer.step
    seen = trainer.examples(trainer.step)
    assert seen.weight is not None
    assert seen.bins is not None
    share = trainer.importance.probabilities()
    assert torch.allclose(seen.weight, 1 / (BINS * share[seen.bins]))
    before = trainer.loss_sum.clone()
    trainer.bundle.net.eval()  # no dropout, so that the step can be repeated by hand
    loss = trainer.objective(trainer.denoiser, seen.x0, seen.noise, seen.t, Condition(seen.labels)).loss
    trainer.advance()
    assert float(trainer.loss_sum - before) == pytest.approx(float((loss.detach() * seen.weight).mean()), rel=1e-4)
