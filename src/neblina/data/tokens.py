"""Sets of rows of tokens: letters of a text, levels of pixels, codes of pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from neblina.core.errors import DataError


class Rows(Protocol):
    """Rows of tokens of one shape, with labels where the source has them.

    Attributes:
        shape: of every row: (length,), or (height, width).
        classes: K; tokens are 0 … K − 1.
        labels: class of each row, shape (N,), int64, or None.
        label_names: name of each class, in label order.
        alphabet: the letter that each token is; empty where they are none.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def classes(self) -> int: ...
    @property
    def labels(self) -> Tensor | None: ...
    @property
    def label_names(self) -> tuple[str, ...]: ...
    @property
    def alphabet(self) -> str: ...
    def __len__(self) -> int: ...

    def read(self, numbers: Sequence[int]) -> Tensor:
        """The rows of these numbers, int64 of shape (B, *shape)."""
        ...


@dataclass(frozen=True)
class Stacked:
    """Rows held as one tensor, shape (N, *), of any integer type."""

    tokens: Tensor
    classes: int
    labels: Tensor | None = None
    label_names: tuple[str, ...] = ()
    alphabet: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tokens.shape[1:])

    def __len__(self) -> int:
        return len(self.tokens)

    def read(self, numbers: Sequence[int]) -> Tensor:
        return self.tokens[list(numbers)].to(torch.int64)


@dataclass(frozen=True)
class Passages:
    """Passages of a text, one from every letter on.

    Attributes:
        text: what it says.
        length: letters of a passage.
        alphabet: the letters of the whole text, which this may be a part of.
    """

    text: str
    length: int
    alphabet: str
    labels: None = None
    label_names: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.length,)

    @property
    def classes(self) -> int:
        return len(self.alphabet)

    def __len__(self) -> int:
        return len(self.text) - self.length + 1

    @cached_property
    def tokens(self) -> Tensor:
        """The whole text, int64 of shape (letters,)."""
        places = {letter: number for number, letter in enumerate(self.alphabet)}
        return torch.tensor([places[letter] for letter in self.text])

    def read(self, numbers: Sequence[int]) -> Tensor:
        return torch.stack([self.tokens[start : start + self.length] for start in numbers])


def read_text(path: str | Path, length: int, held: float = 0.0) -> tuple[Passages, Passages | None]:
    """The passages of a text file, and those of its end, which is held out; None if nothing is.

    Args:
        length: letters of a passage.
        held: share of the text that is held out.
    Raises:
        DataError: not UTF-8, an empty text, one of a single letter, or one shorter than a passage.
    """
    try:
        text = Path(path).read_text("utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text in UTF-8: byte {error.start} is {error.object[error.start]:#x}") from error
    alphabet = "".join(sorted(set(text)))
    if not text:
        raise DataError(f"{path} is empty: there is nothing to learn")
    if len(alphabet) == 1:
        raise DataError(f"{path} holds one letter over and over, {alphabet!r}: there is nothing to learn")
    cut = len(text) - round(len(text) * held)
    if cut < length or (held and len(text) - cut < length):
        raise DataError(
            f"{path} holds {len(text):,} letters, of which {cut:,} are trained on, and a passage has {length}: give a "
            "longer text, or a smaller tokens.length"
        )
    rest = Passages(text[cut:], length, alphabet) if held else None
    return Passages(text[:cut], length, alphabet), rest
