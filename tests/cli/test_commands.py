"""The commands as a user types them, right and wrong."""

import json
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from models import small_bundle, small_classifier
from PIL import Image
from typed import Typed

from neblina.bundle.classifier import load_classifier_bundle, save_classifier
from neblina.bundle.folder import load_bundle, save_bundle

TINY = [
    "--network.channels", "8", "16", "--network.groups=4", "--network.blocks=1",
    "--training.images=128", "--training.batch=32", "--training.sample-every=0",
]  # fmt: skip


@pytest.mark.parametrize(
    "statement", ["import neblina", "import neblina.cli.main", "from neblina.training.recipe import Recipe"]
)
def test_nothing_heavy_is_imported_before_it_is_used(statement: str) -> None:
    heavy = ("torch", "transformers", "diffusers", "scipy", "sklearn", "matplotlib", "accelerate", "numpy")
    code = f"{statement}\nimport sys\nprint([name for name in {heavy!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_help_lists_the_commands_without_torch() -> None:
    code = (
        "import sys\nfrom neblina.cli.main import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\nprint('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for command in ("demo", "train", "generate", "evaluate", "info"):
        assert command in out
    assert out.endswith("False\n")


def test_train_help_lists_every_setting_of_the_recipe(typed: Typed) -> None:
    out = typed("train", "--help")
    for setting in ("--optimizer.lr", "--data.holdout", "--process.schedule", "--training.precision", "--resume"):
        assert setting in out


@pytest.mark.slow
def test_train_generate_and_info_from_a_zip_of_pictures(tmp_path: Path, typed: Typed) -> None:
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for number in range(20):
            Image.new("RGB", (8, 8), (number * 12, 0, 0)).save(tmp_path / "one.png")
            archive.write(tmp_path / "one.png", f"{'cat' if number % 2 else 'dog'}/{number}.png")
    typed("train", "pets.zip", *TINY)
    run = tmp_path / "runs" / "pets"
    assert load_bundle(run / "model").label_names == ("cat", "dog")
    assert (run / "loss.png").exists()
    done = typed("generate", str(run / "model"), "--label", "cat", "-n", "3", "--steps", "2")
    assert "sheet.png" in done
    assert len(list((tmp_path / "generated").glob("0-*.png"))) == 3
    facts = json.loads(typed("info", str(run / "model"), "--as-json"))
    assert facts["labels"] == ["cat", "dog"]
    assert facts["recipe"]["training"]["images"] == 128
    assert "cat" in typed("info", str(run / "model"))


def test_settings_given_on_the_command_line_reach_the_recipe(tmp_path: Path, typed: Typed) -> None:
    typed(
        "train", "digits", *TINY, "--optimizer.lr", "3e-4",
        "--seed", "5", "--dtype", "bf16", "--process.settings.steps", "100", "--sampling.steps", "10",
        "--out", str(tmp_path / "run"), "--device", "cpu",
    )  # fmt: skip
    recipe = load_bundle(tmp_path / "run" / "model").card["recipe"]
    assert recipe["optimizer"]["lr"] == 3e-4
    assert recipe["optimizer"]["decay"] == "linear"  # the recipe's own, kept
    assert recipe["training"]["seed"] == 5
    assert recipe["training"]["precision"] == "bf16"
    assert recipe["process"]["settings"] == {"steps": 100}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "digit"], "Did you mean digits"),
        (["train", "digits", "--process.schedule", "cosin", "--out", "x"], "Did you mean cosine"),
        (["train", "digits", "--device", "tpu0", "--out", "x"], "tpu0"),
        (["train", "."], "holds no pictures"),
        (["generate", "runs/nothing/there"], "is not there"),
        (["info", "."], "is missing"),
    ],
)
def test_a_mistake_is_one_sentence_with_the_fix(words: list[str], said: str, refused: Typed) -> None:
    assert said in refused(*words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "digits", "--optimizer.lrr", "1"], "Did you mean --optimizer.lr?"),
        (["train", "digits", "--optimizer.lr", "-1"], "lr"),
        (["train", "digits", "--training.precision", "fp17"], "fp17"),
        (["genrate", "x"], "generate"),
    ],
)
def test_what_is_no_command_or_option_is_said_with_what_is_near(words: list[str], said: str, typed: Typed) -> None:
    assert said in typed(*words, ends=2)


