"""Captions of pictures, drawn anew whenever a picture is seen, from what its metadata say: name, keywords, group.

| form | share | of "red apple" |
| --- | --- | --- |
| the name | 50 % | red apple |
| the name with keywords | 25 % | red apple, fruit, ripe |
| keywords alone | 15 % | ripe, fruit, health |
| the name with its group | 10 % | red apple, food & drink |

A tone of skin is said with keywords too, since they do not name it; the words of a style stand at the end. Where there
is nothing but a name, it is the caption.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neblina.core.errors import DataError
from neblina.data.pictures import Pictures, Record

_NAMED, _WITH_KEYWORDS, _KEYWORDS = 0.5, 0.75, 0.9  # shares, cumulated
_MOST = 4  # keywords in a caption


@dataclass(frozen=True)
class Caption:
    """What can be said of a picture."""

    name: str
    keywords: tuple[str, ...] = ()
    group: str = ""

    def draw(self, generator: np.random.Generator, style: str = "") -> str:
        """One of the forms, with the words of a style."""
        form = generator.random()
        parts = [self.name]
        if self.keywords and _NAMED <= form < _KEYWORDS:
            count = int(generator.integers(1, min(_MOST, len(self.keywords)) + 1))
            chosen = [self.keywords[at] for at in generator.permutation(len(self.keywords))[:count]]
            parts = chosen if form >= _WITH_KEYWORDS else [self.name, *chosen]
        elif self.group and form >= _KEYWORDS:
            parts = [self.name, self.group]
        return ", ".join([*parts, style] if style else parts)

    def everything(self) -> Iterator[str]:
        """All that it can say, a part at a time."""
        yield self.name
        yield from self.keywords
        if self.group:
            yield self.group


def draw_captions(
    captions: Sequence[Caption], styles: Sequence[str], hidden: float, generator: np.random.Generator
) -> list[str]:
    """One of the forms of each, with the words of its style; a share `hidden` of them is empty."""
    texts = []
    for caption, style in zip(captions, styles, strict=True):
        said = caption.draw(generator, style)
        texts.append("" if generator.random() < hidden else said)
    return texts


def captions_of(pictures: Pictures) -> list[Caption]:
    """What can be said of each picture.

    Raises:
        DataError: pictures without a caption, counted and the first of them named.
    """
    records = pictures.records
    if records is None:
        raise DataError(
            "a model that reads text is trained on captioned pictures, and these have none: put apple.txt beside "
            "apple.png with what it shows, or beside all of them a metadata.jsonl, a line a picture, such as "
            '{"file_name": "apple.png", "text": "a red apple"}'
        )
    missing = uncaptioned(records)
    if missing:
        instead = ", or pass --skip-bad to leave them out" if len(missing) < len(records) else ""
        raise DataError(
            f"{len(missing):,} of {len(records):,} pictures have no caption (text in metadata.jsonl, or a text file "
            f"beside the picture): {called(records, missing)}. Caption them{instead}."
        )
    return [_caption(record) for record in records]


def uncaptioned(records: Sequence[Record]) -> list[int]:
    """Which pictures nothing is said of."""
    return [number for number, record in enumerate(records) if not str(record.get("text") or "").strip()]


def called(records: Sequence[Record], numbers: Sequence[int]) -> str:
    """The files of some pictures, the first five by name."""
    named = ", ".join(str(records[number].get("file_name", number)) for number in numbers[:5])
    return named + (f" and {len(numbers) - 5:,} more" if len(numbers) > 5 else "")


def _caption(record: Record) -> Caption:
    tones, keywords = _listed(record.get("skin_tones")), _listed(record.get("keywords"))
    said = [*keywords, f"{' and '.join(tones)} skin tone"] if tones and keywords else keywords
    return Caption(str(record["text"]).strip(), tuple(said), str(record.get("group") or ""))


def _listed(value: Any) -> list[str]:
    """A list of words, or those of a text between commas."""
    words = value.split(",") if isinstance(value, str) else value or ()
    return [word for word in (str(one).strip() for one in words) if word]


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()
