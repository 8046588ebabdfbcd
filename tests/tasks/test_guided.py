"""Guidance as a user asks for it: each option acts, and what cannot be is refused before the network is asked."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pipelines
import pytest
import torch
from models import small_bundle, small_classifier

import neblina
from neblina.bundle.classifier import save_classifier
from neblina.core.errors import SettingError
from neblina.nets.unet import UNet
from neblina.tasks.classifier import Classifier, load_classifier
from neblina.tasks.model import Model

CPU = torch.device("cpu")


def model_of(**settings: Any) -> Model:
    return Model(small_bundle(**{"classes": 3, "schedule": "cosine", "parameterisation": "v", **settings}), CPU)


def classifier_of(**settings: Any) -> Classifier:
    return Classifier(small_classifier(**settings), CPU)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many samples each network call was given."""
    made: list[int] = []
    forward = UNet.forward

    def counted(self: UNet, x: torch.Tensor, *rest: torch.Tensor, **given: torch.Tensor) -> torch.Tensor:
        made.append(len(x))
        return forward(self, x, *rest, **given)

    monkeypatch.setattr(UNet, "forward", counted)
    return made


def pictures(**given: Any) -> torch.Tensor:
    return model_of().generate(**{"labels": [0, 1], "n": 8, **given})


def test_guidance_between_two_levels_leads_less_far_from_the_unguided_pictures() -> None:
    unguided, guided = pictures(), pictures(guidance=3.0)
    within = pictures(guidance=3.0, guidance_interval=(0.5, 5.0))
    assert 0.01 < float((within - unguided).norm() / (guided - unguided).norm()) < 0.9


def test_rescaling_brings_back_the_unguided_spread() -> None:
    """Exactly so in a single step, whose picture is the belief."""
    spreads = [
        pictures(steps=1, **given).flatten(1).std(1)
        for given in ({}, {"guidance": 3.0}, {"guidance": 3.0, "guidance_rescale": 1.0})
    ]
    assert torch.allclose(spreads[2], spreads[0], rtol=1e-4)
    assert not torch.allclose(spreads[1], spreads[0], rtol=1e-2)


def test_thresholding_ends_in_the_data_s_range() -> None:
    assert float(pictures(guidance=3.0).abs().max()) > 1.1
    assert float(pictures(guidance=3.0, threshold=0.9).abs().max()) <= 1


def test_autoguidance_by_the_model_itself_is_none() -> None:
    assert torch.allclose(pictures(guidance=3.0, autoguidance=model_of()), pictures(), atol=1e-4)
    assert not torch.allclose(pictures(guidance=3.0, autoguidance=model_of(seed=5)), pictures(), atol=1e-2)


def test_a_classifier_leads_to_pictures_that_it_is_surer_of() -> None:
    classifier, labels = classifier_of(), torch.tensor([0, 1] * 4)
    noisy = classifier.bundle.classifier()

    def sureness(made: torch.Tensor) -> float:
        near = torch.full((8,), 0.05, dtype=torch.float64)
        return float(noisy.log_probabilities(made, near).gather(1, labels[:, None]).mean().detach())

    plain, led = sureness(pictures()), sureness(pictures(classifier=classifier, classifier_scale=200.0))
    against = sureness(pictures(classifier=classifier, classifier_scale=-200.0))
    assert against < plain < led


def test_outside_the_interval_the_null_is_not_asked(calls: list[int]) -> None:
    model = model_of()
    model.generate(labels=1, guidance=3.0, sampler="ddim", steps=10)
    assert calls == [2] * 10
    calls.clear()
    model.generate(labels=1, guidance=3.0, guidance_interval=(0.3, 3.0), sampler="ddim", steps=10)
    assert set(calls) == {1, 2}
    assert len(calls) == 10


def test_an_interval_of_everything_and_rescaling_by_nothing_are_plain_guidance() -> None:
    model = model_of()
    plain = model.generate(labels=1, guidance=3.0)
    assert torch.equal(model.generate(labels=1, guidance=3.0, guidance_interval=(0.0, float("inf"))), plain)
    assert torch.equal(model.generate(labels=1, guidance=3.0, guidance_rescale=0.0), plain)


def test_a_weaker_model_guides_without_a_condition_too() -> None:
    model, weaker = model_of(classes=0), model_of(classes=0, seed=7)
    plain = model.generate(n=2)
    assert not torch.allclose(model.generate(n=2, guidance=2.0, autoguidance=weaker), plain, atol=1e-3)
    assert torch.allclose(model.generate(n=2, guidance=2.0, autoguidance=model), plain, atol=1e-4)


