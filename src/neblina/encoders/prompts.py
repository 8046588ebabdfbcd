"""Prompts as the windows that a text encoder reads.

An encoder reads a fixed number of tokens at once (77 for CLIP), the first and the last of them special. A longer prompt
is refused, cut with a warning that quotes what is lost, or read in pieces whose vectors are laid one after the other
along the sequence, which cross-attention does not mind. It is never cut in silence.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from neblina.core.errors import SettingError, choose
from neblina.encoders.tokens import Tokenizer
from neblina.encoders.weights import parse_weights


class PromptCut(UserWarning):
    """A prompt was longer than the encoder's window, and its end was left out."""


@dataclass(frozen=True)
class Piece:
    """What stands in one window between the special tokens.

    Attributes:
        tokens: of the text.
        weights: of each token.
    """

    tokens: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()


def pieces_of(
    prompt: str, tokenizer: Tokenizer, window: int, long: str = "refuse", *, what: str = "prompt"
) -> list[Piece]:
    """Cut a prompt, weights and all, into what fits a window each; one piece or more.

    Args:
        window: how many tokens the encoder reads at once, the two special ones among them.
        long: "refuse", "chunk" or "cut" a prompt that is longer.
        what: it is, for messages.
    Raises:
        SettingError: the prompt is longer and `long` is "refuse"; a weight that cannot be read, or that begins or ends
            inside a token.
    """
    choose("way with long prompts", long, _LONG)
    said = parse_weights(prompt)
    tokens, spans = tokenizer.cut(said.text)
    weights = tuple(_weight(said.text, said.weights, span) for span in spans)
    room = window - 2
    kept = len(tokens)
    if len(tokens) > room:
        lost = said.text[spans[room][0] :]
        kept = _LONG[long](
            f"the {what} is {len(tokens) + 2} tokens long and this text encoder reads {window}. "
            f'Cut from: "… {_short(lost)}".',
            room,
            len(tokens),
        )
    starts = range(0, max(kept, 1), room)
    return [Piece(tokens[at : min(at + room, kept)], weights[at : min(at + room, kept)]) for at in starts]


def _refuse(sentence: str, room: int, count: int) -> int:
    raise SettingError(f"{sentence} Pass --long-prompt chunk to encode it in pieces, or cut to leave the end out.")


def _cut(sentence: str, room: int, count: int) -> int:
    warnings.warn(PromptCut(f"{sentence} Pass --long-prompt chunk to encode it in pieces."), stacklevel=3)
    return room


def _chunk(sentence: str, room: int, count: int) -> int:
    return count


_LONG: dict[str, Callable[[str, int, int], int]] = {"refuse": _refuse, "chunk": _chunk, "cut": _cut}
LONG_PROMPTS = tuple(_LONG)


def _weight(text: str, weights: Sequence[float], span: tuple[int, int]) -> float:
    begin, end = span
    found = set(weights[begin:end]) or {1.0}  # a special token that is written in a prompt may span nothing
    if len(found) > 1:
        raise SettingError(
            f"a weight begins or ends inside {text[begin:end]!r}, which the text encoder reads as one token. "
            "Put whole words between the parentheses."
        )
    return found.pop()


def _short(text: str, length: int = 120) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length // 2]} … {text[-length // 2 :]}"
