"""Captions say what the metadata say, in the shares of their table."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from neblina.core.errors import DataError
from neblina.data.captions import Caption, captions_of, words_of
from neblina.data.pictures import InMemory

APPLE = Caption("red apple", ("fruit", "ripe", "health"), "food & drink")


def drawn(caption: Caption, count: int = 4000, style: str = "") -> list[str]:
    generator = np.random.default_rng(0)
    return [caption.draw(generator, style) for _ in range(count)]


def test_the_forms_come_in_their_shares() -> None:
    def form(text: str) -> int:
        parts = text.split(", ")
        if parts[0] != "red apple":
            return 2
        return 0 if len(parts) == 1 else 3 if parts[1] == "food & drink" else 1

    counts = np.bincount([form(text) for text in drawn(APPLE)], minlength=4)
    assert chisquare(counts, 4000 * np.array([0.5, 0.25, 0.15, 0.1])).pvalue > 1e-3


def test_the_words_of_a_style_stand_at_the_end() -> None:
    assert all(text.endswith(", pencil sketch") for text in drawn(APPLE, 50, "pencil sketch"))


def test_a_picture_with_nothing_but_a_name_is_called_by_it() -> None:
    assert set(drawn(Caption("a cat"), 200)) == {"a cat"}


def test_a_tone_of_skin_can_be_said_without_the_name() -> None:
    record = {"text": "man: dark skin tone", "keywords": ["adult"], "skin_tones": ["dark"]}
    (caption,) = captions_of(InMemory(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), records=(record,)))
    assert "dark skin tone" in drawn(caption)


def test_keywords_are_a_list_or_a_text_between_commas() -> None:
    records = ({"text": "a", "keywords": ["fruit", "ripe"]}, {"text": "a", "keywords": "fruit, ripe,"}, {"text": "a"})
    captions = captions_of(InMemory(torch.zeros(3, 3, 2, 2, dtype=torch.uint8), records=records))
    assert [caption.keywords for caption in captions] == [("fruit", "ripe"), ("fruit", "ripe"), ()]


def test_everything_that_is_said_is_among_what_the_tokenizer_learns_from() -> None:
    parts = set(APPLE.everything())
    assert all(set(text.split(", ")) <= parts for text in drawn(APPLE, 200))


def test_pictures_without_a_caption_are_counted_and_named() -> None:
    pixels = torch.zeros(3, 3, 2, 2, dtype=torch.uint8)
    records = ({"file_name": "a.png", "text": "a"}, {"file_name": "b.png"}, {"file_name": "c.png", "text": " "})
    with pytest.raises(DataError, match=r"2 of 3 pictures have no caption.*b\.png, c\.png.*--skip-bad"):
        captions_of(InMemory(pixels, records=records))
    many = tuple({"file_name": f"{number}.png"} for number in range(1200))
    with pytest.raises(DataError, match=r"1,200 of 1,200 .*: 0\.png, .*4\.png and 1,195 more\. Caption them\.$"):
        captions_of(InMemory(torch.zeros(1200, 1, 1, 1, dtype=torch.uint8), records=many))
    with pytest.raises(DataError, match=r"apple\.txt beside.*metadata\.jsonl"):
        captions_of(InMemory(pixels))


def test_words_are_in_lower_case_and_without_signs() -> None:
    assert words_of("Man: medium-light Skin, 2 cats!") == ["man", "medium", "light", "skin", "2", "cats"]
