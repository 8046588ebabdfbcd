"""Suite 5, for every registered guidance: identities, nesting, both ends of time, and how often a network is called.

A new entry needs an example here and a row in docs/guidance.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from exact import mixture
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.plan import Denoiser, Plan, Query, conditional, evaluate
from neblina.core.posterior import Gaussian
from neblina.denoisers.oracles import MixtureClassifier
from neblina.guidance import guidances
from neblina.guidance.affine import classifier_free
from neblina.guidance.bootstrap import Backdrop
from neblina.guidance.interval import interval
from neblina.guidance.operators import AveragePool
from neblina.guidance.regions import Area
from neblina.processes.continuous import VP
from neblina.processes.gaussian import GaussianProcess
from neblina.processes.schedules import Schedule

TIMES = torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0], dtype=torch.float64)
LABELS = Condition(torch.tensor([0, 1, 2, 0, 1]))
MASK = torch.tensor([[1.0, 0.5], [0.0, 0.0]])
BACKDROP = Backdrop(
    torch.linspace(-1, 1, 3)[:, None], torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(2)), 0, range(5)
)


def noisy(process: GaussianProcess) -> Query:
    """Pictures of 2x2 pixels at five times, both ends included."""
    generator = torch.Generator().manual_seed(1)
    x0, noise = torch.randn(2, 5, 1, 2, 2, dtype=torch.float64, generator=generator)
    return Query(process.diffuse(x0, noise, TIMES), TIMES)


@dataclass(frozen=True)
class MixturePictures:
    """The exact denoiser of a mixture, moved a little by the whole picture, that counts its calls."""

    process: GaussianProcess
    calls: list[int] = field(default_factory=list)

    def posterior(self, x: Tensor, t: Tensor, condition: Condition) -> Gaussian:
        self.calls.append(len(x))
        each = x[0].numel()
        labels = None if condition.labels is None else condition.labels.repeat_interleave(each)
        answered = mixture(self.process).posterior(x.reshape(-1, 1), t.repeat_interleave(each), Condition(labels))
        mean = answered.mean.reshape(x.shape)
        mean = mean + 0.1 * x.mean((1, 2, 3), keepdim=True).tanh()
        return Gaussian(mean, variance_fraction=torch.full_like(x, 0.25))


@dataclass(frozen=True)
class PictureClassifier(MixtureClassifier):
    """The exact classifier of the pictures' components, all pixels of one component."""

    calls: list[int] = field(default_factory=list)

    def log_probabilities(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls.append(len(x))
        each = x[0].numel()
        scores = self.mixture.log_joint(x.reshape(-1, 1), t.repeat_interleave(each)).unflatten(0, (-1, each))
        return scores.sum(1).log_softmax(1)


@dataclass(frozen=True)
class Nested:
    """A plan as if it were a network: what it asks is asked inside."""

    plan: Callable[[Condition], Plan]

    def posterior(self, x: Tensor, t: Tensor, condition: Condition) -> Gaussian:
        leaves, combine = self.plan(condition)(Query(x, t))
        return combine([leaf.denoiser.posterior(leaf.x, leaf.t, leaf.given) for leaf in leaves])


def example(name: str, plan: Plan, other: Plan, process: GaussianProcess, settings: Mapping[str, float]) -> Plan:
    """A guidance over `plan`; over a second one where it compares two."""
    measurement = torch.linspace(-1, 1, 5, dtype=torch.float64).reshape(5, 1, 1, 1)
    given: dict[str, tuple[object, ...]] = {
        "classifier-free": (other,),
        "interval": (other, process.schedule),
        "rescale": (other,),
        "clip": (),
        "threshold": (),
        "classifier": (PictureClassifier(mixture(process)), LABELS),
        "crops": (),
        "regions": ([Area(other, MASK)], torch.ones(2, 2)),
        "bootstrap": (MASK, BACKDROP, process.schedule),
        "known": (measurement.expand(5, 1, 2, 2),),
        "posterior-sampling": (AveragePool(2), measurement, process.schedule),
        "moment-matching": (AveragePool(2), measurement, process.schedule),
    }
    return guidances[name].function(plan, *given[guidances[name].name], **settings)


ACTIVE: dict[str, dict[str, float]] = {
    "classifier-free": {"weight": 3.0},
    "interval": {"low": 0.1, "high": 20.0},
    "rescale": {"strength": 0.7},
    "clip": {"limit": 0.3},
    "threshold": {"quantile": 0.5, "limit": 0.3},
    "classifier": {"scale": 2.0},
    "crops": {"size": 1, "overlap": 0},
    "regions": {"weight": 1.0},
    "bootstrap": {"until": 0.3},
    "known": {"free": 0.5},
    "posterior-sampling": {"strength": 1000.0},
    "moment-matching": {"noise": 0.1},
}
every = pytest.mark.parametrize("name", [name for name, one in guidances.items() if one.changes != "tokens"])


@every
def test_at_its_neutral_setting_it_is_the_plan_it_was_given(name: str, schedule: Schedule) -> None:
    process = GaussianProcess(schedule)
    denoiser, query = MixturePictures(process), noisy(process)
    plan, other = conditional(denoiser, LABELS), conditional(denoiser, LABELS.null())
    guided = evaluate(example(name, plan, other, process, guidances[name].neutral), query)
    plain = evaluate(plan, query)
    assert torch.allclose(guided.mean, plain.mean, rtol=0, atol=1e-12)
    assert torch.equal(guided.variance_fraction, plain.variance_fraction)


@every
def test_it_changes_the_belief_and_is_finite_at_both_ends_of_time(name: str, schedule: Schedule) -> None:
    process = GaussianProcess(schedule)
    denoiser, query = MixturePictures(process), noisy(process)
    plan, other = conditional(denoiser, LABELS), conditional(denoiser, LABELS.null())
    guided = evaluate(example(name, plan, other, process, ACTIVE[guidances[name].name]), query)
    assert bool(guided.mean.isfinite().all())
    assert guided.variance_fraction is not None
    assert not guided.mean.requires_grad
    compared = other if guidances[name].name == "interval" else plan
    assert float((guided.mean - evaluate(compared, query).mean)[1:-1].abs().max()) > 1e-3


def guided(denoiser: Denoiser, condition: Condition) -> Plan:
    return classifier_free(denoiser, condition, 2.0)


def guided_between(denoiser: Denoiser, condition: Condition) -> Plan:
    """Its samples are asked different things."""
    return interval(guided(denoiser, condition), conditional(denoiser, condition), VP(), low=0.1, high=2.0)


@every
@pytest.mark.parametrize("inner", [guided, guided_between])
def test_over_another_plan_it_answers_as_if_that_were_a_network_and_asks_every_network_once(
    name: str, inner: Callable[[Denoiser, Condition], Plan]
) -> None:
    process = GaussianProcess(VP())
    query = noisy(process)
    denoiser = MixturePictures(process)
    nested = Nested(lambda condition: inner(denoiser, condition))

    def built(asked: Callable[[Condition], Plan]) -> Plan:
        return example(name, asked(LABELS), asked(LABELS.null()), process, ACTIVE[guidances[name].name])

    with torch.no_grad():
        flat = evaluate(built(lambda condition: inner(denoiser, condition)), query).mean
    assert len(denoiser.calls) == 1
    assert torch.allclose(flat, evaluate(built(lambda condition: conditional(nested, condition)), query).mean)


@every
def test_a_picture_is_guided_alike_in_any_company_and_by_its_own_row(name: str) -> None:
    process = GaussianProcess(VP())
    denoiser, query = MixturePictures(process), noisy(process)
    plan, other = conditional(denoiser, LABELS), conditional(denoiser, LABELS.null())
    guided = example(name, plan, other, process, ACTIVE[guidances[name].name])
    whole = evaluate(guided, query).mean
    rows = torch.tensor([3, 1])
    picked = evaluate(guided, Query(query.x[rows], query.t[rows], rows)).mean
    assert torch.allclose(picked, whole[rows], atol=1e-12)


def test_a_part_that_two_guidances_share_is_asked_once_by_rows_too() -> None:
    process = GaussianProcess(VP())
    denoiser, query = MixturePictures(process), noisy(process)
    plain = conditional(denoiser, LABELS)
    guided = guidances["rescale"].function(
        classifier_free_over(plain, conditional(denoiser, LABELS.null())), plain, strength=0.7
    )
    limited = guidances["interval"].function(guided, plain, process.schedule, low=0.1, high=2.0)
    evaluate(limited, query)
    level = process.schedule.sigma(query.t) / process.schedule.alpha(query.t)
    inside = int(((level > 0.1) & (level < 2)).sum())
    assert inside == 1
    assert denoiser.calls == [5 + inside]


def classifier_free_over(plain: Plan, null: Plan) -> Plan:
    return guidances["classifier-free"].function(plain, null, weight=3.0)


def test_every_guidance_has_its_row_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "guidance.md").read_text()
    for name, entry in guidances.items():
        assert f"`{name}`" in page
        assert entry.source.split(";")[0].split(",")[0] in page
