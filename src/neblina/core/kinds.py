"""Whether a value is what an annotation says: what a user hands over is looked at before anything is done with it.

Numbers of numpy are numbers; True and False are none. A tuple of a fixed length may be a list, as JSON has no tuples.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache, wraps
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from neblina.core.errors import SettingError

Given = ParamSpec("Given")
Result = TypeVar("Result")
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
_SEVERAL = {int: "whole numbers", float: "numbers", bool: "truths", str: "texts"}


def fits(value: object, kind: Any) -> bool:
    """Whether a value is of a kind: an annotation of which every part is known here; any other is fitted by all."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(fits(value, part) for part in parts)
    if kind is Any:
        return True
    if kind in (None, NoneType):
        return value is None
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    if origin is tuple:
        return isinstance(value, list | tuple) and len(value) == len(parts) and all(map(fits, value, parts))
    if origin is Sequence:
        return isinstance(value, Sequence) and not isinstance(value, str) and all(fits(one, parts[0]) for one in value)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(fits(key, parts[0]) for key in value)
    if origin is Callable:
        return callable(value)
    return isinstance(value, kind) if isinstance(kind, type) and origin is None else True


def check_kind(name: str, value: object, kind: Any) -> None:
    """Refuse a value that is not of its kind.

    Raises:
        SettingError: naming it, with what it should be.
    """
    if not fits(value, kind):
        raise SettingError(f"{name} is {_said(kind)}, not {value!r}")


def checked(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """The function, which refuses arguments that are not of the kinds that it is annotated with.

    Raises:
        SettingError: naming the argument; from the function that is returned.
    """
    signature = inspect.signature(function)

    @cache  # the names in the annotations of a method may not be there yet while its class is made
    def hints() -> dict[str, Any]:
        return get_type_hints(function)

    @wraps(function)
    def asked(*arguments: Given.args, **named: Given.kwargs) -> Result:
        for name, value in signature.bind(*arguments, **named).arguments.items():
            if name in hints() and signature.parameters[name].kind is not inspect.Parameter.VAR_KEYWORD:
                check_kind(name, value, hints()[name])
        return function(*arguments, **named)

    return asked


def _said(kind: Any) -> str:
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_said(part) for part in parts if part is not NoneType))
    if origin is tuple:
        return f"{len(parts)} {_SEVERAL.get(parts[0], 'values')}"
    if origin is Sequence:
        several = get_args(parts[0]) or (parts[0],)
        return f"a list of {' and '.join(_SEVERAL.get(part, 'values') for part in several)}"
    if origin is Mapping:
        return "values by name"
    if origin is Callable:
        return "a function"
    return _WORDS.get(kind) or f"a {getattr(kind, '__name__', kind)}"
