"""Scenes: what is read is what is written, and every mistake is a sentence that names the element and the line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from scipy.ndimage import distance_transform_edt

from neblina.core.errors import DataError, NeblinaError, SettingError
from neblina.core.written import packaged
from neblina.tasks.masks import feather
from neblina.tasks.scene_values import masks_in, plain_scene, with_masks
from neblina.tasks.scenes import Bootstrap, Scene, read_scene, scene_of
from neblina.tasks.settings import Noticed

WHOLE = """\
size: [64, 40]
background: {prompt: a room, negative: people, style: blurred, mask: behind.png}
style: a photograph
elements:
  - prompt: a red sofa
    negative: blue
    guidance: 9
    weight: 2
    box: [0.25, 0.5, 0.75, 1]
    feather: 3
  - prompt: a plant
    style: a drawing
    name: the plant
    polygon: [[4, 4], [20, 8], [10, 30]]
  - mask: place.png
bootstrap: {share: 0.4, colours: [white, "#204060"]}
"""


def element(**fields: Any) -> dict[str, Any]:
    return {"size": [64, 40], "elements": [{"prompt": "a cat", **({"box": [10, 5, 52, 17]} | fields)}]}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a scene's masks in it."""
    values = np.zeros((40, 64), np.uint8)
    Image.fromarray(values).save(tmp_path / "black.png")
    values[5:10, 30:60] = 255
    values[5, 30:40] = 100
    Image.fromarray(values).save(tmp_path / "place.png")
    Image.fromarray(255 - values).save(tmp_path / "behind.png")
    Image.fromarray(np.full((40, 64), 255, np.uint8)).save(tmp_path / "white.png")
    Image.fromarray(values[:30]).save(tmp_path / "short.png")
    Image.fromarray(values).save(tmp_path / "lossy.jpg", quality=40)
    return tmp_path


def read(place: Path, text: str) -> dict[str, Any]:
    (place / "room.yaml").write_text(text)
    return read_scene(place / "room.yaml")


@pytest.mark.parametrize("name", packaged("scenes"))
def test_every_packaged_scene_is_read_and_every_element_is_somewhere(name: str) -> None:
    scene = scene_of(read_scene(name))
    assert all(
        one.mask.shape == scene.size and one.mask.max() == 1 and one.mask.mean() > 0.05 for one in scene.elements
    )
    assert packaged("scenes").keys() == {"living_room", "depth_of_field", "two_styles", "snacks"}


def test_the_manual_shows_the_living_room_as_it_is() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "composition.md").read_text()
    assert plain_scene(yaml.safe_load(manual.split("```yaml\n")[1].split("```")[0])) == read_scene("living_room")


def test_a_scene_says_who_is_seen_where_and_how(place: Path) -> None:
    scene = scene_of(read(place, WHOLE))
    sofa, plant, nothing = scene.elements
    assert (scene.size, scene.bootstrap) == ((40, 64), Bootstrap(0.4, ("white", "#204060")))
    assert [one.prompt for one in (scene.background, sofa, plant, nothing)] == [
        "a room, blurred",
        "a red sofa, a photograph",
        "a plant, a drawing",
        "a photograph",
    ]
    assert (sofa.negative, sofa.guidance, sofa.weight, sofa.label) == ("blue", 9, 2, None)
    assert (plant.negative, plant.guidance, plant.weight) == (None, None, 1)
    assert [one.name for one in scene.elements] == ["element 1 ('a red sofa')", "element 2 ('the plant')", "element 3"]
    assert sofa.outline == ((16, 20), (48, 20), (48, 40), (16, 40))
    assert (plant.outline, nothing.outline) == (((4, 4), (20, 8), (10, 30)), None)
    grey = np.asarray(Image.open(place / "place.png")).astype(np.float32) / 255
    assert np.array_equal(nothing.mask, grey)
    assert scene.background.mask is not None
    assert np.array_equal(scene.background.mask, 1 - grey)
    assert all(one.mask.dtype == np.float32 for one in scene.elements)


def test_what_is_read_is_plain_values_and_reading_them_again_gives_them(place: Path) -> None:
    values = read(place, WHOLE)
    assert values["elements"][2] == {"mask": str(place / "place.png")}
    assert values["background"]["mask"] == str(place / "behind.png")
    assert json.loads(json.dumps(values)) == values == plain_scene(values)
    (place / "elsewhere").mkdir()
    assert read(place / "elsewhere", yaml.safe_dump(values)) == values
    for name in packaged("scenes"):
        once = read_scene(name)
        assert json.loads(json.dumps(once)) == once == read(place, yaml.safe_dump(once))


