"""What is asked for: a verb, a model, and arguments that are JSON values, each of the kind that its name has.

The kinds are those of the signatures: of the verb, of `Settings`, and of `load`; models beside the model are given by
their paths.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from neblina.core.errors import SettingError, choose
from neblina.tasks.model import load
from neblina.tasks.settings import Settings
from neblina.tasks.verbs import verbs

OPENING = ("dtype", "revision", "variant", "prediction", "ema", "tokenizer", "vae", "loras")
PICK = "pick"  # which of the pictures, where they cannot be made alone
WATCHED = ("on_begin", "on_step", "cancelled")  # fields of Settings that no order says


@dataclass(frozen=True)
class Order:
    """What is asked for.

    Attributes:
        verb: a name in `verbs`.
        model: path of a folder or a file, or a hub id.
        arguments: JSON values by name: of the verb, fields of `Settings` (models by their paths), and how the model is
            opened (OPENING). What is left out, or None, is the default.
    """

    verb: str
    model: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Paths become texts and tuples lists, as they are read back."""
        object.__setattr__(self, "arguments", {name: _plain(value) for name, value in self.arguments.items()})

    def check(self) -> None:
        """Refuse what cannot be carried out whatever the model.

        Raises:
            SettingError: an unknown verb or argument, one that is missing, or one of another kind.
        """
        verb = verbs[self.verb]
        kinds = {**own_kinds(self.verb), **SHARED, **_OPENING, PICK: int}
        for name, value in self.arguments.items():
            kind = kinds[choose(f"setting of {self.verb}", name, kinds)]
            if value is not None and not _fits(value, kind):
                raise SettingError(f"{name} of {self.verb} is {_words(kind)}, not {value!r}")
        for name, parameter in inspect.signature(verb).parameters.items():
            wanted = name in own_kinds(self.verb) and parameter.default is inspect.Parameter.empty
            if wanted and self.arguments.get(name) is None:
                raise SettingError(f"{self.verb} takes a {name}, and none is given")


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value


def own_kinds(verb: str) -> dict[str, Any]:
    """The arguments of a verb beside the model and the settings, with their kinds."""
    hints = get_type_hints(verbs[verb])
    return {name: hints[name] for name in inspect.signature(verbs[verb]).parameters if name not in _GIVEN}


_GIVEN = ("model", "settings")
_SETTINGS = get_type_hints(Settings, localns={"Model": str, "Classifier": str})
SHARED = {name: kind for name, kind in _SETTINGS.items() if name not in WATCHED}
_LOAD = get_type_hints(load)
_OPENING = {name: _LOAD[name] for name in OPENING}


def _fits(value: Any, kind: Any) -> bool:
    """Whether a JSON value is of a kind."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is tuple:
        return isinstance(value, list) and len(value) == len(parts) and all(map(_fits, value, parts))
    if origin in (list, Sequence):
        return isinstance(value, list) and all(_fits(part, parts[0]) for part in value)
    if origin is Mapping:
        return isinstance(value, Mapping)
    if kind in (int, float):  # true and false are numbers to Python alone
        return isinstance(value, int | kind) and not isinstance(value, bool)
    return isinstance(value, kind)


def _words(kind: Any) -> str:
    """A kind as a sentence says it."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        shown = (_words(part) for part in parts if part not in (NoneType, Path))
        return " or ".join(dict.fromkeys(shown))
    if origin is tuple:
        return f"a list of {' and '.join(_words(part) for part in parts)}"
    if origin in (list, Sequence):
        return f"a list, each part {_words(parts[0])}"
    if origin is Mapping:
        return "names with values"
    return {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}[kind]