@pytest.mark.slow
@pytest.mark.training
def test_ctrl_c_saves_says_how_to_go_on_and_it_goes_on(tmp_path: Path, refused: Typed) -> None:
    words = [
        "train",
        "digits",
        *(word for word in TINY if "images" not in word),
        "--training.images=64000",
        "--training.log-every=1",
        "--out",
        "run",
        "--device",
        "cpu",
    ]
    command = [sys.executable, "-m", "neblina.cli.main", *words]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "log.jsonl").exists() or (tmp_path / "run" / "log.jsonl").stat().st_size < 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "everything is saved. Go on with the same command and --resume" in said
    step = int(said.split("stopped after step ")[1].split()[0])
    assert (tmp_path / "run" / "checkpoints" / f"step-{step:08d}").exists()
    assert "holds a run already. Pass --resume" in refused(*words)
    changed = refused(*words, "--resume", "--training.ema", "0.5")
    assert "training.ema: 0.995 there, 0.5 here" in changed


def test_a_recipe_file_with_a_mistake_names_the_line(tmp_path: Path, refused: Typed) -> None:
    (tmp_path / "cats.yaml").write_text("name: cats\noptimizer:\n  warmup: 10\n  learning_rte: 1.0e-3\n")
    said = refused("train", "cats.yaml")
    assert "cats.yaml" in said
    assert "line 4: optimizer.learning_rte is not a setting" in said


def test_generating_too_many_steps_or_a_wrong_label_is_refused(tmp_path: Path, refused: Typed) -> None:
    save_bundle(small_bundle(classes=3), tmp_path / "model")
    assert "1001 steps are more than" in refused("generate", "model", "--label", "0", "--steps", "1001")
    assert "label 9 is out of range" in refused("generate", "model", "--label", "9")
    assert "Did you mean heun" in refused("generate", "model", "--label", "1", "--sampler", "hun")


