"""Measuring a model: on the right pictures, with their labels, and what is left behind."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from models import CONFIG, small_bundle
from PIL import Image

from neblina.core.errors import DataError, SettingError
from neblina.data.holding import split
from neblina.data.sources import digits
from neblina.evaluation.likelihood import How
from neblina.nets.unet import UNet, UNetConfig
from neblina.tasks.evaluate import evaluate
from neblina.tasks.held import open_held
from neblina.tasks.loading import load
from neblina.tasks.model import Model
from neblina.tasks.train import train_recipe
from neblina.training.recipe import load_recipe

CPU = torch.device("cpu")
QUICK = How(batch=3, terms=3, tolerance=0.1)


def digits_model(*, null: bool = True, holdout: float = 0.2, classes: int = 10) -> Model:
    """A random network as a model of digits."""
    bundle = small_bundle(classes=classes, schedule="cosine", parameterisation="v", null=null)
    net = UNet(UNetConfig(**{**CONFIG, "in_channels": 1, "out_channels": 1}, num_class_embeds=classes + null or None))
    recipe = load_recipe("digits", {"data": {"holdout": holdout}}).model_dump(mode="json")
    return Model(replace(bundle, net=net.eval(), card={"recipe": recipe}), CPU)


def grey(folder: Path, names: tuple[str, ...], side: int = 8) -> str:
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(3):
            levels = np.full((side, side), 40 * number, dtype=np.uint8)
            Image.fromarray(levels).save(folder / name / f"{number}.png")
    return str(folder)


def test_without_a_source_it_is_what_training_did_not_see() -> None:
    model = digits_model()
    recipe = load_recipe("digits")
    _, held = split(digits(), recipe.data.holdout, recipe.training.seed)
    for source in (None, "digits"):  # naming the recipe's own source changes nothing
        opened = open_held(model, source, None, 0)
        assert sorted(opened.numbers) == list(range(len(held)))
        assert torch.equal(opened.pictures.read(range(len(held))), held.read(range(len(held))))
        assert opened.labels is not None
        assert held.labels is not None
        assert torch.equal(opened.labels, held.labels[opened.numbers])
        assert opened.words == "359 of 359: the pictures of digits held out of training, given their labels"


def test_a_count_is_a_random_choice_that_the_seed_decides() -> None:
    model = digits_model()
    one, same, other = (open_held(model, None, 20, seed).numbers for seed in (0, 0, 1))
    assert one == same
    assert len(set(one)) == 20
    assert set(one) != set(other)
    assert one == open_held(model, None, None, 0).numbers[:20]


def test_pictures_that_training_saw_are_called_so() -> None:
    assert "which the model was trained on" in open_held(digits_model(holdout=0.0), "digits", 5, 0).words
    with pytest.raises(SettingError, match=r"no pictures were held out of .* --data"):
        open_held(digits_model(holdout=0.0), None, 5, 0)
    with pytest.raises(SettingError, match="no pictures were held out"):
        open_held(Model(small_bundle(), CPU), None, 5, 0)


def test_a_folder_that_changed_since_training_no_longer_tells_what_was_held_out(tmp_path: Path) -> None:
    source = grey(tmp_path / "pictures", ("3", "7"))
    settings = {"data": {"holdout": 0.5}, "network": {"channels": [8, 16], "groups": 4, "blocks": 1}}
    settings["training"] = {"images": 8, "batch": 8, "sample_every": 0}
    model = load(train_recipe(load_recipe(source, settings), tmp_path / "run", device="cpu"), device="cpu")
    assert len(open_held(model, None, None, 0).pictures) == 3
    assert "held out of training" in open_held(model, source, None, 0).words
    added = Image.new("L", (8, 8))
    for change, said in (
        (
            lambda: [added.save(tmp_path / "pictures" / "3" / f"new {number}.png") for number in range(2)],
            "3 to .* 4 now",
        ),
        (lambda: [(tmp_path / "pictures" / "7" / f"{number}.png").unlink() for number in range(2)], "as many, but"),
    ):
        change()
        for data in (None, source):
            with pytest.raises(DataError, match=rf"not the pictures that the model was trained on \({said}.*--data"):
                open_held(model, data, None, 0)


def test_bad_files_are_left_out_when_asked_to_be_and_named(tmp_path: Path) -> None:
    source = grey(tmp_path / "some", ("7", "3"))
    (tmp_path / "some" / "7" / "0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="pass --skip-bad"):
        evaluate(digits_model(), ["nll"], tmp_path / "out", data=source, how=QUICK)
    found = evaluate(digits_model(), ["nll"], tmp_path / "out", data=source, how=QUICK, skip_bad=True)
    assert found.words.startswith("5 of 5")
    (sentence,) = found.left_out
    assert "0.png" in sentence


def test_labels_go_by_name(tmp_path: Path) -> None:
    model = digits_model()
    source = grey(tmp_path / "some", ("7", "3"))
    opened = open_held(model, source, None, 0)
    assert opened.labels is not None
    assert sorted(opened.labels.tolist()) == [3, 3, 3, 7, 7, 7]
    with pytest.raises(DataError, match="do not fit the model: 'seven' is not a class of this model"):
        open_held(model, grey(tmp_path / "other", ("7", "seven")), None, 0)


def test_pictures_without_labels_need_a_model_that_can_go_without(tmp_path: Path) -> None:
    grey(tmp_path, ("one",))
    for file in (tmp_path / "one").iterdir():
        file.rename(tmp_path / file.name)
    (tmp_path / "one").rmdir()
    opened = open_held(digits_model(), str(tmp_path), None, 0)
    assert opened.labels is not None
    assert opened.labels.tolist() == [-1, -1, -1]
    assert opened.words.endswith("without labels")
    with pytest.raises(DataError, match="never learned to go without: it needs labelled data"):
        open_held(digits_model(null=False), str(tmp_path), None, 0)
    unconditional = replace(small_bundle(), net=digits_model().bundle.net)
    assert open_held(Model(unconditional, CPU), str(tmp_path), None, 0).labels is None


@pytest.mark.parametrize("method", ["bound", "ode", "both"])
def test_numbers_and_a_picture_of_them_are_written(tmp_path: Path, method: str) -> None:
    methods = ("bound", "ode") if method == "both" else (method,)
    found = evaluate(digits_model(), ["nll"], tmp_path / "out", count=4, how=replace(QUICK, methods=methods))
    content = json.loads(found.report.read_text())
    assert content["pictures"] == found.words
    nll = content["nll"]
    assert (nll["pictures"], nll["asked"]) == (4, 4)
    assert [name for name in ("bound", "ode") if nll[name] is not None] == list(methods)
    if nll["bound"] is not None:
        parts = sum(nll["bound"][part]["bits"] for part in ("prior", "steps", "reconstruction"))
        assert nll["bound"]["total"]["bits"] == pytest.approx(parts)
        assert (nll["bound"]["evaluated"], nll["bound"]["of"]) == (3, 999)
        assert any("3 of 999 steps" in sentence for sentence in found.results["nll"].sentences())
    with Image.open(found.pictures["nll"]) as picture:
        assert min(picture.size) > 300
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"metrics.json", "nll.png"}
    assert found.stopped is None


def test_stopped_it_writes_what_was_done_and_says_so(tmp_path: Path) -> None:
    def stop(done: float, total: int) -> None:
        if done > 4:
            raise KeyboardInterrupt

    found = evaluate(digits_model(), ["nll"], tmp_path, count=9, how=QUICK, on_progress=stop)
    assert found.stopped == "stopped after 3 of 9 pictures"
    nll = json.loads(found.report.read_text())["nll"]
    assert (nll["pictures"], nll["asked"]) == (3, 9)


def test_guidance_of_the_samples_does_not_touch_the_likelihood(tmp_path: Path) -> None:
    model = digits_model()
    guided = Model(replace(model.bundle, sampling=replace(model.bundle.sampling, guidance=3.0)), CPU)
    one, other = (
        evaluate(which, ["nll"], tmp_path / name, count=3, how=QUICK).results["nll"].to_dict()
        for which, name in ((model, "one"), (guided, "other"))
    )
    assert one == other


def test_a_mistake_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    model = digits_model()
    with pytest.raises(SettingError, match="Did you mean nll"):
        evaluate(model, ["nl"], tmp_path)
    with pytest.raises(SettingError, match="say what to measure: --metrics nll"):
        evaluate(model, [], tmp_path)
    with pytest.raises(SettingError, match="count is at least 1, not 0"):
        evaluate(model, ["nll"], tmp_path, count=0)
    with pytest.raises(DataError, match="the model makes pictures of 3x8x8, and those of digits are 1x8x8"):
        evaluate(Model(small_bundle(), CPU), ["nll"], tmp_path, data="digits")
    with pytest.raises(DataError, match="does not exist"):
        evaluate(model, ["nll"], tmp_path, data=str(tmp_path / "nothing"))
    assert not list(tmp_path.iterdir())
