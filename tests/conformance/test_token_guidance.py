"""Plans over beliefs about tokens: what changes numbers and tokens alike, and what changes tokens alone."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.errors import SettingError
from neblina.core.logs import ZERO, is_zero
from neblina.core.noise import SampleNoise
from neblina.core.plan import Leaf, Plan, Query, answer, conditional, evaluate
from neblina.core.posterior import Categorical, Gaussian, Posterior, categorical
from neblina.denoisers.token_oracles import EnumeratedDenoiser
from neblina.guidance import guidances
from neblina.guidance.affine import affine, classifier_free
from neblina.guidance.clipping import clip
from neblina.guidance.crops import crops
from neblina.guidance.regions import Area, regions
from neblina.guidance.rescaling import rescaled
from neblina.guidance.truncation import truncated
from neblina.processes.discrete import DiscreteProcess
from neblina.processes.kernels import absorbing, uniform
from neblina.samplers import token_samplers
from neblina.samplers.drive import sample

D = torch.float64
T = torch.tensor([0.6], dtype=D)
POINTS = torch.tensor([[0, 0], [1, 1], [2, 1], [2, 2]])
PROCESS = DiscreteProcess(uniform(3))
DENOISER = EnumeratedDenoiser(PROCESS, POINTS, torch.full((4,), 0.25, dtype=D), torch.tensor([0, 0, 1, 1]))
X = torch.tensor([[1, 2]])
SAID = Condition(torch.tensor([1]))


class _Says:
    """Believes the same of every token, whatever it is shown, and counts how often it is asked."""

    def __init__(self, probabilities: Sequence[float]) -> None:
        self.logs, self.asked = torch.tensor(probabilities, dtype=D).log(), 0

    def posterior(self, x: Tensor, t: Tensor, condition: Condition) -> Posterior:
        self.asked += 1
        return Categorical(self.logs.expand(*x.shape, -1))


def _plan(*probabilities: float) -> Plan:
    return conditional(_Says(probabilities), Condition())


def _logs(plan: Plan, x: Tensor = X) -> Tensor:
    return categorical(evaluate(plan, Query(x, T))).log_probs


def test_guidance_of_weight_1_is_none() -> None:
    assert torch.equal(_logs(classifier_free(DENOISER, SAID, 1.0)), _logs(conditional(DENOISER, SAID)))


@pytest.mark.parametrize("weight", [0.0, 0.5, 3.0])
def test_guidance_is_of_log_probabilities_renormalised(weight: float) -> None:
    said, unsaid = _logs(conditional(DENOISER, SAID)), _logs(conditional(DENOISER, SAID.null()))
    product = said.exp() ** weight * unsaid.exp() ** (1 - weight)
    expected = product / product.sum(-1, keepdim=True)
    found = _logs(classifier_free(DENOISER, SAID, weight))
    assert torch.allclose(found.exp(), expected, atol=1e-12)


def test_guidance_asks_once_and_nests() -> None:
    says = _Says([0.5, 0.3, 0.2])
    one, other = conditional(says, Condition()), conditional(says, Condition())
    plan = affine([affine([one, other], [2.0, -1.0]), one], [0.5, 0.5])
    (found,) = answer([(plan, Query(X, T))])
    assert says.asked == 1
    assert isinstance(found, Categorical)
    assert torch.allclose(found.log_probs, says.logs.expand(1, 2, 3))


def test_places_average_probabilities_cell_by_cell() -> None:
    mask = torch.tensor([[1.0, 0.25, 0.0]])
    plan = regions(_plan(0.1, 0.9), [Area(_plan(0.8, 0.2), mask)])
    found = _logs(plan, torch.zeros(1, 1, 3, dtype=torch.int64)).exp()
    expected = torch.tensor([0.8, 0.25 * 0.8 + 0.75 * 0.1, 0.1], dtype=D)
    assert torch.allclose(found[0, 0, :, 0], expected, atol=1e-12)
    assert torch.allclose(found.sum(-1), torch.ones(1, 1, 3, dtype=D))


def test_one_place_everywhere_is_plain_sampling_to_the_bit() -> None:
    process = DiscreteProcess(absorbing(3))
    denoiser = EnumeratedDenoiser(process, POINTS.reshape(4, 1, 2), torch.full((4,), 0.25, dtype=D))
    plain = conditional(denoiser, Condition())
    whole = regions(_plan(0.2, 0.3, 0.5), [Area(plain, torch.ones(1, 2))])
    made = []
    for plan in (plain, whole):
        noise = SampleNoise(1, [0, 1])
        start = process.prior((2, 1, 2), noise)
        made.append(sample(token_samplers["ancestral"](process, start, torch.linspace(1, 0, 5), noise=noise), plan))
    assert torch.equal(*made)


def test_what_looks_at_one_token_at_a_time_is_believed_whole_through_windows() -> None:
    class EachToken:
        def posterior(self, x: Tensor, t: Tensor, condition: Condition) -> Posterior:
            return Categorical(torch.nn.functional.one_hot(x, 4).double().mul(2).log_softmax(-1))

    x = torch.arange(4).repeat(1, 6, 2)
    plain = conditional(EachToken(), Condition())
    assert torch.allclose(_logs(crops(plain, size=4, overlap=2), x), _logs(plain, x), atol=1e-12)


@pytest.mark.parametrize(
    ("rate", "count", "kept"),
    [(1.0, 0, 4), (0.99, 0, 4), (0.9, 0, 3), (0.5, 0, 1), (0.51, 0, 2), (1e-9, 0, 1), (1.0, 2, 2), (0.9, 1, 1)],
)
def test_truncation_keeps_the_most_probable_that_hold_so_much(rate: float, count: int, kept: int) -> None:
    says = [0.15, 0.5, 0.05, 0.3]
    found = _logs(truncated(_plan(*says), rate=rate, count=count))[0, 0]
    best = sorted(range(4), key=lambda k: -says[k])[:kept]
    whole = sum(says[k] for k in best)
    for k in range(4):
        if k in best:
            assert float(found[k].exp()) == pytest.approx(says[k] / whole)
        else:
            assert bool(is_zero(found[k]))


def test_tokens_that_are_truncated_are_never_drawn() -> None:
    process, noise = DiscreteProcess(uniform(4)), SampleNoise(0, [0])
    plan = truncated(_plan(0.6, 0.3, 0.06, 0.04), rate=0.85)
    walk = token_samplers["ancestral"](process, process.prior((1, 500), noise), torch.linspace(1, 0, 9), noise=noise)
    assert int(sample(walk, plan).max()) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: truncated(_plan(0.5, 0.5), rate=0.0), r"in \(0, 1\], not 0"),
        (lambda: truncated(_plan(0.5, 0.5), rate=1.2), r"in \(0, 1\], not 1.2"),
        (lambda: truncated(_plan(0.5, 0.5), count=-1), "not -1"),
        (lambda: evaluate(clip(_plan(0.5, 0.5)), Query(X, T)), "clip changes pictures"),
        (lambda: evaluate(rescaled(_plan(0.5, 0.5), _plan(0.5, 0.5), strength=0.5), Query(X, T)), "rescale changes"),
        (lambda: evaluate(truncated(_numbers, rate=0.5), Query(X, T)), "makes pictures or latents"),
    ],
)
def test_what_is_of_the_other_kind_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        make()


def _numbers(query: Query) -> tuple[list[Leaf], Any]:
    return [], lambda posteriors: Gaussian(query.x.double())


def test_what_changes_tokens_says_so() -> None:
    changes = {name: entry.changes for name, entry in guidances.items()}
    assert {name for name, what in changes.items() if what == "tokens"} == {"truncation"}
    both = {name for name, what in changes.items() if what == "both"}
    assert both == {"classifier-free", "autoguidance", "regions", "crops"}


def test_impossible_classes_stay_impossible_under_guidance() -> None:
    logs = torch.tensor([[ZERO, 0.0]], dtype=D)

    class Certain:
        def posterior(self, x: Tensor, t: Tensor, condition: Condition) -> Posterior:
            return Categorical(logs.expand(*x.shape, 2))

    plan = affine([conditional(Certain(), Condition()), _plan(0.5, 0.5)], [3.0, -2.0])
    found = _logs(plan)
    assert bool(found.isfinite().all())
    assert torch.equal(found.exp(), torch.tensor([0.0, 1.0], dtype=D).expand(1, 2, 2))
