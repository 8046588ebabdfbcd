"""Scores of placement: known canvases have known scores, and the scenes are what they are said to be."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from placement_data import BLANK, SIZES, Digits, canvases, ink_box, put, write
from placement_scoring import (
    CANVAS,
    HEIGHTS,
    WIDTHS,
    Asked,
    Element,
    drawn,
    influence,
    leakage,
    random_scenes,
    scored,
    seen,
)

from neblina.data.order import batch_numbers
from neblina.data.sources import open_pictures
from neblina.evaluation.classifier import ClassifierFeatures


class ByColumns:
    """Stands in for the reader: what it is shown is of class n if n + 1 of the middle row's stripes are bright."""

    def classify(self, pictures: torch.Tensor) -> torch.Tensor:
        middle = (pictures[:, 0, 14] > 127).int()
        stripes = ((middle[:, 1:] - middle[:, :-1]) == 1).sum(1)
        return torch.where(stripes > 0, stripes - 1, BLANK)


READER: ClassifierFeatures = ByColumns()  # type: ignore[assignment]


def striped(label: int, side: int = 20) -> np.ndarray:
    """A square "digit" of that class: one more upright stripe than its number, over its whole width."""
    digit = np.zeros((side, side), np.uint8)
    for place in np.linspace(0, side - 2, label + 1).astype(int) if label else [0]:
        digit[:, place : place + 2] = 255
    return digit


def digits(*labels: int) -> Digits:
    pixels = np.zeros((len(labels), 28, 28), np.uint8)
    for picture, label in zip(pixels, labels, strict=True):
        picture[4:24, 4:24] = striped(label)
    return Digits(pixels, np.array(labels, np.uint8))


SCENE = Asked((56, 64), (Element(1, (4, 6, 24, 26)), Element(2, (36, 30, 60, 54))))


def test_the_digits_asked_for_in_their_boxes_are_all_right_and_nothing_leaks() -> None:
    canvas = np.zeros(SCENE.size, np.uint8)
    canvas[6:26, 4:24] = striped(1)
    canvas[30:54, 36:60] = striped(2, 24)
    (found,) = scored([SCENE], [canvas], READER)
    assert [one.right for one in found.elements] == [True, True]
    assert [one.iou for one in found.elements] == [1.0, 1.0]
    assert not any(one.neglected for one in found.elements)
    assert found.leakage == 0


def test_digits_in_each_other_s_boxes_are_wrong_but_not_neglected() -> None:
    canvas = np.zeros(SCENE.size, np.uint8)
    canvas[6:26, 4:24] = striped(2)
    canvas[30:54, 36:60] = striped(1, 24)
    (found,) = scored([SCENE], [canvas], READER)
    assert [(one.right, one.neglected) for one in found.elements] == [(False, False)] * 2
    assert [one.read for one in found.elements] == [2, 1]


def test_an_empty_box_is_neglected_whatever_is_beside_it() -> None:
    canvas = np.zeros(SCENE.size, np.uint8)
    canvas[30:54, 36:60] = striped(2, 24)
    canvas[0, 4:12] = 255  # in the first box's region, outside the box
    (found,) = scored([SCENE], [canvas], READER)
    assert [one.neglected for one in found.elements] == [True, False]
    assert found.elements[0].iou == 0


def test_iou_and_leakage_are_shares_of_area_and_of_brightness() -> None:
    scene = Asked((32, 32), (Element(0, (8, 8, 24, 24)),))
    canvas = np.zeros(scene.size, np.uint8)
    canvas[8:24, 16:32] = 200  # half inside the box: 128 pixels of 256
    assert leakage(scene, canvas) == 0.5
    (found,) = scored([scene], [canvas], READER)
    assert found.elements[0].iou == pytest.approx(128 / (256 + 256 - 128))
    assert leakage(scene, np.zeros_like(canvas)) == 0


def test_every_pixel_is_of_the_nearest_box() -> None:
    regions = influence(SCENE)
    for number, element in enumerate(SCENE.elements):
        x0, y0, x1, y1 = element.box
        assert (regions[y0:y1, x0:x1] == number).all()
    assert (regions[0, 0], regions[-1, -1]) == (0, 1)


def test_every_size_is_shown_to_the_reader_alike() -> None:
    small, large = np.zeros((56, 56), np.uint8), np.zeros((56, 56), np.uint8)
    small[3:13, 5:15] = 255
    large[8:48, 9:49] = 255
    assert np.array_equal(seen(small, (0, 0, 20, 20)), seen(large, (4, 4, 54, 54)))
    assert seen(small, (0, 0, 20, 20)).sum() == 255 * 20 * 20


def test_scenes_keep_their_promises_and_depend_on_their_number_alone() -> None:
    scenes = random_scenes(40, seed=3)
    assert scenes[:5] == random_scenes(5, seed=3)
    assert {len(scene.elements) for scene in scenes} == {2, 3, 4}
    for scene in scenes:
        assert all(side % 8 == 0 and CANVAS[0] <= side <= CANVAS[1] for side in scene.size)
        owner = np.zeros(scene.size, int)
        for element in scene.elements:
            x0, y0, x1, y1 = element.box
            assert HEIGHTS[0] <= y1 - y0 <= HEIGHTS[1]
            assert WIDTHS[0] <= x1 - x0 <= WIDTHS[1]
            owner[y0:y1, x0:x1] += 1
            assert owner[y0:y1, x0:x1].shape == (y1 - y0, x1 - x0)
        assert owner.max() == 1


def test_real_digits_lie_in_their_boxes() -> None:
    random = np.random.default_rng(0)
    roomy = Asked((56, 80), (Element(1, (4, 6, 32, 34)), Element(2, (36, 10, 76, 50))))
    canvas = drawn(roomy, digits(1, 2), random)
    (found,) = scored([roomy], [canvas], READER)
    assert found.leakage == 0
    assert [one.right for one in found.elements] == [True, True]


def test_training_canvases_hold_a_whole_digit_or_none_and_are_a_source(tmp_path: Path) -> None:
    given = digits(*range(4), *range(4), *range(4))
    made, again = canvases(given, 5), canvases(given, 5)
    assert np.array_equal(made.pixels, again.pixels)
    assert sorted(made.labels) == sorted([*given.labels, BLANK])
    for picture, label in zip(made.pixels, made.labels, strict=True):
        box = ink_box(picture)
        assert (box is None) == (label == BLANK)
        if box is not None:
            assert SIZES[0] - 1 <= max(box[2] - box[0], box[3] - box[1]) <= SIZES[1]
    write(tmp_path, "train", made)
    pictures, _ = open_pictures(str(tmp_path))
    assert (len(pictures), pictures.shape, len(pictures.label_names)) == (13, (1, 56, 56), 11)


def test_a_digit_is_put_whole_wherever_it_fits() -> None:
    canvas = np.zeros((40, 40), np.uint8)
    put(canvas, digits(3).pixels[0], 20, (10, 12, 30, 32), np.random.default_rng(0))
    assert ink_box(canvas) == (10, 12, 30, 32)


def test_the_trainer_meets_blank_canvases_from_the_beginning() -> None:
    """Not so when both draw their order from one generator of one seed."""
    made = canvases(digits(*(number % 4 for number in range(200))), seed=0)
    first = made.labels[batch_numbers(0, len(made.labels), 0, len(made.labels) // 2)]
    assert 3 <= (first == BLANK).sum() <= 17
