"""Which of the words on a command line is the model, and what is said where none is named."""

from pathlib import Path

import pytest
from PIL import Image
from typed import Typed

import neblina
from neblina.bundle.sources import DEFAULT, names_a_model, packaged, resolve
from neblina.cli.models import model_before, model_first
from neblina.core.errors import CheckpointError, SettingError


def test_it_is_taken_where_no_model_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("photo.png")
    (tmp_path / "mine").mkdir()
    assert model_first(("red apple", None)) == (DEFAULT, "red apple")
    assert model_first((None, None)) == (DEFAULT, None)
    for word in ("mine", "runs/emoji/model", "model.safetensors", "owner/name"):
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


def test_a_folder_of_its_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / DEFAULT).mkdir()
    assert resolve(DEFAULT) == Path(DEFAULT)


@pytest.mark.skipif(DEFAULT in packaged(), reason="this package carries a model")
def test_a_package_without_a_model_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="no model is named, and this version carries none"):
        neblina.load()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("generate", "runs/nothing/model"), "is not there"),
        (("inpaint",), "2 pictures are needed"),
        (("compose",), "a scene is needed"),
    ],
)
def test_what_is_missing_is_said(words: tuple[str, ...], sentence: str, refused: Typed) -> None:
    assert sentence in " ".join(refused(*words).split())


@pytest.mark.skipif(DEFAULT in packaged(), reason="this package carries a model")
@pytest.mark.parametrize(
    "words", [("generate", "red apple"), ("compose", "snacks"), ("panorama", "red apple", "--size", "128x64")]
)
def test_a_package_without_a_model_asks_for_one(words: tuple[str, ...], refused: Typed) -> None:
    assert "no model is named, and this version carries none" in " ".join(refused(*words).split())
