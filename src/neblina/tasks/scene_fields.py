"""What may stand in a scene: fields, their kinds and their ranges, as plain values and before any canvas is drawn."""

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Annotated, Any

from PIL import ImageColor
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator

SHARE = 0.2  # of the steps, in which every element sees its place on a constant colour
COLOURS = 8  # how many random ones


def _number(value: Any) -> Any:
    """A finite number, whole or not, as Python's own."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ValueError(f"is a number, not {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"is a finite number, not {value}")
    return int(value) if isinstance(value, Integral) else float(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"is a whole number, not {value!r}")
    return int(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f'is a text, not {value!r}; in a file write it in quotes: "{value}"')
    return value


def _label(value: Any) -> int | str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"is a class by its number or its name, not {value!r}")
    return int(value)


def _size(value: Any) -> list[int]:
    said = "is the canvas's width and height in whole pixels, such as size: [768, 512]"
    if value is None:
        raise ValueError(f"{said}, and is missing")
    wholes = _is_list(value, 2) and all(isinstance(side, Integral) and not isinstance(side, bool) for side in value)
    if not wholes or min(value) < 1:
        raise ValueError(f"{said}, not {value!r}")
    return [int(side) for side in value]


def _box(value: Any) -> list[Any]:
    if not _is_list(value, 4):
        raise ValueError(f"is four numbers, [left, top, right, bottom], not {value!r}")
    return _numbers(value)


def _polygon(value: Any) -> list[list[Any]]:
    if not _is_list(value) or len(value) < 3 or not all(_is_list(point, 2) for point in value):
        raise ValueError(f"is at least three points, [[x, y], [x, y], [x, y]], not {value!r}")
    return [_numbers(point) for point in value]


def _numbers(values: Any) -> list[Any]:
    try:
        return [_number(value) for value in values]
    except ValueError as error:
        raise ValueError(f"is of numbers, and one of {list(values)!r} {error}") from error


def _is_list(value: Any, length: int | None = None) -> bool:
    return isinstance(value, list | tuple) and length in (None, len(value))


def _colours(value: Any) -> int | list[str]:
    if isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1:
        return int(value)
    if not _is_list(value) or not value:
        raise ValueError(f"is how many random ones, at least 1, or a list of names or of #rrggbb, not {value!r}")
    for name in value:
        try:
            ImageColor.getrgb(name)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f'is of colours, and {name!r} is none; write one as white or "#204060"') from error
    return list(value)


def _within(least: float, most: float, *, above: bool = False, below: bool = False) -> Callable[[Any], Any]:
    """A check of a number's range, whose ends may belong to it or not."""

    def check(value: Any) -> Any:
        number = _number(value)
        if number < least or number > most or (above and number == least) or (below and number == most):
            start = f"above {least:g}" if above else f"at least {least:g}"
            end = "" if most == math.inf else f" and below {most:g}" if below else f" and at most {most:g}"
            raise ValueError(f"is {start}{end}, not {value:g}")
        return number

    return check


def _pixels(value: Any) -> int:
    if _whole(value) < 0:
        raise ValueError(f"goes over a number of pixels, at least 0, not {value}")
    return int(value)


Number = Annotated[float, PlainValidator(_number)]
Text = Annotated[str, PlainValidator(_text)]


class Fields(BaseModel):
    """Some fields; an unknown one is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Said(Fields):
    """What is to be seen."""

    prompt: Text | None = None
    "in words, for a model that reads them"
    label: Annotated[int | str, PlainValidator(_label)] | None = None
    "as a class by number or name, for a model of classes"
    negative: Text | None = None
    "what guidance goes away from here"
    guidance: Number | None = None
    "weight of the guidance here"
    style: Text | None = None
    "words behind the prompt"


class BackgroundFields(Said):
    """What is where no element is."""

    mask: Text | None = None
    "a picture that is white where the background is; where no element is when left out"


class ElementFields(Said):
    """One element and its place."""

    name: Text | None = None
    "what it is called in sentences"
    weight: Annotated[float, PlainValidator(_within(0, math.inf, above=True))] = 1.0
    "how much it counts where elements overlap"
    box: Annotated[list[float], PlainValidator(_box)] | None = None
    "left, top, right, bottom"
    polygon: Annotated[list[list[float]], PlainValidator(_polygon)] | None = None
    "its corners"
    mask: Text | None = None
    "a picture of the canvas's size that is white where the element is"
    feather: Annotated[int, PlainValidator(_pixels)] = 0
    "pixels over which it fades in from the border of its place"


class BootstrapFields(Fields):
    """How elements are made to keep to their places."""

    share: Annotated[float, PlainValidator(_within(0, 1, below=True))] = SHARE
    "of the steps, from the first one, in which an element sees its place on a constant colour"
    colours: Annotated[int | list[str], PlainValidator(_colours)] = COLOURS
    "how many random ones, or which"


def _as_prompt(value: Any) -> Any:
    return {"prompt": value} if isinstance(value, str) else value


def _as_list(value: Any) -> Any:
    if value is None or _is_list(value):
        return value or ()
    raise ValueError("is a list: begin every element with a dash")


class SceneFields(Fields):
    """A whole scene."""

    size: Annotated[list[int], PlainValidator(_size)] = Field(None, validate_default=True)
    "width and height in pixels"
    background: Annotated[BackgroundFields | None, BeforeValidator(_as_prompt)] = None
    "what is where no element is: a prompt, or fields"
    style: Text | None = None
    "for everything that has none of its own"
    elements: Annotated[tuple[ElementFields, ...], BeforeValidator(_as_list)] = ()
    "what is placed"
    bootstrap: BootstrapFields | None = None
    "how elements are made to keep to their places"