def test_a_scene_holds_the_defaults_that_may_change_and_no_others() -> None:
    assert plain_scene(element(weight=1, feather=0, guidance=None)) == {
        **element(),
        "bootstrap": {"share": 0.2, "colours": 8},
    }
    assert scene_of(element()).bootstrap == Bootstrap() == Bootstrap(0.2, 8)


def test_a_background_is_a_prompt_or_fields_or_nothing() -> None:
    assert scene_of({**element(), "background": "a room"}).background.prompt == "a room"
    assert plain_scene({**element(), "background": "a room"})["background"] == {"prompt": "a room"}
    for nothing in ({}, {"background": None}, {"background": {}}):
        behind = scene_of({**element(), **nothing}).background
        assert (behind.prompt, behind.label, behind.mask) == (None, None, None)
    assert scene_of({**element(), "style": "oil"}).background.prompt == "oil"


def test_classes_are_numbers_or_names() -> None:
    scene = scene_of({"size": [8, 8], "background": {"label": 10}, "elements": [{"label": "cat", "box": [0, 0, 1, 1]}]})
    assert (scene.background.label, scene.elements[0].label, scene.elements[0].prompt) == (10, "cat", None)
    assert scene.elements[0].name == "element 1 (label 'cat')"


def test_a_feathered_place_falls_inwards_with_the_distance_to_its_border_and_stays_0_outside() -> None:
    hard, soft = (scene_of(element(box=[10, 5, 50, 30], feather=radius)).elements[0].mask for radius in (0, 6))
    assert ((soft > 0) == (hard > 0)).all()
    assert np.allclose(soft, np.minimum(distance_transform_edt(hard > 0) / 7, 1), atol=1e-6)
    assert np.array_equal(soft, feather(hard, 6))


def test_a_mask_may_be_everywhere_and_what_reading_did_to_it_is_said(place: Path) -> None:
    everywhere = element(box=None, mask="white.png")
    assert scene_of(everywhere, folder=place).elements[0].mask.min() == 1
    with pytest.warns(Noticed, match=r"lossy.jpg: rounded to black and white"):
        scene_of(element(box=None, mask="lossy.jpg"), folder=place)


def test_masks_are_found_and_moved_by_what_they_are(place: Path) -> None:
    values = read(place, WHOLE)
    found = masks_in(values)
    assert found == {
        "mask of element 3": str(place / "place.png"),
        "mask of the background": str(place / "behind.png"),
    }
    assert with_masks(values, {}) == with_masks(values, found) == values
    moved = with_masks(values, {name: f"/elsewhere/{Path(path).name}" for name, path in found.items()})
    assert masks_in(moved) == {
        "mask of element 3": "/elsewhere/place.png",
        "mask of the background": "/elsewhere/behind.png",
    }
    assert masks_in(values) == found
    assert masks_in(element()) == {}


FILES = [
    ("elements:\n  - promt: a cat\n", 2, r"elements\.1\.promt is not a field\. Did you mean prompt\?"),
    ("element: []\n", 1, r"element is not a field\. Did you mean elements\?"),
    ("zzz: 1\n", 1, r"zzz is not a field\. There is: background, bootstrap, elements, size, style\."),
    ("1: 2\n", 1, r"1 is not a field"),
    ("bootstrap:\n  shares: 0.1\n", 2, r"bootstrap\.shares is not a field\. Did you mean share\?"),
    ("background:\n  promt: x\n", 2, r"background\.promt is not a field\. Did you mean prompt\?"),
    ("style: a\nelements: []\nstyle: b\n", 3, "style is there already, in line 1: keep one"),
    ("elements:\n- box: 1\n  box: 2\n", 3, "box is there already, in line 2"),
    ("elements: {a: 1}\n", 1, "elements is a list: begin every element with a dash"),
    ("elements:\n- a cat\n", 2, r"elements\.1 = 'a cat': settings under names"),
    ("size: [64]\n", 1, "size is the canvas's width and height in whole pixels.*, not"),
    ("size: [64, 40.5]\n", 1, "size is the canvas's"),
    ("size: [64, 0]\n", 1, "size is the canvas's"),
    ("size: [true, 40]\n", 1, "size is the canvas's"),
    ("size: 64x40\n", 1, "size is the canvas's .*, not '64x40'"),
    ("size: [640000, 400000]\nelements: [{box: [0, 0, 1, 1]}]\n", 1, "a canvas of 640000x400000 has more than"),
    ("bootstrap: {share: 1}\n", 1, r"bootstrap\.share is at least 0 and below 1, not 1"),
    ("bootstrap: {share: -0.1}\n", 1, r"bootstrap\.share is at least 0 and below 1"),
    ("bootstrap: {share: .nan}\n", 1, r"bootstrap\.share is a finite number, not nan"),
    ("bootstrap: {colours: 0}\n", 1, r"bootstrap\.colours is how many random ones, at least 1"),
    ("bootstrap: {colours: []}\n", 1, r"bootstrap\.colours is how many"),
    ("bootstrap: {colours: [whit]}\n", 1, r"bootstrap\.colours is of colours, and 'whit' is none"),
    ("bootstrap: {colours: [3]}\n", 1, r"bootstrap\.colours is of colours, and 3 is none"),
]


