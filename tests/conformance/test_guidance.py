"""Suite 5: guidance and plans: identities, conventions, and how often a network is called."""

from dataclasses import dataclass, field, replace

import pytest
import torch
from exact import mixture
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.errors import SettingError
from neblina.core.plan import Query, answer, conditional, evaluate
from neblina.core.posterior import Gaussian
from neblina.denoisers.oracles import MixtureDenoiser
from neblina.guidance.affine import affine, classifier_free
from neblina.guidance.clipping import clip
from neblina.processes.continuous import VP
from neblina.processes.gaussian import GaussianProcess

PROCESS = GaussianProcess(VP())
LABELS = Condition(torch.tensor([0, 1, 2]))
QUERY = Query(
    torch.linspace(-1, 1, 3, dtype=torch.float64)[:, None], torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
)


@dataclass(frozen=True)
class Counted:
    """An exact denoiser that counts its calls."""

    inner: MixtureDenoiser = field(default_factory=lambda: mixture(PROCESS))
    calls: list[int] = field(default_factory=list)

    def posterior(self, x: Tensor, t: Tensor, condition: Condition) -> Gaussian:
        self.calls.append(len(x))
        return self.inner.posterior(x, t, condition)


def test_guidance_of_weight_one_is_no_guidance_and_asks_once() -> None:
    denoiser = Counted()
    guided = evaluate(classifier_free(denoiser, LABELS, 1.0), QUERY).mean
    assert denoiser.calls == [3]
    assert torch.equal(guided, evaluate(conditional(denoiser, LABELS), QUERY).mean)


def test_guidance_of_weight_zero_is_unconditional() -> None:
    denoiser = mixture(PROCESS)
    guided = evaluate(classifier_free(denoiser, LABELS, 0.0), QUERY).mean
    assert torch.equal(guided, denoiser.posterior(QUERY.x, QUERY.t, LABELS.null()).mean)


@pytest.mark.parametrize("omega", [-0.5, 0.5, 3.0])
def test_weight_one_plus_omega_is_the_papers_form_in_eps(omega: float) -> None:
    """(1 + ω) ε_c − ω ε_∅ with ε = (x − α x̂_0)/σ (Ho, Salimans 2022, eq. 6)."""
    denoiser = mixture(PROCESS)
    alpha, sigma = PROCESS.schedule.alpha(QUERY.t)[:, None], PROCESS.schedule.sigma(QUERY.t)[:, None]

    def eps(mean: Tensor) -> Tensor:
        return (QUERY.x - alpha * mean) / sigma

    towards = eps(denoiser.posterior(QUERY.x, QUERY.t, LABELS).mean)
    away = eps(denoiser.posterior(QUERY.x, QUERY.t, LABELS.null()).mean)
    guided = eps(evaluate(classifier_free(denoiser, LABELS, 1 + omega), QUERY).mean)
    assert torch.allclose(guided, (1 + omega) * towards - omega * away, atol=1e-12)


def test_guidance_asks_a_network_once_for_both_branches() -> None:
    denoiser = Counted()
    evaluate(classifier_free(denoiser, LABELS, 3.0), QUERY)
    assert denoiser.calls == [6]


def test_a_separate_unconditional_network_is_the_other_branch() -> None:
    denoiser, other = Counted(), Counted(replace(mixture(PROCESS), weights=torch.tensor([1.0, 0.0, 0.0]).double()))
    plan = classifier_free(denoiser, LABELS, 2.0, unconditional=other)
    guided = evaluate(plan, QUERY).mean
    assert denoiser.calls == [3]
    assert other.calls == [3]
    towards = denoiser.inner.posterior(QUERY.x, QUERY.t, LABELS).mean
    away = other.inner.posterior(QUERY.x, QUERY.t, Condition()).mean
    assert torch.allclose(guided, 2 * towards - away)


def test_nested_plans_flatten_to_one_call_and_ask_nothing_twice() -> None:
    """Three prompts under guidance share their null: four leaves of three samples, one call."""
    denoiser = Counted()
    conditions = [Condition(torch.full((3,), label)) for label in range(3)]
    null = conditional(denoiser, conditions[0].null())
    guided = [affine([conditional(denoiser, one), null], [2.0, -1.0]) for one in conditions]
    nested = evaluate(affine(guided, [0.5, 0.25, 0.25]), QUERY).mean
    assert len(denoiser.calls) == 1
    by_hand = (
        sum(
            weight * (2 * denoiser.inner.posterior(QUERY.x, QUERY.t, one).mean)
            for weight, one in zip((0.5, 0.25, 0.25), conditions, strict=True)
        )
        - denoiser.inner.posterior(QUERY.x, QUERY.t, conditions[0].null()).mean
    )
    assert torch.allclose(nested, by_hand)


