"""Places: pixels whose centre is within, whatever says so; a place that cannot be meant is refused with the fix."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.path import Path as Outline

from neblina.core.errors import SettingError
from neblina.tasks.places import of_box, of_polygon

RANDOM = np.random.default_rng(0)
SIZE = (40, 64)


def corners(box: list[float]) -> list[list[float]]:
    left, top, right, bottom = box
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def test_a_box_holds_its_left_and_upper_pixels_and_not_its_right_and_lower_ones() -> None:
    values = of_box([3, 5, 10, 20], SIZE).values
    expected = np.zeros(SIZE, np.float32)
    expected[5:20, 3:10] = 1
    assert np.array_equal(values, expected)
    assert of_box([3, 5, 10, 20], SIZE).outline == ((3, 5), (10, 5), (10, 20), (3, 20))


def test_a_box_of_fractions_is_the_box_of_pixels_and_the_polygon_of_a_box_is_the_box() -> None:
    height, width = SIZE
    for _ in range(200):
        left, right = sorted(RANDOM.choice(width + 1, 2, replace=False).tolist())
        top, bottom = sorted(RANDOM.choice(height + 1, 2, replace=False).tolist())
        if max(right, bottom) < 2:
            continue  # fractions
        values = of_box([left, top, right, bottom], SIZE).values
        assert values.sum() == (right - left) * (bottom - top)
        fractions = [left / width, top / height, right / width, bottom / height]
        assert np.array_equal(of_box(fractions, SIZE).values, values)
        assert np.array_equal(of_polygon(corners([left, top, right, bottom]), SIZE).values, values)
        assert np.array_equal(of_polygon(corners(fractions), SIZE).values, values)


def test_boxes_that_share_a_border_share_no_pixel_and_leave_none_out() -> None:
    for _ in range(100):
        cut = float(RANDOM.uniform(0.05, 0.95))
        sides = of_box([0, 0, cut, 1], SIZE).values + of_box([cut, 0, 1, 1], SIZE).values
        assert (sides == 1).all()


def test_a_polygon_is_the_pixels_whose_centre_is_within() -> None:
    """Against matplotlib's."""
    down, along = np.mgrid[0 : SIZE[0], 0 : SIZE[1]] + 0.5
    for _ in range(50):
        points = [[float(x), float(y)] for x, y in RANDOM.uniform(2, 38, (3, 2))]
        expected = Outline([*points, points[0]]).contains_points(np.stack([along.ravel(), down.ravel()], 1))
        if expected.any():
            assert np.array_equal(of_polygon(points, SIZE).values, expected.reshape(SIZE))


def test_a_polygon_begins_anywhere_and_goes_either_way() -> None:
    points = [[4, 30], [9.5, 3], [33, 12], [20, 20.25], [40, 37]]
    values = of_polygon(points, SIZE).values
    for turn in range(5):
        turned = points[turn:] + points[:turn]
        assert np.array_equal(of_polygon(turned, SIZE).values, values)
        assert np.array_equal(of_polygon(turned[::-1], SIZE).values, values)


REFUSED: list[tuple[Callable[..., Any], list[Any], str]] = [
    (of_box, [30, 0, 10, 20], r"corners of its box .* other way round: box: \[10, 0, 30, 20\]"),
    (of_box, [10, 20, 30, 5], r"other way round: box: \[10, 5, 30, 20\]"),
    (of_box, [10, 5, 10, 20], r"has no area: box \[10, 5, 10, 20\]"),
    (of_box, [0.2, 0.5, 0.2, 0.9], "has no area"),
    (of_box, [0.2, 0.5, 0.201, 0.9], "less than a pixel large"),
    (of_box, [70, 0, 90, 20], r"lies off the canvas, which reaches from \[0, 0\] to \[64, 40\]"),
    (of_box, [64, 0, 90, 20], "lies off the canvas"),
    (of_box, [-20, 3, -1, 20], "lies off the canvas"),
    (of_box, [5, -9, 10, 0], "lies off the canvas"),
    (of_box, [-0.5, 0, -0.1, 1], r"lies off the canvas, which reaches from \[0, 0\] to \[1, 1\]"),
    (of_box, [50, 10, 70, 45], r"partly off .* cut to the canvas it is box: \[50, 10, 64, 40\]"),
    (of_box, [-0.25, 0.5, 0.5, 1], r"partly off .* cut to the canvas it is box: \[0, 0.5, 0.5, 1\]"),
    (of_box, [0.2, 0.3, 1.2, 0.9], "has 1.2 in its box .*: fractions of the canvas go from 0 to 1"),
    (of_polygon, [[0, 0], [70, 0], [0, 30]], r"partly off .* polygon: \[\[0, 0\], \[64, 0\], \[0, 30\]\]"),
    (of_polygon, [[70, 0], [80, 0], [70, 30]], "lies off the canvas"),
    (of_polygon, [[3, 3], [20, 20], [9, 9]], "has no area"),
    (of_polygon, [[3, 3], [3.2, 3], [3, 3.2]], "has no area"),
]


@pytest.mark.parametrize(("place", "given", "said"), REFUSED, ids=range(len(REFUSED)))
def test_a_place_that_cannot_be_meant_is_refused(place: Callable[..., Any], given: list[Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        place(given, SIZE)