@pytest.mark.parametrize(("text", "line", "said"), FILES, ids=range(len(FILES)))
def test_a_mistake_in_a_scene_file_names_its_line(text: str, line: int, said: str, place: Path) -> None:
    text = text if "size" in text else f"{text}size: [64, 40]\n"
    with pytest.raises(SettingError, match=rf"scene '.*room\.yaml', line {line}: {said}"):
        read(place, text)


ELEMENTS: list[tuple[dict[str, Any], str, str]] = [
    ({"box": [0, 0, "9", 9]}, "box", r"elements\.1\.box is of numbers, and one of \[0, 0, '9', 9\] is a number"),
    ({"box": [0, 0, True, 9]}, "box", "is a number, not True"),
    ({"box": [0, 0, float("nan"), 9]}, "box", "is a finite number, not nan"),
    ({"box": [0, 0, float("inf"), 9]}, "box", "is a finite number, not inf"),
    ({"box": [0, 0, 9]}, "box", r"is four numbers, \[left, top, right, bottom\], not"),
    ({"box": "0 0 9 9"}, "box", "is four numbers"),
    ({"box": [30, 0, 10, 20]}, "box", r"element 1 \('a cat'\) has the corners"),
    ({"box": [70, 0, 90, 20]}, "box", r"element 1 \('a cat'\) lies off the canvas"),
    ({"box": [50, 0, 90, 20]}, "box", r"element 1 \('a cat'\) lies partly off .* box: \[50, 0, 64, 20\]"),
    ({"box": [5, 5, 5, 20]}, "box", r"element 1 \('a cat'\) has no area"),
    ({"box": None, "polygon": [[0, 0], [9, 9]]}, "polygon", "is at least three points"),
    ({"box": None, "polygon": [[0, 0], [9, 9], [5, None]]}, "polygon", "is a number, not None"),
    ({"box": None, "polygon": [[2, 2], [9, 9], [5, 5]]}, "polygon", r"element 1 \('a cat'\) has no area"),
    ({"box": None}, "prompt", r"element 1 \('a cat'\) has no place: give it a box, a polygon or a mask"),
    ({"mask": "place.png"}, "prompt", r"element 1 \('a cat'\) has several places, box and mask: keep one"),
    ({"feather": -1}, "feather", r"elements\.1\.feather goes over a number of pixels, at least 0, not -1"),
    ({"feather": 1.5}, "feather", "is a whole number, not 1.5"),
    ({"feather": 25}, "feather", r"element 1 \('a cat'\) fades in over 25 pixels and is nowhere more than 23%"),
    ({"feather": 99999999}, "feather", "more than the canvas has"),
    ({"weight": 0}, "weight", r"elements\.1\.weight is above 0, not 0"),
    ({"weight": "2"}, "weight", "is a number, not '2'"),
    ({"weight": float("inf")}, "weight", "is a finite number"),
    ({"guidance": float("nan")}, "guidance", "is a finite number, not nan"),
    ({"guidance": False}, "guidance", "is a number, not False"),
    ({"prompt": 3}, "prompt", 'is a text, not 3; in a file write it in quotes: "3"'),
    ({"prompt": None, "label": 1.5}, "label", "is a class by its number or its name, not 1.5"),
    ({"prompt": None, "label": True}, "label", "is a class by its number or its name, not True"),
    ({"label": 1}, "prompt", "has a label and a prompt: a label is for a model of classes"),
    ({"prompt": None, "label": 1, "negative": "x"}, "prompt", "has a label and a negative"),
    ({"prompt": None, "label": 1, "style": "x"}, "prompt", "has a label and a style"),
    ({"box": None, "mask": "black.png"}, "mask", r"\('a cat'\): the mask .*black\.png is black all over"),
    (
        {"box": None, "mask": "short.png"},
        "mask",
        r"the mask .* is 64x30 and the canvas is 64x40; .* at the canvas's size",
    ),
    ({"box": None, "mask": "gone.png"}, "mask", r"\('a cat'\): .*gone\.png is missing"),
    ({"box": None, "mask": "."}, "mask", "is a folder"),
]


