"""AUTOMATIC1111's and ComfyUI's weights inside a prompt, as ours.

`(word)` weighs 1.1 and `[word]` 1 / 1.1, a level each, and `(word:1.3)` weighs 1.3; nested weights multiply, an open
bracket reaches to the end, and \\( and \\) are text. Ours is the explicit form alone, so each stretch of equal weight
is written as one `(stretch:weight)`; ComfyUI has no square brackets: there they are text.

What changes the prompt on the way (`[from:to:when]`, `[one|other]`), parts it (BREAK, AND) or names files
(`<lora:name:0.8>`) is taken out and told.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from neblina.tasks.foreign_parts import Unmapped

LEVEL = 1.1

_TOKEN = re.compile(r"\\[()\[\]\\]|:\s*[+-]?(?:\d+\.?\d*|\.\d+)\s*\)|[()\[\]]|[^\\()\[\]:]+|.", re.DOTALL)
_FILE = re.compile(r"<(lora|lyco|hypernet):([^<>:]+)((?::[^<>:]*)*)>")
_EDIT = re.compile(r"(?<!\\)\[([^\[\]]*):\s*([\d.]+)\s*\]")
_TURNS = re.compile(r"(?<!\\)\[([^\[\]]*\|[^\[\]]*)\]")
_EMBEDDING = re.compile(r"\bembedding:[^\s,()]+")


@dataclass(frozen=True)
class Marked:
    """A prompt in our form.

    Attributes:
        prompt: with explicit weights only.
        loras: [name, scale] of each one that it names.
        unmapped: what it says and ours cannot.
    """

    prompt: str
    loras: tuple[list[Any], ...] = ()
    unmapped: tuple[Unmapped, ...] = field(default=())


def from_a1111(prompt: str) -> Marked:
    """A prompt of AUTOMATIC1111's web interface."""
    loras: list[list[Any]] = []
    unmapped: list[Unmapped] = []

    def file(found: re.Match[str]) -> str:
        kind, name = found[1], found[2]
        scales = [part for part in found[3].split(":")[1:] if part]
        try:
            scale = float(scales[0]) if scales else 1.0
        except ValueError:
            scale = None
        if kind == "lora" and scale is not None:
            loras.append([name, scale])
        if kind != "lora" or scale is None or len(scales) > 1:
            reason = "one scale for the whole LoRA" if kind == "lora" and scale is not None else "only LoRAs are read"
            unmapped.append(Unmapped(kind, found[0], reason))
        return ""

    def edit(found: re.Match[str]) -> str:
        unmapped.append(
            Unmapped("prompt editing", found[0], "a prompt stays the same over all steps here; its first form is kept")
        )
        return found[1].rpartition(":")[0]

    def turns(found: re.Match[str]) -> str:
        unmapped.append(
            Unmapped("alternating words", found[0], "a prompt stays the same over all steps here; the first is kept")
        )
        return found[1].split("|")[0]

    text = _FILE.sub(file, prompt)
    text = _repeated(_EDIT, edit, text)
    text = _repeated(_TURNS, turns, text)
    if re.search(r"\bAND\b", text):
        reason = "it composes several prompts, which are one text here"
        unmapped.append(Unmapped("AND", prompt, reason))
    if re.search(r"\bBREAK\b", text):
        unmapped.append(Unmapped("BREAK", prompt, "windows are cut where they are full; pass --long-prompt chunk"))
        text = re.sub(r"\s*\bBREAK\b\s*", " ", text)
    if loras or text != prompt:  # what was taken out leaves its spaces
        text = re.sub(r"[ \t]{2,}", " ", text).strip()
    return Marked(_explicit(text, square=True), tuple(loras), tuple(unmapped))


def from_comfyui(prompt: str) -> Marked:
    """A prompt of ComfyUI's CLIPTextEncode."""
    unmapped = [
        Unmapped("embedding", found, "learned words are not read; the name is left in the prompt")
        for found in _EMBEDDING.findall(prompt)
    ]
    return Marked(_explicit(prompt, square=False), (), tuple(unmapped))


def _repeated(pattern: re.Pattern[str], change: Any, text: str) -> str:
    """Replaced from the inside out until nothing is left to replace."""
    while (after := pattern.sub(change, text)) != text:
        text = after
    return text


def _explicit(prompt: str, *, square: bool) -> str:
    written = ""
    for text, weight in _stretches(prompt, square=square):
        mark = _written(text, weight)
        # a backslash that is text would make text of the bracket behind it
        written += " " + mark if written.endswith("\\") and mark.startswith("(") else mark
    return written


def _stretches(prompt: str, *, square: bool) -> list[tuple[str, float]]:
    """Texts without marks, and their weights, neighbours of equal weight joined."""
    parts: list[tuple[str, float]] = []
    opened: list[tuple[str, int]] = []

    def close(bracket: str, factor: float) -> bool:
        places = [number for number, (kind, _) in enumerate(opened) if kind == bracket]
        if not places:
            return False
        start = opened.pop(places[-1])[1]
        parts[start:] = [(text, weight * factor) for text, weight in parts[start:]]
        return True

    for token in _TOKEN.findall(prompt):
        if len(token) == 2 and token[0] == "\\" and (square or token[1] not in "[]"):
            parts.append((token[1], 1.0))
        elif token == "(" or (square and token == "["):
            opened.append((token, len(parts)))
        else:
            ending = _ending(token, square=square)
            if ending is None or not close(*ending):
                parts.append((token, 1.0))
    while opened:
        close(opened[-1][0], LEVEL if opened[-1][0] == "(" else 1 / LEVEL)
    joined: list[tuple[str, float]] = []
    for text, weight in parts:
        if joined and joined[-1][1] == weight:
            joined[-1] = (joined[-1][0] + text, weight)
        else:
            joined.append((text, weight))
    return joined


def _ending(token: str, *, square: bool) -> tuple[str, float] | None:
    """The bracket that a mark would close, and the factor that it gives what stands inside."""
    if token == ")":
        return "(", LEVEL
    if token == "]" and square:
        return "[", 1 / LEVEL
    if token[0] == ":" and token[-1] == ")":
        return "(", float(token[1:-1])
    return None


def _written(text: str, weight: float) -> str:
    """One stretch as our prompts write it; spaces alone weigh nothing."""
    escaped = text.replace("(", r"\(").replace(")", r"\)")
    shown = f"{weight:.4f}".rstrip("0").rstrip(".")
    return escaped if shown == "1" or not text.strip() else f"({escaped}:{shown})"
