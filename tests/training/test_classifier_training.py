"""Classifiers of noisy pictures: they learn, a stopped run goes on to the same bits, and the folder is whole."""

import hashlib
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from neblina.bundle.classifier import load_classifier_bundle, save_classifier
from neblina.bundle.weights import WEIGHTS
from neblina.core.errors import CheckpointError, Interrupted, SettingError
from neblina.data.pictures import InMemory, to_float
from neblina.training.classifier import new_classifier, train_classifier
from neblina.training.recipe import Recipe, build_recipe, load_recipe
from neblina.training.run import Report


def tiny(**training: Any) -> Recipe:
    return build_recipe(
        {
            "kind": "classifier",
            "network": {"channels": [8, 16], "groups": 4, "blocks": 1, "dropout": 0.1},
            "optimizer": {"warmup": 5, "lr": 3e-3},
            "training": {
                "images": 240,
                "batch": 8,
                "label_dropout": 0,
                "log_every": 7,
                "checkpoint_every": 4,
                **training,
            },
        },
        "the test's recipe",
    )


def pictures() -> InMemory:
    """Dark, grey and bright pictures, which are easy to tell apart."""
    labels = torch.arange(30) % 3
    pixels = (labels * 100 + 20)[:, None, None, None].expand(-1, 1, 8, 8).to(torch.uint8).contiguous()
    return InMemory(pixels, labels, ("dark", "grey", "bright"))


def digest(folder: Path) -> list[str]:
    return [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (f"model/{WEIGHTS}", "log.jsonl")]


def test_the_packaged_recipe_builds_a_classifier_of_digits() -> None:
    recipe = load_recipe("digits-classifier")
    digits = InMemory(torch.zeros(20, 1, 8, 8, dtype=torch.uint8), torch.arange(20) % 10, tuple("0123456789"))
    bundle = new_classifier(recipe, digits)
    scores = bundle.classifier().log_probabilities(torch.zeros(2, 1, 8, 8), torch.tensor([0.0, 1.0]).double())
    assert scores.shape == (2, 10)
    assert torch.allclose(scores.exp().sum(1), torch.ones(2))


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop(report: Report) -> None:
        if report.step == 14:
            raise StoppedError

    train_classifier(tiny(), pictures(), tmp_path / "whole", device="cpu")
    with pytest.raises(StoppedError):
        train_classifier(tiny(), pictures(), tmp_path / "parts", device="cpu", on_report=stop)
    with pytest.raises(SettingError, match="Pass --resume"):
        train_classifier(tiny(), pictures(), tmp_path / "parts", device="cpu")
    with pytest.raises(SettingError, match=r"training\.batch: 8 there, 4 here"):
        train_classifier(tiny(batch=4), pictures(), tmp_path / "parts", device="cpu", resume=True)
    train_classifier(tiny(), pictures(), tmp_path / "parts", device="cpu", resume=True)
    assert digest(tmp_path / "parts") == digest(tmp_path / "whole")


def test_ctrl_c_finishes_the_step_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    def press(report: Report) -> None:
        if report.step == 6:
            signal.raise_signal(signal.SIGINT)

    train_classifier(tiny(), pictures(), tmp_path / "whole", device="cpu")
    with pytest.raises(Interrupted, match=r"stopped after step 7 of 30.*--resume"):
        train_classifier(tiny(), pictures(), tmp_path / "parts", device="cpu", on_report=press)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    train_classifier(tiny(), pictures(), tmp_path / "parts", device="cpu", resume=True)
    assert digest(tmp_path / "parts") == digest(tmp_path / "whole")


def test_going_on_with_other_pictures_is_refused(tmp_path: Path) -> None:
    train_classifier(tiny(images=32), pictures(), tmp_path, device="cpu")
    whole = pictures()
    for other, said in (
        (InMemory(whole.pixels[:29], whole.labels[:29], whole.label_names), "pictures: 30 there, 29 here"),  # type: ignore[index]
        (
            InMemory(whole.pixels, whole.labels, ("dark", "grey", "white")),
            r"classes: \['dark', 'grey', 'bright'\] there",
        ),
    ):
        with pytest.raises(SettingError, match=said):
            train_classifier(tiny(images=32), other, tmp_path, device="cpu", resume=True)


@pytest.mark.parametrize(
    ("section", "setting", "value"),
    [
        ("objective", "loss", "hybrid"),
        ("objective", "weighting", "min-snr"),
        ("objective", "times", "score-norm"),
        ("process", "parameterisation", "eps"),
        ("process", "clock", "time"),
        ("training", "snapshots_every", 10),
        ("training", "sample_every", 10),
        ("sampling", "sampler", "ddim"),
        ("sampling", "guidance", 2.0),
    ],
)
def test_a_setting_that_means_nothing_to_a_classifier_is_refused(section: str, setting: str, value: object) -> None:
    content = tiny().model_dump()
    recipe = build_recipe({**content, section: {**content[section], setting: value}}, "the test's recipe")
    with pytest.raises(SettingError, match=rf"{section}\.{setting} means nothing to a classifier"):
        new_classifier(recipe, pictures())


@pytest.mark.training
def test_it_learns_to_read_clean_pictures_and_is_less_sure_of_noise(tmp_path: Path) -> None:
    folder = train_classifier(tiny(images=1200, ema=0.9), pictures(), tmp_path / "run", device="cpu")
    classifier = load_classifier_bundle(folder).classifier()
    x = to_float(pictures().read(range(30)))
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    with torch.no_grad():
        asked = [classifier.process.diffuse(x, noise, one.expand(30)) for one in t]
        scores = [classifier.log_probabilities(seen, one.expand(30)) for seen, one in zip(asked, t, strict=True)]
    right = [float(one.gather(1, pictures().labels[:, None]).exp().mean()) for one in scores]  # type: ignore[index]
    assert bool((scores[0].argmax(1) == pictures().labels).all())
    assert right[0] > 0.6
    assert right[-1] < 0.45  # one in three is guessing


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (tiny(label_dropout=0.1), "label_dropout to 0"),
        (tiny(precision="bf16"), "in fp32"),
        (build_recipe({**tiny().model_dump(), "data": {"labels": False}}, "here"), "trained on labels"),
        (
            build_recipe({**tiny().model_dump(), "network": {"channels": [8] * 5, "groups": 4}}, "here"),
            "multiple of 16",
        ),
    ],
)
def test_a_recipe_that_no_classifier_can_be_trained_by_is_refused(recipe: Recipe, said: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=said):
        train_classifier(recipe, pictures(), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_whole_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        load_classifier_bundle(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"neblina\.json is missing"):
        load_classifier_bundle(tmp_path)
    save_classifier(new_classifier(tiny(), pictures()), tmp_path / "classifier")
    assert load_classifier_bundle(tmp_path / "classifier").label_names == ("dark", "grey", "bright")
    weights = tmp_path / "classifier" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        load_classifier_bundle(tmp_path / "classifier")
    (tmp_path / "model" / "unet").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="is a model, not a classifier"):
        load_classifier_bundle(tmp_path / "model")
