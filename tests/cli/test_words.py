"""Which of the words on a command line is the model; where none is, the model of the package makes the pictures."""

from pathlib import Path

import pytest
from PIL import Image
from typed import Typed

from neblina.bundle.sources import DEFAULT, names_a_model
from neblina.cli.models import model_before, model_first
from neblina.core.errors import SettingError


def test_it_is_taken_where_no_model_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("photo.png")
    (tmp_path / "mine").mkdir()
    assert model_first(("red apple", None)) == (DEFAULT, "red apple")
    assert model_first((None, None)) == (DEFAULT, None)
    assert model_first(("", None)) == (DEFAULT, "")  # the empty prompt, and not this folder
    for word in ("mine", "runs/emoji/model", "model.safetensors", "owner/name", DEFAULT):
        assert names_a_model(word)
        assert model_first((word, None)) == (word, None)
    assert model_first(("anything", "red apple")) == ("anything", "red apple")
    assert model_before(1, ("photo.png", "red apple", None)) == (DEFAULT, "photo.png", "red apple")
    assert model_before(1, ("mine", "photo.png", None)) == ("mine", "photo.png", None)
    assert model_before(1, ("mine", "photo.png", "red apple")) == ("mine", "photo.png", "red apple")
    assert model_before(2, ("photo.png", "mask.png", None, None)) == (DEFAULT, "photo.png", "mask.png", None)
    assert model_before(2, ("a.png", "b.png", "red apple", None)) == (DEFAULT, "a.png", "b.png", "red apple")
    with pytest.raises(SettingError, match="1 picture is needed"):
        model_before(1, ("mine", None, None))
    with pytest.raises(SettingError, match="2 pictures are needed"):
        model_before(2, ("photo.png", None, None, None))


def test_words_are_all_that_generate_needs(typed: Typed, tmp_path: Path) -> None:
    said = typed("generate", "red apple", "--steps", "2")
    assert "generate: 1 picture" in said
    with Image.open(tmp_path / "generated" / "0-00000.png") as picture:
        assert picture.size == (64, 64)


def test_words_it_never_read_are_said(typed: Typed) -> None:
    assert "knows none of the words of 'qwxyz'" in " ".join(typed("generate", "qwxyz", "--steps", "2").split())


def test_the_other_verbs_need_no_model_either(typed: Typed, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "white").save(tmp_path / "photo.png")
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (16, 16, 48, 48))
    mask.save(tmp_path / "mask.png")
    short = ("--steps", "2")
    assert "edit: 1 picture" in typed("edit", "photo.png", "red apple", *short)
    assert "inpaint: 1 picture" in typed("inpaint", "photo.png", "mask.png", "red apple", *short)
    assert "panorama: 1 picture" in typed("panorama", "red apple", "pizza", "--size", "128x64", *short)
    assert "compose: 1 picture" in typed("compose", "snacks", *short)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("generate", "runs/nothing/model"), "is not there"),
        (("inpaint",), "2 pictures are needed"),
        (("compose",), "a scene is needed"),
        (("generate", "red apple", "--label", "3"), "is conditioned on text, not on labels"),
    ],
)
def test_what_is_missing_is_said(words: tuple[str, ...], sentence: str, refused: Typed) -> None:
    assert sentence in " ".join(refused(*words).split())