def test_the_same_seed_writes_the_same_files(tmp_path: Path, typed: Typed) -> None:
    torch.manual_seed(0)
    save_bundle(small_bundle(classes=3), tmp_path / "model")
    for out in ("one", "two"):
        typed("generate", "model", "--label", "1", "-n", "2", "--out", out)
    for file in ("0-00000.png", "0-00001.png", "sheet.png"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.slow
def test_an_average_of_any_length_is_made_after_training(tmp_path: Path, typed: Typed, refused: Typed) -> None:
    recipe = ["--objective.times", "score-norm", "--objective.loss", "hybrid", "--training.snapshots-every", "1"]
    typed("train", "digits", *TINY, *recipe, "--out", "run")
    done = typed("average", "run", "--length", "0.08", "--out", "averaged")
    assert "from 4 snapshots, the profile of length 0.08 missed by" in done
    wanted = ["--label", "3", "-n", "1", "--sampler", "ddpm_learned", "--steps", "2"]
    typed("generate", "averaged", *wanted)
    assert "share of the training" in refused("average", "run", "--length", "0.5", "--out", "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_guidance_has_its_options_and_refuses_what_cannot_be(tmp_path: Path, typed: Typed, refused: Typed) -> None:
    save_bundle(small_bundle(classes=3, schedule="cosine"), tmp_path / "model")
    save_bundle(small_bundle(classes=3, schedule="cosine", seed=3), tmp_path / "weaker")
    save_classifier(small_classifier(), tmp_path / "classifier")
    asked = ["generate", "model", "--label", "1", "--steps", "3", "--guidance", "2"]
    guided = [
        "--guidance-interval", "0.3", "3", "--guidance-rescale", "0.5", "--threshold", "0.99", "--autoguidance",
        "weaker", "--classifier", "classifier", "--classifier-scale", "2",
    ]  # fmt: skip
    typed(*asked, *guided)
    assert "upside down" in refused(*asked, "--guidance-interval", "3", "0.3")
    assert "is a model, not a classifier" in refused(*asked, "--classifier", "weaker")
    assert "is missing" in refused(*asked, "--autoguidance", "classifier")


@pytest.mark.training
@pytest.mark.slow
def test_a_classifier_trains_by_its_recipe(tmp_path: Path, typed: Typed, refused: Typed) -> None:
    done = typed("train", "digits-classifier", *TINY, "--out", "run", "--device", "cpu")
    assert load_classifier_bundle(tmp_path / "run" / "model").label_names == tuple("0123456789")
    assert (tmp_path / "run" / "loss.png").exists()
    assert "--classifier" in done
    assert "training.label_dropout to 0" in refused("train", "digits", *TINY, "--kind", "classifier", "--out", "other")


@pytest.mark.slow
def test_evaluate_says_the_numbers_and_where_they_are(tmp_path: Path, typed: Typed, refused: Typed) -> None:
    save_bundle(small_bundle(classes=2, schedule="cosine", parameterisation="v"), tmp_path / "model")
    for name in ("0", "1"):
        (tmp_path / "held" / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (8, 8), (number * 80, 90, 0)).save(tmp_path / "held" / name / f"{number}.png")
    words = ["evaluate", "model", "--data", "held", "--terms", "2", "--tolerance", "0.1"]
    done = typed(*words, "--metrics", "nll")
    for said in (
        "6 of 6: the pictures of held",
        "variational bound",
        "2 of 999 steps",
        "ODE",
        "nll.png",
        "metrics.json",
    ):
        assert said in done
    nll = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())["nll"]
    assert f"{nll['ode']['total']['bits']:.4f}" in done
    assert "Did you mean nll" in refused(*words, "--metrics", "nlll")
    assert "no pictures were held out" in refused("evaluate", "model")
    assert "terms 1000 is not 1" in refused("evaluate", "model", "--data", "held", "--terms", "1000")
    (tmp_path / "held" / "1" / "2.png").write_bytes(b"no picture")
    assert "pass --skip-bad" in refused(*words)
    some = typed(*words, "--skip-bad")
    assert "5 of 5: the pictures of held" in some
    assert "2.png" in some


@pytest.mark.slow
def test_ctrl_c_while_evaluating_reports_what_was_done(tmp_path: Path) -> None:
    save_bundle(small_bundle(schedule="cosine", parameterisation="v"), tmp_path / "model")
    (tmp_path / "held").mkdir()
    for number in range(500):
        Image.new("RGB", (8, 8), (number // 2, 90, 0)).save(tmp_path / "held" / f"{number}.png")
    words = ["evaluate", "model", "--data", "held", "--method", "bound", "--steps", "100", "--batch", "1"]
    command = [sys.executable, "-m", "neblina.cli.main", *words]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(20)  # nothing is said before the end: started, and far from done
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    done = int(said.split("stopped after ")[1].split()[0])
    assert json.loads((tmp_path / "evaluation" / "metrics.json").read_text())["nll"]["pictures"] == done


def test_samplers_are_listed_and_measured(typed: Typed, refused: Typed) -> None:
    listed = typed("samplers")
    assert "dpmpp_2m" in listed
    assert "euler_ancestral" in listed
    card, _ = json.JSONDecoder().raw_decode(typed("samplers", "ddim", "heun", "--json"))  # progress stands behind it
    assert [row["name"] for row in card] == ["ddim", "heun"]
    assert card[1]["order_claimed"] == 2
    assert abs(card[1]["order_measured"] - 2) < 0.1
    assert card[0]["std_error"]["N(0, 0.3²)"]["20"] < 0.1
    assert "N(0, 0.3²)" in typed("samplers", "ddim", "--card")
    assert "Did you mean ddim" in refused("samplers", "dim")


@pytest.mark.slow
def test_a_walk_is_asked_for_by_tolerance_settings_schedule_and_start(
    tmp_path: Path, typed: Typed, refused: Typed
) -> None:
    save_bundle(small_bundle(classes=3, schedule="cosine", parameterisation="v"), tmp_path / "model")
    tolerant = ["generate", "model", "--label", "1", "--sampler", "adaptive", "--tolerance", "0.1"]
    typed(*tolerant)
    assert "chooses its own steps" in refused(*tolerant, "--steps", "3")
    asked = ["generate", "model", "--label", "1", "--steps", "3"]
    for words in (
        ["--sampler", "edm_stochastic", "--set", "churn=2e1", "--set", "churn-noise=1.0"],
        ["--schedule", "flow"],
        ["--start", "generated/0-00000.png", "--t-start", "0.5", "-n", "2"],
        ["--t-end", "0.2"],
    ):
        typed(*asked, *words)
    for words in ("churn", "churn=["):
        assert "is not name=number" in refused(*asked, "--set", words)
    assert "give some to start from" in refused(*asked, "--t-start", "0.5")
    assert "missing.png does not exist" in refused(*asked, "--start", "missing.png")


def test_a_long_list_is_shown_by_its_beginning_and_whole_as_json(tmp_path: Path, typed: Typed) -> None:
    words = [f"word{number}" for number in range(2500)]
    save_bundle(replace(small_bundle(), card={"words": words}), tmp_path / "model")
    shown = " ".join(typed("info", "model").split())
    assert "word0, word1" in shown
    assert "word20" not in shown
    assert "2,500 in all" in shown
    assert json.loads(typed("info", "model", "--as-json"))["words"] == words
