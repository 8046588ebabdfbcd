"""Classifier guidance: with the exact classifier it is Bayes' rule, for every schedule."""

import pytest
import torch
from exact import mixture

from neblina.core.conditions import Condition
from neblina.core.errors import SettingError
from neblina.core.plan import Query, conditional, evaluate
from neblina.denoisers.oracles import MixtureClassifier
from neblina.guidance.affine import classifier_free
from neblina.guidance.classifier import classifier_guided
from neblina.processes.continuous import VP
from neblina.processes.gaussian import GaussianProcess
from neblina.processes.schedules import Schedule

TIMES = torch.tensor([0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99], dtype=torch.float64)
LABELS = Condition(torch.tensor([0, 1, 2, 0, 1, 2, 0]))


def query_of(process: GaussianProcess) -> Query:
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 7, 1, dtype=torch.float64, generator=generator)
    return Query(process.diffuse(x0, noise, TIMES), TIMES)


def test_at_scale_one_the_unconditional_denoiser_becomes_the_conditional_one(schedule: Schedule) -> None:
    denoiser = mixture(GaussianProcess(schedule))
    query = query_of(denoiser.process)
    null = conditional(denoiser, LABELS.null())
    guided = classifier_guided(null, MixtureClassifier(denoiser), LABELS, scale=1.0)
    wanted = evaluate(conditional(denoiser, LABELS), query).mean
    assert torch.allclose(evaluate(guided, query).mean, wanted, rtol=0, atol=1e-8)
    assert float((evaluate(null, query).mean - wanted).abs().max()) > 0.01


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5, 7.0])
def test_on_the_conditional_denoiser_scale_w_less_one_is_classifier_free_guidance_of_weight_w(
    schedule: Schedule, weight: float
) -> None:
    denoiser = mixture(GaussianProcess(schedule))
    query = query_of(denoiser.process)
    plain = conditional(denoiser, LABELS)
    by_classifier = classifier_guided(plain, MixtureClassifier(denoiser), LABELS, scale=weight - 1)
    without = classifier_free(denoiser, LABELS, weight)
    assert torch.allclose(evaluate(by_classifier, query).mean, evaluate(without, query).mean, rtol=0, atol=1e-8)


def test_a_sample_without_a_label_is_left_alone_and_labels_are_looked_at() -> None:
    denoiser = mixture(GaussianProcess(VP()))
    query, classifier = query_of(denoiser.process), MixtureClassifier(denoiser)
    some = Condition(torch.tensor([0, -1, 2, -1, 1, 2, 0]))
    null = conditional(denoiser, LABELS.null())
    guided = evaluate(classifier_guided(null, classifier, some, scale=3.0), query).mean
    plain = evaluate(null, query).mean
    assert ((guided - plain).abs() > 1e-6)[:, 0].tolist() == [True, False, True, False, True, True, True]
    with pytest.raises(SettingError, match="say which, 0 … 2"):
        evaluate(classifier_guided(null, classifier, Condition(), scale=1.0), query)
    with pytest.raises(SettingError, match="label 5 is out of range"):
        evaluate(classifier_guided(null, classifier, Condition(torch.full((7,), 5)), scale=1.0), query)
