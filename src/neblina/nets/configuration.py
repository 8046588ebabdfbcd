"""A network's configuration and its config.json: the same fields, with lists for tuples."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from neblina.core.errors import SettingError, choose

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Config = TypeVar("Config", bound=DataclassInstance)

# how the weights were averaged in training: diffusers' EMAModel writes it into the network's config.json
_OF_TRAINING = ("decay", "min_decay", "optimization_step", "update_after_step", "use_ema_warmup", "inv_gamma", "power")


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a name", NoneType: "null"}


def read_config(cls: "type[Config]", name: str, given: Mapping[str, Any]) -> "Config":
    """A configuration of class `cls` from a config.json; keys that begin with an underscore are its writer's own, and
    those of how its weights were averaged are passed over.

    Args:
        cls: a frozen dataclass that checks itself.
        name: what the ecosystem calls the network, for messages.
        given: the file's content.
    Raises:
        SettingError: an unknown field, with the closest known one; one that is missing; or what the configuration
            itself refuses.
    """
    known = [field.name for field in fields(cls)]
    said = {key: value for key, value in given.items() if not key.startswith("_") and key not in _OF_TRAINING}
    hints = get_type_hints(cls)
    for key, value in said.items():
        choose(f"field of a {name} config", key, known)
        if not _is_of(_frozen(value), hints[key]):
            raise SettingError(f"{name} config: {key} = {value!r} is not {_shown(hints[key])}")
    for field in fields(cls):
        if field.default is MISSING and field.name not in said:
            raise SettingError(f"{name} config: {field.name} is missing")
    return cls(**{key: _counted(_frozen(value), hints[key]) for key, value in said.items()})


def without_fixed(given: Mapping[str, Any], fixed: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A config.json without the fields that can have one value only.

    Args:
        fixed: their names, with the value.
        name: of the network, for messages.
    Raises:
        SettingError: one has another value.
    """
    for field, only in fixed.items():
        if given.get(field, only) != only:
            raise SettingError(f"{name} config: {field} = {given[field]!r} is not supported, only {only!r} is")
    return {key: value for key, value in given.items() if key not in fixed}


def check_sample_size(name: str, size: int | tuple[int, int] | None) -> None:
    """Refuse a resolution without any place.

    Args:
        name: of the network, for messages.
        size: one side of a square, or (height, width); None says nothing.
    Raises:
        SettingError: a side below 1.
    """
    sides = () if size is None else (size,) if isinstance(size, int) else size
    if any(side < 1 for side in sides):
        raise SettingError(f"{name} config: sample_size = {size!r} is not 1 or more")


def write_config(config: "DataclassInstance", name: str) -> dict[str, Any]:
    """What goes into config.json, with the class that the ecosystem opens it as."""
    return {"_class_name": name, **{key: _thawed(value) for key, value in asdict(config).items()}}


def _is_of(value: Any, hint: Any) -> bool:
    """Whether a value of a JSON file, lists as tuples, is of a field's type; whole numbers are numbers too."""
    if isinstance(hint, UnionType):
        return any(_is_of(value, each) for each in get_args(hint))
    if get_origin(hint) is tuple:
        inside = get_args(hint)
        several = inside[:1] * len(value) if isinstance(value, tuple) and inside[-1] is Ellipsis else inside
        return isinstance(value, tuple) and len(value) == len(several) and all(map(_is_of, value, several))
    if hint in (int, float):
        whole = hint is int and isinstance(value, float) and value.is_integer()
        return not isinstance(value, bool) and (isinstance(value, (int, hint)) or whole)
    return hint is Any or isinstance(value, hint)


def _counted(value: Any, hint: Any) -> Any:
    """Whole numbers that were written as 8.0 are whole numbers, where the field holds such."""
    if isinstance(value, tuple):
        insides = [each for each in (*get_args(hint), hint) if get_origin(each) is tuple and _is_of(value, each)]
        inside = get_args(insides[0])[0] if insides else Any
        return tuple(_counted(part, inside) for part in value)
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    return int(value) if isinstance(value, float) and int in kinds and float not in kinds else value


def _shown(hint: Any) -> str:
    """A type in words: what a person writes into a JSON file."""
    if isinstance(hint, UnionType):
        return " or ".join(_shown(each) for each in get_args(hint))
    if get_origin(hint) is tuple:
        return f"a list (of {_shown(get_args(hint)[0])})"
    return _WORDS.get(hint, str(hint))


def _frozen(value: Any) -> Any:
    """Lists become tuples, at every depth."""
    return tuple(_frozen(part) for part in value) if isinstance(value, list | tuple) else value


def _thawed(value: Any) -> Any:
    return [_thawed(part) for part in value] if isinstance(value, tuple) else value
