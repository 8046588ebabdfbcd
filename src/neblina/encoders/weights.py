"""Weights inside a prompt: `a (red:1.3) boat`.

Only this explicit form is a weight; parentheses without a number stay text, and so do those that are written \\( and
\\). Weights nest and multiply: in `((small:1.2) boat:1.5)`, "small" weighs 1.8. A weighted token's vector e is moved
along the line from the vector e_∅ that the empty prompt has at its position:

    e_w = e_∅ + w (e − e_∅),    so that w = 1 changes nothing and w = 0 says nothing.
"""

import re
from dataclasses import dataclass

from neblina.core.errors import SettingError

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)\s*")
_MEANT_AS_NUMBER = re.compile(r"\s*([+-]?\.?\d|$)")
_CLOSED_NUMBER = re.compile(r":\s*[+-]?(\d+\.?\d*|\.\d+)\s*$")


@dataclass(frozen=True)
class Weighted:
    """A prompt without its markup.

    Attributes:
        text: what is said.
        weights: of each character of the text.
    """

    text: str
    weights: tuple[float, ...]


@dataclass
class _Open:
    """A parenthesis not closed yet: where it stands in the prompt and in the text, and its last colon in the text."""

    place: int
    start: int
    colon: int | None = None


def parse_weights(prompt: str) -> Weighted:
    """Take the weights out of a prompt.

    Raises:
        SettingError: a weight that is not a number, weighs nothing, or lacks a parenthesis; the place is quoted.
    """
    text: list[str] = []
    weights: list[float] = []
    opened: list[_Open] = []
    place = 0
    while place < len(prompt):
        letter = prompt[place]
        if letter == "\\" and prompt[place + 1 : place + 2] in ("(", ")"):
            text.append(prompt[place + 1])
            weights.append(1.0)
            place += 2
            continue
        if letter == ")" and opened:
            group = opened.pop()
            weight = _weight(prompt, place, group, text)
            if weight is not None and group.colon is not None:
                del text[group.colon :], weights[group.colon :]
                del text[group.start], weights[group.start]
                weights[group.start :] = [weight * each for each in weights[group.start :]]
                place += 1
                continue
        elif letter == ")" and _CLOSED_NUMBER.search("".join(text)):
            raise SettingError(
                f"the weight at {_quote(prompt, place)} lacks its opening parenthesis. Write (words:1.3), "
                r"or \) for a parenthesis that is text."
            )
        if letter == "(":
            opened.append(_Open(place, len(text)))
        elif letter == ":" and opened:
            opened[-1].colon = len(text)
        text.append(letter)
        weights.append(1.0)
        place += 1
    for group in opened:
        tail = None if group.colon is None else "".join(text[group.colon + 1 :])
        if tail and _MEANT_AS_NUMBER.match(tail):
            raise SettingError(
                f"the weight at {_quote(prompt, group.place)} lacks its closing parenthesis. Write (words:1.3), "
                r"or \( for a parenthesis that is text."
            )
    return Weighted("".join(text), tuple(weights))


def _weight(prompt: str, place: int, group: _Open, text: list[str]) -> float | None:
    """The weight that a group ends with, or None where its parentheses are text."""
    if group.colon is None:
        return None
    tail = "".join(text[group.colon + 1 :])
    if _NUMBER.fullmatch(tail):
        if not "".join(text[group.start + 1 : group.colon]).strip():
            raise SettingError(f"the weight at {_quote(prompt, group.place)} weighs no words")
        return float(tail)
    if _MEANT_AS_NUMBER.match(tail):
        raise SettingError(
            f"{tail.strip()!r} is not a weight, at {_quote(prompt, place)}. Write (words:1.3), "
            r"or \( and \) for parentheses that are text."
        )
    return None


def _quote(prompt: str, place: int, reach: int = 24) -> str:
    """The prompt about a place."""
    before, after = max(place - reach, 0), place + reach
    return f'"{"… " * (before > 0)}{prompt[before:after]}{" …" * (after < len(prompt))}"'
