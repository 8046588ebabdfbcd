"""Models of tokens as they are typed: trained on a text, asked for texts and pictures, refused in words."""

from pathlib import Path

import pytest
import torch
from models import small_bundle
from typed import Typed, typed_in

import neblina
from neblina.bundle.folder import save_bundle
from neblina.bundle.tokens import TokenBundle, TokenSampling, save_token_bundle
from neblina.codecs.levels import Levels
from neblina.core.errors import CheckpointError
from neblina.nets.token_config import SequenceTransformerConfig
from neblina.nets.token_transformer import TokenTransformer
from neblina.processes.kernels import uniform

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Commands in a folder that holds a model of black and white pixels, in this process."""
    torch.manual_seed(0)
    config = SequenceTransformerConfig(3, (6, 6), 2, 8, 1, num_embeds_ada_norm=10, num_class_embeds=3)
    net = TokenTransformer(config).eval()
    sampling = TokenSampling(steps=5, guidance=2.0)
    bundle = TokenBundle(net, uniform(2), 10, Levels(2), label_names=("off", "on"), null_label=2, sampling=sampling)
    save_token_bundle(bundle, tmp_path / "pixels")
    return typed_in(tmp_path, monkeypatch, capsys)


_SMALL = ("--tokens.length", "8", "--tokens.layers", "1", "--tokens.width", "32", "--tokens.steps", "10")
_SHORT = ("--tokens.evaluations", "5", "--training.images", "64", "--training.batch", "8")


def test_a_text_file_becomes_a_model_of_its_letters(
    typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").write_text("to be or not to be. " * 30)
    monkeypatch.setattr("neblina.cli.progress._EVERY", 0.0)
    said = typed("train", "notes.txt", *_SMALL, *_SHORT, "--device", "cpu")
    assert "bits a letter" in said
    assert "training notes: 8 of 8  " in said  # no terminal, no bar: lines
    assert "16 of 23  measuring the likelihood" in said
    assert (tmp_path / "runs" / "notes" / "loss.png").exists()
    said = typed("generate", "runs/notes/model", "-n", "2", "--steps", "3", "--out", "texts")
    texts = (tmp_path / "texts" / "texts.txt").read_text().rstrip("\n").split("\n\n")
    assert [len(text) for text in texts] == [8, 8]
    assert texts[0] in said
    assert "letters of" not in typed("info", "runs/notes/model")
    typed("train", "notes.txt", *_SMALL, *_SHORT, ends=1)  # it is there


def test_pictures_of_tokens_carry_their_recipe_and_are_made_again(typed: Typed, tmp_path: Path) -> None:
    said = typed("generate", "pixels", "--label", "on", "-n", "3", "--seed", "7", "--out", "a", "--device", "cpu")
    assert "3 pictures in" in said
    assert (tmp_path / "a" / "sheet.png").exists()
    said = typed("reproduce", "a/7-00002.png", "--out", "b")
    assert "the same picture, to the byte" in said
    assert '"truncation": 1.0' in typed("info", "a/7-00002.png")
    facts = typed("info", "pixels")
    assert "uniform" in facts
    assert "off" in facts


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("generate", "pixels", "a cat"), "reads no text"),
        (("generate", "pixels", "--steps", "11"), "trained on 10 steps"),
        (("generate", "pixels", "--truncation", "0"), "in (0, 1]"),
        (("generate", "pixels", "--sampler", "purity"), "has no mask"),
        (("generate", "pixels", "--label", "offf"), "Did you mean off?"),
        (("generate", "pixels", "--grid", "uniform"), "grid"),
        (("generate", "pixels", "--dtype", "bf16"), "dtype has no effect"),
        (("generate", "pixels", "--animation"), "models of pictures"),
        (("upscale", "pixels", "a.png", "--factor", "2"), "cannot upscale"),
        (("train", "empty.txt"), "is empty"),
        (("train", "same.txt"), "one letter over and over"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    typed: Typed, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "same.txt").write_text("aaaa" * 200)
    said = typed(*words, ends=1)
    assert message in " ".join(said.split())
    assert "Traceback" not in said


def test_the_other_way_of_opening_says_which_is_right(typed: Typed, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"neblina\.load_tokens"):
        neblina.load(tmp_path / "pixels")
    save_bundle(small_bundle(), tmp_path / "pictures")
    with pytest.raises(CheckpointError, match=r"neblina\.load$"):
        neblina.load_tokens(tmp_path / "pictures")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"model_index\.json is missing"):
        neblina.load_tokens(tmp_path / "empty")


def test_a_check_finds_a_whole_model_whole_and_names_what_is_missing(typed: Typed, tmp_path: Path) -> None:
    assert "problem" not in typed("check", "pixels")
    (tmp_path / "pixels" / "transformer" / "config.json").unlink()
    assert "is missing" in " ".join(typed("check", "pixels", ends=1).split())


def test_what_there_is_to_do_is_said_before_it_is_done(typed: Typed, tmp_path: Path) -> None:
    begun: list[int | None] = []
    done: list[int] = []
    model = neblina.load_tokens(tmp_path / "pixels", device="cpu")
    model.generate(
        labels=[0, 1], n=3, steps=4, batch=2, on_begin=begun.append, on_step=lambda step: done.append(len(step.query.x))
    )
    assert begun == [12] == [sum(done)]