def test_the_same_leaf_is_asked_once() -> None:
    denoiser = Counted()
    plan = conditional(denoiser, LABELS)
    evaluate(affine([plan, plan], [0.5, 0.5]), QUERY)
    assert denoiser.calls == [3]


def test_beliefs_that_were_clipped_mix_where_they_pointed_too() -> None:
    """A step's direction is affine in the belief it follows, clipped or not."""
    towards, away = conditional(Counted(), LABELS), conditional(Counted(), LABELS.null())
    inside, outside = (
        evaluate(affine(plans, [3.0, -2.0]), QUERY)
        for plans in ([clip(towards, 0.5, keep_direction=True), away], [towards, away])
    )
    assert inside.unclipped_mean is not None
    assert torch.equal(inside.unclipped_mean, outside.mean)
    assert not torch.allclose(inside.mean, outside.mean)
    assert outside.unclipped_mean is None


def test_zero_weights_are_dropped_and_weights_sum_to_one() -> None:
    denoiser, never = Counted(), Counted()
    plan = affine([conditional(denoiser, LABELS), conditional(never, LABELS)], [1.0, 0.0])
    evaluate(plan, QUERY)
    assert never.calls == []
    with pytest.raises(SettingError, match="sum to 1"):
        affine([conditional(denoiser, LABELS)], [0.5])


def test_rows_say_whose_condition_is_used() -> None:
    denoiser = mixture(PROCESS)
    rows = torch.tensor([2, 0])
    picked = Query(QUERY.x[rows], QUERY.t[rows], rows)
    for weight in (1.0, 2.5):
        plan = classifier_free(denoiser, LABELS, weight)
        assert torch.allclose(evaluate(plan, picked).mean, evaluate(plan, QUERY).mean[rows])


def test_clipping_acts_where_it_stands() -> None:
    denoiser = mixture(PROCESS)
    towards, null = conditional(denoiser, LABELS), conditional(denoiser, LABELS.null())
    outside = evaluate(clip(affine([towards, null], [4.0, -3.0]), 0.5), QUERY).mean
    inside = evaluate(affine([clip(towards, 0.5), clip(null, 0.5)], [4.0, -3.0]), QUERY).mean
    raw = evaluate(affine([towards, null], [4.0, -3.0]), QUERY).mean
    assert torch.equal(outside, raw.clamp(-0.5, 0.5))
    assert not torch.allclose(inside, outside)
    kept = evaluate(clip(towards, 0.5, keep_direction=True), QUERY)
    assert kept.unclipped_mean is not None
    assert torch.equal(kept.unclipped_mean, evaluate(towards, QUERY).mean)


def test_questions_of_strangers_are_answered_in_one_call_and_failures_stay_apart() -> None:
    denoiser = Counted()

    @dataclass(frozen=True)
    class Broken:
        def posterior(self, x: Tensor, t: Tensor, condition: Condition) -> Gaussian:
            raise RuntimeError("broken")

    good = classifier_free(denoiser, LABELS, 2.0)
    other = Query(QUERY.x[:2] + 1, QUERY.t[:2], torch.tensor([0, 1]))
    results = answer([(good, QUERY), (conditional(Broken(), LABELS), QUERY), (good, other)])
    assert denoiser.calls == [10]
    assert isinstance(results[1], RuntimeError)
    for result, query in ((results[0], QUERY), (results[2], other)):
        assert isinstance(result, Gaussian)
        assert torch.allclose(result.mean, evaluate(good, query).mean)


def test_running_out_of_memory_halves_the_batch_until_it_fits() -> None:
    @dataclass(frozen=True)
    class Small:
        sizes: list[int] = field(default_factory=list)

        def posterior(self, x: Tensor, t: Tensor, condition: Condition) -> Gaussian:
            if len(x) > 3:
                raise torch.OutOfMemoryError("too large")
            self.sizes.append(len(x))
            return mixture(PROCESS).posterior(x, t, condition)

    small = Small()
    query = Query(torch.randn(10, 1, dtype=torch.float64), torch.full((10,), 0.5, dtype=torch.float64))
    labels = Condition(torch.arange(10) % 3)
    answered = evaluate(conditional(small, labels), query).mean
    assert sum(small.sizes) == 10
    assert torch.allclose(answered, mixture(PROCESS).posterior(query.x, query.t, labels).mean)


def test_a_batch_larger_than_asked_for_is_split() -> None:
    denoiser = Counted()
    answer([(classifier_free(denoiser, LABELS, 2.0), QUERY)], max_batch=4)
    assert denoiser.calls == [4, 2]
