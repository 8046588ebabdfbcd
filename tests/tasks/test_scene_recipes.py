"""A composed picture holds its scene: it is made again without the file, and its masks are known by their bytes."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import small_bundle
from PIL import Image

from neblina.bundle.folder import save_bundle
from neblina.core.errors import DataError, SettingError
from neblina.tasks.describing import describe
from neblina.tasks.keeping import keep
from neblina.tasks.making import make, open_model
from neblina.tasks.order import Order, in_turn
from neblina.tasks.provenance import Input, Provenance, read_provenance, save_picture
from neblina.tasks.reproducing import difference, order_from
from neblina.tasks.scenes import read_scene

FILE = """\
size: [24, 16]
background: {label: 0, mask: behind.png}
elements:
  - {label: 1, box: [0, 0, 0.5, 1]}
  - {label: 2, mask: place.png, weight: 2}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A model of classes, a scene and its masks."""
    save_bundle(small_bundle(classes=3, schedule="cosine", parameterisation="v"), tmp_path / "model")
    values = np.zeros((16, 24), np.uint8)
    values[4:12, 10:20] = 255
    Image.fromarray(values).save(tmp_path / "place.png")
    Image.fromarray(255 - values).save(tmp_path / "behind.png")
    (tmp_path / "room.yaml").write_text(FILE)
    return tmp_path


def kept(order: Order, folder: Path) -> list[Path]:
    return keep(make(order, open_model(order, device="cpu")), folder)


def composed(place: Path, **arguments: Any) -> list[Path]:
    given = {"scene": read_scene(place / "room.yaml"), "steps": 3, **arguments}
    return kept(Order("compose", str(place / "model"), given), place / "made")


def again(order: Order) -> torch.Tensor:
    (made,) = make(order, open_model(order, device="cpu"))
    return made.picture


def test_a_composed_picture_is_made_again_without_its_scene_file(place: Path) -> None:
    pictures = composed(place, n=3, seed=5)
    (place / "room.yaml").unlink()
    for picture in pictures:
        order, notes = order_from(picture)
        assert notes == []
        off = again(order).int() - torch.from_numpy(np.array(Image.open(picture))).permute(2, 0, 1).int()
        assert int(off.abs().max()) <= 1  # another batch shape
        (alone,) = kept(order, place / "again")
        assert difference(alone, again(order_from(alone)[0])).startswith("the same picture, to the byte")
        json.dumps(describe(str(alone)))


def test_a_recipe_holds_the_scene_with_its_defaults_and_its_masks_by_their_bytes(place: Path) -> None:
    (picture,) = composed(place)
    said = read_provenance(picture)
    assert said.arguments["scene"] == {**read_scene(place / "room.yaml"), "bootstrap": {"share": 0.2, "colours": 8}}
    assert {name: Path(one.path).name for name, one in said.inputs.items()} == {
        "mask of element 2": "place.png",
        "mask of the background": "behind.png",
    }
    assert len({one.sha256 for one in said.inputs.values()}) == 2


def test_masks_that_moved_are_found_and_masks_that_changed_are_refused(place: Path) -> None:
    (picture,) = composed(place)
    (place / "moved").mkdir()
    for name in ("place.png", "behind.png"):
        shutil.move(place / name, place / "moved" / name)
    with pytest.raises(DataError, match=r"place\.png, .* \(mask of element 2\), is not there: say where with --inputs"):
        order_from(picture)
    order, _ = order_from(picture, folder=place / "moved")
    assert order.arguments["scene"]["elements"][1]["mask"] == str(place / "moved" / "place.png")
    assert "to the byte" in difference(picture, again(order))
    Image.fromarray(np.full((16, 24), 255, np.uint8)).save(place / "moved" / "behind.png")
    with pytest.raises(DataError, match=r"behind\.png is not the file .* \(mask of the background\)"):
        order_from(picture, folder=place / "moved")


def test_a_scene_of_paths_and_tuples_is_plain_values_in_an_order(place: Path) -> None:
    scene = {"size": (24, 16), "elements": ({"label": 2, "mask": place / "place.png"},)}
    order = Order("compose", "model", {"scene": scene})
    assert order.arguments["scene"] == {
        "size": [24, 16],
        "elements": [{"label": 2, "mask": str(place / "place.png")}],
    }
    order.check()
    for wrong in (3, "room.yaml", [scene]):
        with pytest.raises(SettingError, match="scene of compose is values by name, not"):
            Order("compose", "model", {"scene": wrong}).check()
    with pytest.raises(SettingError, match="compose takes a scene, and none is given"):
        Order("compose", "model").check()


@pytest.mark.parametrize(
    "scene",
    [{}, {"size": [8, 8], "elements": 3}, {"size": [8, 8], "elements": [{"promt": "x"}]}, {"elements": [{"mask": 3}]}],
)
def test_a_picture_with_a_damaged_scene_is_refused(scene: dict[str, Any], tmp_path: Path) -> None:
    inputs = {"mask of element 1": Input("a", "b")}
    save_picture(torch.zeros(3, 8, 8), tmp_path / "a.png", Provenance("compose", "model", "", {"scene": scene}, inputs))
    with pytest.raises(DataError, match="the recipe in the picture is damaged"):
        order_from(tmp_path / "a.png")
    with pytest.raises(SettingError):  # before there is a model
        open_model(Order("compose", str(tmp_path / "nothing"), {"scene": scene}))


def test_all_labels_of_a_panorama_are_in_every_picture_and_in_its_recipe(place: Path) -> None:
    order = Order("panorama", str(place / "model"), {"labels": [0, 1, 2], "size": "32x8", "steps": 3, "n": 2})
    pictures = kept(order, place / "made")
    assert len(pictures) == 2
    for picture in pictures:
        assert read_provenance(picture).arguments["labels"] == [0, 1, 2]
        found, notes = order_from(picture)
        assert notes == []
        off = again(found).int() - torch.from_numpy(np.array(Image.open(picture))).permute(2, 0, 1).int()
        assert int(off.abs().max()) <= 1
    assert len(kept(Order("panorama", str(place / "model"), {"labels": [0, 1], "size": "16x8"}), place / "one")) == 1
    assert in_turn("generate", order.arguments) == {"labels": [0, 1, 2]}
