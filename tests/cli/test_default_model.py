"""Commands whose model is left out say what is missing."""

import pytest
from typed import Typed

from neblina.bundle.sources import DEFAULT, packaged


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
