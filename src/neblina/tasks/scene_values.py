"""A scene as plain values: JSON values by the names of a scene file, which a picture's recipe holds too."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neblina.core.errors import DataError, SettingError, choose
from neblina.core.written import Written, packaged
from neblina.tasks.decoding import MOST_PIXELS
from neblina.tasks.scene_fields import BootstrapFields, ElementFields, Said, SceneFields

BACKGROUND = "the background"
_FIELD = "a field"
_SHOWN = 40  # characters of a prompt by which an element is known


def written_scene(path: str | Path) -> tuple[dict[str, Any], Written]:
    """The plain values of a scene file or of a scene of the package, and where they stand.

    Raises:
        SettingError, DataError: as `scenes.read_scene`, but for what is only seen on a canvas.
    """
    name, place = str(path), Path(path).expanduser()
    shipped = packaged("scenes")
    if name in shipped:
        text = shipped[name].read_text("utf-8")
    elif place.is_file():
        try:
            text = place.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{place} cannot be read as a scene, a text file in YAML: {error}") from error
    elif place.is_dir():
        raise DataError(f"{place} is a folder; give a scene file")
    elif place.suffix or len(place.parts) > 1:
        raise DataError(f"{place} is missing")
    else:
        choose("scene of this package, or the path of a scene file", name, shipped)
        raise AssertionError
    written = Written(f"scene {name!r}", text, _FIELD)
    fields = _fields(written.values("a scene is size, background and elements"), written)
    return _plain(fields, place.parent), written


def plain_scene(given: Mapping[str, Any], *, folder: str | Path | None = None) -> dict[str, Any]:
    """The same scene with its defaults filled in and absolute paths.

    Args:
        given: fields as in a scene file.
        folder: what paths are relative to; None is the working directory.
    Raises:
        SettingError: as `scenes.scene_of`, but for what is only seen on a canvas.
    """
    return _plain(_fields(given, Written("", field=_FIELD)), Path(folder or ""))


def masks_in(scene: Mapping[str, Any]) -> dict[str, str]:
    """Paths of the mask pictures in a scene's plain values, by what they are."""
    found = {
        _mask_of(number): element["mask"]
        for number, element in enumerate(scene.get("elements") or (), 1)
        if element.get("mask") is not None
    }
    behind = scene.get("background")
    if isinstance(behind, Mapping) and behind.get("mask") is not None:
        found[_mask_of(BACKGROUND)] = behind["mask"]
    return found


def with_masks(scene: Mapping[str, Any], paths: Mapping[str, str]) -> dict[str, Any]:
    """A scene's plain values with some mask pictures at other paths, by names as in `masks_in`."""
    elements = [
        {**element, "mask": paths.get(_mask_of(number), element["mask"])} if "mask" in element else element
        for number, element in enumerate(scene["elements"], 1)
    ]
    moved = {**scene, "elements": elements}
    if _mask_of(BACKGROUND) in paths:
        moved["background"] = {**scene["background"], "mask": paths[_mask_of(BACKGROUND)]}
    return moved


def _mask_of(whose: int | str) -> str:
    return f"mask of {whose if isinstance(whose, str) else f'element {whose}'}"


def name_of(element: ElementFields, number: int) -> str:
    """How sentences call an element: by its number, from 1, and by what it shows."""
    words = element.name or element.prompt
    if words:
        words = words if len(words) <= _SHOWN else f"{words[: _SHOWN - 1]}…"
        return f"element {number} ({words!r})"
    return f"element {number}" + ("" if element.label is None else f" (label {element.label!r})")


def _fields(given: Mapping[str, Any], written: Written) -> SceneFields:
    """The fields of a scene that fit each other.

    Raises:
        SettingError: with the line.
    """
    fields: SceneFields = written.checked(SceneFields, given)
    if not fields.elements:
        nothing = "the scene is empty" if fields.background is None else "nothing is placed"
        raise SettingError(f"{written.start()}{nothing}: give elements, or make the whole with neblina generate")
    width, height = fields.size
    if width * height > MOST_PIXELS:
        raise SettingError(
            f"{written.start(['size'])}a canvas of {width}x{height} has more than {MOST_PIXELS:,} pixels"
        )
    whole = Said() if fields.background is None else fields.background
    _check_said(whole, BACKGROUND, written.start(["background"]))
    said = [(BACKGROUND, whole)]
    for number, element in enumerate(fields.elements):
        name = name_of(element, number + 1)
        _check_said(element, name, written.start(["elements", number]))
        said.append((name, element))
    labelled = next((name for name, one in said if one.label is not None), None)
    prompted = next((name for name, one in said if one.prompt is not None), None)
    if labelled is not None and prompted is not None:
        raise SettingError(
            f"{written.start()}{prompted} has a prompt and {labelled} a label: a model reads prompts or knows classes, "
            "so use one of the two"
        )
    if labelled is not None and fields.style is not None:
        raise SettingError(f"{written.start(['style'])}style is of words, and {labelled} has a label: leave style out")
    return fields


def _check_said(said: Said, name: str, start: str) -> None:
    """Refuse words for what is shown by a label."""
    for other in ("prompt", "style", "negative"):
        if said.label is not None and getattr(said, other) is not None:
            raise SettingError(
                f"{start}{name} has a label and a {other}: a label is for a model of classes, which reads no words; "
                "keep one of the two"
            )


def _plain(fields: SceneFields, folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = fields.model_dump(exclude_defaults=True)
    values["elements"] = [_absolute(element, folder) for element in values["elements"]]
    if "background" in values:
        values["background"] = _absolute(values["background"], folder)
    values["bootstrap"] = (fields.bootstrap or BootstrapFields()).model_dump()
    return values


def _absolute(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    if "mask" not in values:
        return values
    return {**values, "mask": os.path.abspath(folder / Path(values["mask"]).expanduser())}