def test_a_classifier_gives_an_unconditional_model_labels(tmp_path: Path) -> None:
    model = model_of(classes=0)
    save_classifier(small_classifier(), tmp_path / "classifier")
    classifier = load_classifier(tmp_path / "classifier", device="cpu")
    made = model.generate(labels=["0", 2], n=2, classifier=classifier, classifier_scale=50.0)
    assert not torch.allclose(made, model.generate(n=2), atol=1e-3)


def test_a_model_that_guides_by_default_still_goes_without_a_label() -> None:
    model = model_of()
    guided = Model(replace(model.bundle, sampling=replace(model.bundle.sampling, guidance=3.0)), CPU)
    assert torch.equal(guided.generate(n=2), model.generate(n=2))
    assert torch.equal(guided.generate(labels=1), model.generate(labels=1, guidance=3.0))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"guidance": 2.0, "guidance_interval": (3.0, 0.3)}, r"upside down.*Write 0\.3 3"),
        ({"guidance": 2.0, "guidance_interval": (-1.0, 3.0)}, "holds no noise level"),
        ({"guidance_interval": (0.3, 3.0)}, "there is none; set guidance above 1"),
        ({"guidance": 2.0, "guidance_rescale": 1.5}, "between 0"),
        ({"guidance_rescale": 0.7}, "guidance is 1"),
        ({"threshold": 99.5}, r"such as 0\.995"),
        ({"labels": None, "guidance": 2.0}, "follows a label, and there is none"),
        ({"autoguidance": model_of(seed=1)}, "autoguidance at guidance 1 is none"),
        ({"guidance": 2.0, "autoguidance": model_of(schedule="linear")}, "another process"),
        ({"guidance": 2.0, "autoguidance": model_of(classes=4)}, "weaker model knows other classes"),
        ({"guidance": 2.0, "autoguidance": model_of(classes=0)}, r"other classes \(no classes\)"),
        ({"guidance": 2.0, "autoguidance": model_of(), "unconditional": model_of(classes=0)}, "one other model"),
        ({"classifier": classifier_of(classes=4)}, "classifier knows other classes"),
        ({"classifier": classifier_of(schedule="linear")}, "another process"),
        ({"labels": None, "classifier": classifier_of()}, "there is none; say which"),
        ({"classifier": classifier_of(), "classifier_scale": float("nan")}, "finite"),
        ({"classifier": classifier_of(), "classifier_scale": 0.0}, "a classifier of scale 0 is not asked"),
        ({"guidance": float("nan")}, "guidance is a finite number, not nan"),
        ({"guidance": float("inf")}, "guidance is a finite number, not inf"),
        ({"guidance": float("inf"), "autoguidance": model_of(seed=1)}, "guidance is a finite number, not inf"),
        ({"guidance": 1.0, "unconditional": model_of(classes=0)}, "at guidance 1 .* is not asked"),
        ({"classifier_scale": 2.0}, "weighs a classifier, and none is given"),
    ],
)
def test_what_cannot_be_is_refused_before_the_network_is_asked(
    settings: dict[str, Any], said: str, calls: list[int]
) -> None:
    with pytest.raises(SettingError, match=said):
        model_of().generate(**{"labels": 0, **settings})
    assert calls == []


@pytest.mark.parametrize("other", ["unconditional", "autoguidance"])
def test_a_negative_prompt_beside_another_model_to_go_away_from_is_refused(other: str, tmp_path: Path) -> None:
    pipelines.sd1(tmp_path / "parts").save_pretrained(tmp_path / "model")
    model = neblina.load(tmp_path / "model", device="cpu")
    with pytest.raises(SettingError, match=f"with {other} it goes away from that model: leave one of the two out"):
        model.generate("a cat", negative="a dog", guidance=3.0, **{other: model})


@pytest.mark.parametrize("limit", [-1.0, 0.0, float("nan")])
def test_a_model_whose_range_is_none_is_refused_before_it_is_asked(limit: float, calls: list[int]) -> None:
    model = model_of()
    bad = Model(replace(model.bundle, sampling=replace(model.bundle.sampling, clip=limit)), CPU)
    with pytest.raises(SettingError, match="limit of the clean data is above 0"):
        bad.generate(labels=0)
    assert calls == []


def test_an_unconditional_model_takes_the_classifiers_labels_and_no_others(calls: list[int]) -> None:
    model = model_of(classes=0)
    with pytest.raises(SettingError, match="label 3 is out of range"):
        model.generate(labels=3, classifier=classifier_of())
    with pytest.raises(SettingError, match="guidance 2 needs a model with a condition"):
        model.generate(labels=1, guidance=2.0, classifier=classifier_of())
    with pytest.raises(SettingError, match="unconditional"):
        model.generate(labels=1)
    assert calls == []
