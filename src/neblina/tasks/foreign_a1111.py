"""The `parameters` text of AUTOMATIC1111's web interface and its relatives (Forge, SD.Next).

The prompt, then `Negative prompt:` and the negative one, each of any number of lines, then one line of `name: value,`
pairs; a value with a comma or a colon is a JSON text in quotation marks.
"""

import json
import math
import re
from collections.abc import Callable
from typing import Any

from neblina.samplers import samplers
from neblina.tasks.attention_marks import from_a1111
from neblina.tasks.foreign_parts import (
    BEGUN,
    GRIDS,
    NO_COUNTERPART,
    OF_THE_PROMPT,
    OTHER_NOISE,
    ForeignParameters,
    Unmapped,
    find_grid,
    find_sampler,
    without_effect,
)

_PAIR = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_NEGATIVE = "Negative prompt:"
# what older versions wrote behind the sampler's name
_SUFFIXES = ("Karras", "Exponential", "Polyexponential", "SGM Uniform")
# what the schedule "Automatic" is for these samplers
_AUTOMATIC = {
    "DPM++ 2M": "Karras",
    "DPM++ SDE": "Karras",
    "DPM2": "Karras",
    "DPM2 a": "Karras",
    "DPM++ 2S a": "Karras",
    "DPM++ 2M SDE": "Exponential",
    "DPM++ 2M SDE Heun": "Exponential",
    "DPM++ 3M SDE": "Exponential",
}
_NUMBERS: dict[str, tuple[str, Callable[[str], float]]] = {
    "Steps": ("steps", int),
    "CFG scale": ("guidance", float),
    "Seed": ("seed", int),
}


def read_a1111(text: str) -> ForeignParameters:
    """What the text says."""
    prompt, negative, fields = _parts(text)
    arguments: dict[str, Any] = {}
    unmapped: list[Unmapped] = []
    for name, words in (("prompt", prompt), ("negative", negative)):
        marked = from_a1111(words)
        if name == "prompt" or words:
            arguments[name] = marked.prompt
        unmapped += marked.unmapped
        if marked.loras:
            arguments["loras"] = [*arguments.get("loras", []), *marked.loras]
    _sampler(fields, arguments, unmapped)
    for name, (ours, kind) in _NUMBERS.items():
        if name in fields:
            _number(name, fields.pop(name), ours, kind, arguments, unmapped)
    if "seed" in arguments:
        unmapped.append(Unmapped("Seed", str(arguments["seed"]), OTHER_NOISE))
    _size(fields, arguments, unmapped)
    _strength(fields, unmapped)
    unmapped += without_effect(arguments, "Negative prompt")
    if "Clip skip" in fields:
        _clip_skip(fields.pop("Clip skip"), arguments, unmapped)
    model, model_hash, version = (fields.pop(name, None) for name in ("Model", "Model hash", "Version"))
    unmapped += [Unmapped(name, value, NO_COUNTERPART) for name, value in fields.items()]
    source = "AUTOMATIC1111" if version is None else f"AUTOMATIC1111 {version}"
    return ForeignParameters(source, model, model_hash, arguments, tuple(unmapped))


def _parts(text: str) -> tuple[str, str, dict[str, str]]:
    """Prompt, negative prompt, and the fields of the last line."""
    lines = text.strip().splitlines()
    fields: dict[str, str] = {}
    if lines:
        found = _PAIR.findall(lines[-1])
        if len(found) >= 3 or (found and found[0][0] == "Steps"):  # fewer are words of a prompt
            fields = {name: _unquoted(value) for name, value in found}
            lines.pop()
    prompt: list[str] = []
    negative: list[str] = []
    part = prompt
    for line in lines:
        if line.strip().startswith(_NEGATIVE):
            part = negative
            line = line.strip().removeprefix(_NEGATIVE)
        part.append(line.strip())
    return "\n".join(prompt), "\n".join(negative), fields


def _unquoted(value: str) -> str:
    value = value.strip()
    if value.startswith('"') and value.endswith('"'):
        try:
            return str(json.loads(value))
        except ValueError:
            return value
    return value


def _number(
    name: str, value: str, ours: str, kind: Callable[[str], float], arguments: dict[str, Any], unmapped: list[Unmapped]
) -> None:
    try:
        number = kind(value)
    except ValueError:
        number = math.nan
    if math.isfinite(number):
        arguments[ours] = number
    else:
        unmapped.append(Unmapped(name, value, "this is not a number"))


def _sampler(fields: dict[str, str], arguments: dict[str, Any], unmapped: list[Unmapped]) -> None:
    given, grid = fields.pop("Sampler", None), fields.pop("Schedule type", None)
    if given is not None:
        name = given
        for suffix in _SUFFIXES:
            if given.endswith(" " + suffix):
                name, grid = given.removesuffix(" " + suffix), grid or suffix
        sampler, why = find_sampler(name)
        if sampler is not None:
            arguments["sampler"] = sampler
            if "Eta" in fields and "eta" in samplers[sampler].choices:
                settings: dict[str, Any] = {}
                _number("Eta", fields.pop("Eta"), "eta", float, settings, unmapped)
                arguments |= {"settings": settings} if settings else {}
        if why is not None:
            unmapped.append(why)
        if grid == "Automatic":
            grid = _AUTOMATIC.get(name, grid)
    if grid is not None:
        ours, why = find_grid(grid)
        if ours is not None:
            arguments["grid"] = ours
        if why is not None:
            unmapped.append(why)
    elif given is not None:
        unmapped.append(Unmapped("schedule", "(not said)", f"the sampler's own grid is taken; there is {_grids()} too"))


def _grids() -> str:
    return ", ".join(sorted(set(GRIDS.values())))


def _size(fields: dict[str, str], arguments: dict[str, Any], unmapped: list[Unmapped]) -> None:
    size = fields.pop("Size", None)
    if size is None:
        return
    if re.fullmatch(r"\d+x\d+", size):
        arguments["size"] = size
    else:
        unmapped.append(Unmapped("Size", size, "this is not a width and a height"))


def _strength(fields: dict[str, str], unmapped: list[Unmapped]) -> None:
    strength = fields.pop("Denoising strength", None)
    if strength is None:
        return
    if any(name.startswith("Hires") for name in fields):
        unmapped.append(Unmapped("Denoising strength", strength, "it belongs to the second pass (Hires)"))
    else:
        unmapped.append(Unmapped("Denoising strength", strength, BEGUN))


def _clip_skip(value: str, arguments: dict[str, Any], unmapped: list[Unmapped]) -> None:
    """Theirs counts the last layer as 1, ours counts the layers left out."""
    if not value.isdigit() or int(value) < 1:
        unmapped.append(Unmapped("Clip skip", value, "this is not a number of layers"))
    elif int(value) > 1:
        arguments["clip_skip"] = int(value) - 1
        unmapped.append(Unmapped("Clip skip", value, OF_THE_PROMPT))