@pytest.mark.parametrize(("fields", "at", "said"), ELEMENTS, ids=range(len(ELEMENTS)))
def test_a_mistake_in_an_element_names_it_and_its_line(fields: dict[str, Any], at: str, said: str, place: Path) -> None:
    """The same sentence for plain values, without a line."""
    values = element(**fields)
    (one,) = values["elements"]
    lines = ["size: [64, 40]", "elements:", *(f"  {name}: {json.dumps(value)}" for name, value in one.items())]
    lines[2] = "- " + lines[2].strip()
    text = "\n".join(lines).replace("NaN", ".nan").replace("Infinity", ".inf")
    number = 3 + list(one).index(at)
    with pytest.raises(NeblinaError, match=rf"scene '.*room\.yaml', line {number}: .*{said}"):
        read(place, text)
    with pytest.raises(NeblinaError, match=rf"^(element|elements\.)[ 1].*{said}|{said}"):
        scene_of(values, folder=place)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("size: [64, 40]\nbackground: a room\n", "nothing is placed: give elements, or .* neblina generate"),
        ("size: [64, 40]\nelements: []\n", "the scene is empty: give elements"),
        ("", "size is the canvas's width and height in whole pixels, such as .*, and is missing"),
        ("elements: [{box: [0, 0, 1, 1]}]\n", "size is the canvas's .* is missing"),
        ("- a\n", "is a list; a scene is size, background and elements"),
        ("just words\n", "is a str; a scene is"),
        ("a: [", "is not YAML"),
        ("a: &a [*a]\nsize: [8, 8]\n", "a is not a field"),
        ("size: [8, 8]\n---\nsize: [8, 8]\n", "is not YAML"),
        ("!!python/object:os.system {}\n", "is not YAML"),
        ("[" * 5000, "is not YAML"),
        (
            "size: [8, 8]\nbackground: {label: 1}\nelements: [{prompt: a, box: [0, 0, 1, 1]}]\n",
            r"element 1 \('a'\) has a prompt and the background a label: .* use one of the two",
        ),
        (
            "size: [8, 8]\nstyle: oil\nelements: [{label: 1, box: [0, 0, 1, 1]}]\n",
            r"line 2: style is of words, and element 1 \(label 1\) has a label: leave style out",
        ),
        (
            "size: [64, 40]\nelements: [{box: [0, 0, 1, 1]}]\nbackground:\n  mask: black.png\n",
            "line 4: the background: the mask .* is black all over",
        ),
    ],
)
def test_a_scene_that_is_none_is_refused(text: str, said: str, place: Path) -> None:
    with pytest.raises(NeblinaError, match=said) as error:
        read(place, text)
    assert "room.yaml" in str(error.value)


def test_a_scene_file_that_is_not_there_is_refused_with_what_there_is(place: Path) -> None:
    with pytest.raises(SettingError, match=r"Did you mean living_room\?"):
        read_scene("livingroom")
    for name, said in (("gone.yaml", "is missing"), (".", "is a folder; give a scene file")):
        with pytest.raises(DataError, match=said):
            read_scene(place / name)
    (place / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read as a scene"):
        read_scene(place / "bytes.yaml")


def test_a_scene_file_needs_no_suffix_where_its_path_says_that_it_is_one(place: Path) -> None:
    (place / "own").write_text(WHOLE)
    assert isinstance(scene_of(read_scene(place / "own")), Scene)
