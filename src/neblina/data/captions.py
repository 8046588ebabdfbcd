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


def captions_of(pictures: Pictures) -> list[Caption]:
    """What can be said of each picture.

    Raises:
        DataError: pictures without a caption, counted and the first of them named.
    """
    records = pictures.records
    if records is None:
        raise DataError(
            "a model that reads text is trained on captioned pictures, and these have none: put a metadata.jsonl "
            'beside them, a line a picture, such as {"file_name": "apple.png", "text": "a red apple"}'
        )
    missing = uncaptioned(records)
    if missing:
        named = ", ".join(str(records[number].get("file_name", number)) for number in missing[:5])
        more = f" and {len(missing) - 5:,} more" if len(missing) > 5 else ""
        raise DataError(
            f"{len(missing):,} of {len(records):,} pictures have no caption (text in metadata.jsonl): {named}{more}. "
            "Caption them, or pass --skip-bad to leave them out."
        )
    return [_caption(record) for record in records]


def uncaptioned(records: Sequence[Record]) -> list[int]:
    """Which pictures nothing is said of."""
    return [number for number, record in enumerate(records) if not str(record.get("text") or "").strip()]


def _caption(record: Record) -> Caption:
    tones = record.get("skin_tones") or ()
    keywords = [str(word) for word in record.get("keywords") or ()]
    said = [*keywords, f"{' and '.join(tones)} skin tone"] if tones and keywords else keywords
    return Caption(str(record["text"]).strip(), tuple(said), str(record.get("group") or ""))


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()
