"""A scene: what is placed where on a canvas, read from a file or given as plain values.

A scene file says the canvas's size, what its background shows, and elements, each with what it shows and its place: a
box, a polygon or a mask picture. The plain values that are read from it are what a picture's recipe holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neblina.core.errors import DataError, SettingError
from neblina.core.written import Place as Where
from neblina.core.written import Written
from neblina.tasks.handed import notice
from neblina.tasks.masks import Values, feather, read_place
from neblina.tasks.places import Point, of_box, of_polygon
from neblina.tasks.scene_fields import (
    COLOURS,
    SHARE,
    BackgroundFields,
    BootstrapFields,
    ElementFields,
    Said,
    SceneFields,
)
from neblina.tasks.scene_values import BACKGROUND, name_of, plain_scene, written_scene

_PLACES = ("box", "polygon", "mask")


@dataclass(frozen=True)
class Bootstrap:
    """How elements are made to keep to their places.

    Attributes:
        share: of the steps, from the first one, in which an element sees its place on a constant colour; in [0, 1).
        colours: how many random ones, or which, by names or as #rrggbb.
    """

    share: float = SHARE
    colours: int | tuple[str, ...] = COLOURS


@dataclass(frozen=True)
class Placed:
    """One element.

    Attributes:
        name: how sentences call it: element 2 ('a red sofa').
        prompt: with its style words, for a model that reads text; None for a label or for nothing.
        label: for a model of classes.
        negative: what guidance goes away from here; None leaves it to the whole.
        guidance: its weight here; None leaves it to the whole.
        weight: how much it counts where elements overlap, above 0.
        mask: 1 where it is, 0 where it is not, between where it is feathered or grey; float32 of shape (H, W).
        outline: corners (x, y) of its place in pixels; None for a mask picture.
    """

    name: str
    prompt: str | None
    label: int | str | None
    negative: str | None
    guidance: float | None
    weight: float
    mask: Values
    outline: tuple[Point, ...] | None


@dataclass(frozen=True)
class Background:
    """What is where no element is.

    Attributes:
        prompt, label, negative, guidance: as of `Placed`.
        mask: where it is, as of `Placed`; None where no element is.
    """

    prompt: str | None = None
    label: int | str | None = None
    negative: str | None = None
    guidance: float | None = None
    mask: Values | None = None

    @property
    def name(self) -> str:
        """How sentences call it."""
        return BACKGROUND


@dataclass(frozen=True)
class Scene:
    """What is placed where.

    Attributes:
        size: (height, width) in pixels.
        background: what is where no element is.
        elements: at least one.
        bootstrap: how they are made to keep to their places.
    """

    size: tuple[int, int]
    background: Background
    elements: tuple[Placed, ...]
    bootstrap: Bootstrap = field(default_factory=Bootstrap)


def read_scene(path: str | Path) -> dict[str, Any]:
    """The plain values of a scene file, or of a scene that the package brings: JSON values, with absolute paths.

    Args:
        path: of a YAML file; paths in it are relative to it. A name such as living_room is one of the package's.
    Raises:
        SettingError, DataError: no such file, no YAML, or as `scene_of`; with the line.
    """
    values, written = written_scene(path)
    _Canvas(values, written).scene()
    return values


def scene_of(given: Mapping[str, Any], *, folder: str | Path | None = None) -> Scene:
    """A scene from plain values. What reading a mask did to it is said in a warning (`Noticed`).

    Args:
        given: fields as in a scene file.
        folder: what paths are relative to; None is the working directory.
    Raises:
        SettingError: an unknown field, a value of another kind or out of range, nothing placed, an element without a
            place, with several, off the canvas or without area.
        DataError: a mask picture that cannot be used.
    """
    canvas = _Canvas(plain_scene(given, folder=folder), Written(""))
    scene = canvas.scene()
    for place, changes in canvas.notes:
        notice(place, changes)
    return scene


class _Canvas:
    """The way from plain values to a scene; `notes` are what reading its masks did to them."""

    def __init__(self, values: Mapping[str, Any], written: Written) -> None:
        self.fields = SceneFields.model_validate(values)
        self.written = written
        self.size = (self.fields.size[1], self.fields.size[0])
        self.notes: list[tuple[Path, Sequence[str]]] = []

    def scene(self) -> Scene:
        said = self.fields.background or BackgroundFields()
        mask = None if said.mask is None else self._read(said.mask, BACKGROUND, ("background", "mask"))
        background = Background(self._words(said), said.label, said.negative, said.guidance, mask)
        elements = tuple(self._placed(element, number) for number, element in enumerate(self.fields.elements))
        bootstrap = self.fields.bootstrap or BootstrapFields()
        colours = bootstrap.colours if isinstance(bootstrap.colours, int) else tuple(bootstrap.colours)
        return Scene(self.size, background, elements, Bootstrap(bootstrap.share, colours))

    def _placed(self, element: ElementFields, number: int) -> Placed:
        name, where = name_of(element, number + 1), ("elements", number)
        given = [kind for kind in _PLACES if getattr(element, kind) is not None]
        with self._about(name, where):
            if not given:
                raise SettingError("has no place: give it a box, a polygon or a mask")
            if len(given) > 1:
                raise SettingError(f"has several places, {' and '.join(given)}: keep one")
        outline = None
        if element.mask is not None:
            values = self._read(element.mask, name, (*where, "mask"))
        else:
            with self._about(name, (*where, given[0])):
                place = (
                    of_polygon(element.polygon or [], self.size)
                    if element.box is None
                    else of_box(element.box, self.size)
                )
            values, outline = place.values, place.outline
        with self._about(name, (*where, "feather")):
            values = self._feathered(values, element.feather)
        return Placed(
            name,
            self._words(element),
            element.label,
            element.negative,
            element.guidance,
            element.weight,
            values,
            outline,
        )

    def _words(self, said: Said) -> str | None:
        """The prompt with the style words behind it."""
        style = self.fields.style if said.style is None else said.style
        words = [part for part in (said.prompt, style) if part]
        return ", ".join(words) if words else said.prompt

    def _read(self, path: str, name: str, where: Where) -> Values:
        with self._about(f"{name}:", where):
            mask = read_place(path, self.size)
        self.notes.append((mask.path, mask.changes))
        return mask.values

    def _feathered(self, values: Values, radius: int) -> Values:
        if radius == 0:
            return values
        if radius >= max(self.size):
            raise SettingError(f"fades in over {radius} pixels, more than the canvas has: feather less")
        faded = feather(values, radius)
        share = float(faded.max() / values.max())
        if share < 0.5:
            raise SettingError(
                f"fades in over {radius} pixels and is nowhere more than {share:.0%} there: feather less"
            )
        return faded

    @contextmanager
    def _about(self, name: str, where: Where) -> Iterator[None]:
        """Errors begin with the file, the line and the element."""
        try:
            yield
        except (SettingError, DataError) as error:
            raise type(error)(f"{self.written.start(where)}{name} {error}") from error
