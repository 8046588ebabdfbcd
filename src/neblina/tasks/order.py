"""What is asked for: a verb, a model, and arguments that are JSON values, each of the kind that its name has.

The kinds are those of the signatures: of the verb, of `Settings`, and of `load`; models beside the model are given by
their paths.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from neblina.core.errors import SettingError, choose
from neblina.core.kinds import check_kind
from neblina.tasks.loading import load
from neblina.tasks.scene_values import plain_scene
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
            SettingError: an unknown verb or argument, one that is missing or of another kind, a scene that is none.
        """
        verb = verbs[self.verb]
        kinds = {**own_kinds(self.verb), **SHARED, **_OPENING, PICK: int}
        for name, value in self.arguments.items():
            kind = kinds[choose(f"setting of {self.verb}", name, kinds)]
            if value is not None:
                check_kind(f"{name} of {self.verb}", value, kind)
        if self.arguments.get("scene") is not None:
            plain_scene(self.arguments["scene"])
        for name, parameter in inspect.signature(verb).parameters.items():
            wanted = name in own_kinds(self.verb) and parameter.default is inspect.Parameter.empty
            if wanted and self.arguments.get(name) is None:
                raise SettingError(f"{self.verb} takes a {name}, and none is given")


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    return value


def in_turn(verb: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Of an order's arguments, those of which each picture has one in turn where several are given."""
    if verb == "panorama":
        return {}  # all of them are in every picture, side by side
    return {name: arguments[name] for name in ("prompt", "labels") if arguments.get(name) is not None}


def own_kinds(verb: str) -> dict[str, Any]:
    """The arguments of a verb beside the model and the settings, with their kinds."""
    hints = get_type_hints(verbs[verb])
    return {name: hints[name] for name in inspect.signature(verbs[verb]).parameters if name not in _GIVEN}


_GIVEN = ("model", "settings")
_SETTINGS = get_type_hints(Settings, localns={"Model": str, "Classifier": str})
SHARED = {name: kind for name, kind in _SETTINGS.items() if name not in WATCHED}
_LOAD = get_type_hints(load)
_OPENING = {name: _LOAD[name] for name in OPENING}
