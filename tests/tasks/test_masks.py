"""White is changed and black is kept, to the byte; a mask that cannot be meant is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photo_files import deep_png
from PIL import Image
from scipy.ndimage import binary_opening, distance_transform_edt

from neblina.core.errors import DataError, DivergenceError, SettingError
from neblina.tasks.masks import feather, paste, read_mask, thinness, to_latent

RANDOM = np.random.default_rng(0)
SIZE = (24, 40)


def square() -> np.ndarray[Any, Any]:
    values = np.zeros(SIZE, np.uint8)
    values[8:16, 8:24] = 255
    return values


def saved(values: np.ndarray[Any, Any], place: Path, **settings: Any) -> Path:
    Image.fromarray(values).save(place, **settings)
    return place


def random_mask(size: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Blobs, lines and points, at times none or everything, hard or soft."""
    values = np.zeros(size, np.float32)
    for _ in range(RANDOM.integers(0, 6)):
        top, left = (RANDOM.integers(0, side) for side in size)
        height, width = RANDOM.integers(1, 30, 2)
        values[top : top + height, left : left + width] = RANDOM.choice([1.0, RANDOM.uniform(0.001, 1)])
    return values


def test_white_is_changed_black_is_kept_and_grey_is_between(tmp_path: Path) -> None:
    values = square()
    values[0, :3] = (1, 128, 254)
    mask = read_mask(saved(values, tmp_path / "mask.png"), SIZE)
    assert np.array_equal(mask.values, values.astype(np.float32) / 255)
    assert mask.values.max() == 1
    assert mask.changes == ()


@pytest.mark.parametrize("mode", ["1", "RGB", "P", "LA"])
def test_the_same_mask_in_any_mode_is_the_same_mask(mode: str, tmp_path: Path) -> None:
    Image.fromarray(square()).convert(mode).save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png", SIZE).values, square() / 255)


def test_sixteen_bits_keep_their_softness(tmp_path: Path) -> None:
    values = square().astype(np.int64)[..., None] * 257
    values[0, 0] = 32768
    (tmp_path / "mask.png").write_bytes(deep_png(values))
    assert read_mask(tmp_path / "mask.png", SIZE).values[0, 0] == pytest.approx(0.5, abs=0.003)


def test_white_strokes_on_a_transparent_layer_are_a_mask(tmp_path: Path) -> None:
    layer = np.dstack([np.full((*SIZE, 3), 255, np.uint8), square()])
    assert np.array_equal(read_mask(saved(layer, tmp_path / "mask.png"), SIZE).values, square() / 255)


def test_a_jpeg_has_no_soft_edge(tmp_path: Path) -> None:
    drawn = np.roll(square(), (3, 3), (0, 1))
    dirty = np.asarray(Image.open(saved(drawn, tmp_path / "mask.jpg", quality=40)))
    assert len(np.unique(dirty)) > 2
    mask = read_mask(tmp_path / "mask.jpg", SIZE)
    assert np.array_equal(mask.values, drawn / 255)
    assert "lossy" in mask.changes[-1]


def coloured(place: Path) -> None:
    values = np.dstack([square(), square() // 4, square() // 4])
    saved(values, place)


def erased(place: Path) -> None:
    saved(np.dstack([RANDOM.integers(0, 256, (*SIZE, 3), dtype=np.uint8), 255 - square()]), place)


REFUSED: list[tuple[Callable[[Path], Any], str]] = [
    (lambda place: saved(square()[:, :30], place), "is 30x24 and the photo is 40x24"),
    (lambda place: saved(square().T.copy(), place), "is 24x40 and the photo is 40x24"),
    (lambda place: saved(0 * square(), place), "black all over: it marks nothing"),
    (lambda place: saved(0 * square() + 255, place), "white all over.*neblina generate"),
    (coloured, r"is coloured \(at column 8, row 8\)"),
    (erased, "is coloured .*; to use its transparency, save that"),
    (lambda place: None, "is missing"),
]


@pytest.mark.parametrize(("make", "said"), REFUSED, ids=range(len(REFUSED)))
def test_a_mask_that_cannot_be_meant_is_refused(make: Callable[[Path], Any], said: str, tmp_path: Path) -> None:
    make(tmp_path / "mask.png")
    with pytest.raises(DataError, match=said):
        read_mask(tmp_path / "mask.png", SIZE)


@pytest.mark.parametrize("factor", [1, 4, 8])
def test_no_marked_pixel_lies_in_an_unmarked_cell_and_no_cell_is_marked_for_nothing(factor: int) -> None:
    for _ in range(30):
        values = random_mask((48, 64))
        cells = to_latent(values, factor)
        back = cells.repeat(factor, 0).repeat(factor, 1)
        assert (back >= values).all()
        for row, column in np.argwhere(cells > 0):
            cell = values[row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
            assert cells[row, column] == cell.max()
    with pytest.raises(SettingError, match="63x48 does not divide into cells of 8x8"):
        to_latent(np.zeros((48, 63), np.float32), 8)


def test_a_line_of_one_pixel_is_on_the_grid_wherever_it_lies() -> None:
    for row in range(32):
        values = np.zeros((32, 32), np.float32)
        values[row] = 1
        assert np.array_equal(np.flatnonzero(to_latent(values, 8).all(1)), [row // 8])


def test_a_mask_is_thin_where_no_square_of_a_cell_fits() -> None:
    """Against the opening by a square of a cell's size."""
    verdicts = set()
    for _ in range(60):
        values = random_mask((40, 56))
        fits = binary_opening(values > 0, np.ones((8, 8))).any()
        said = thinness(values, 8)
        assert (said is None) == fits
        verdicts.add(bool(fits))
    assert verdicts == {True, False}
    line = np.zeros((40, 56), np.float32)
    line[3:10] = 1
    assert "nowhere 8 pixels wide and high" in str(thinness(line, 8))
    assert thinness(line, 7) is None


@pytest.mark.parametrize("radius", [0, 1, 5, 40])
def test_a_feathered_mask_falls_with_the_distance_to_its_outside_and_stays_0_there(radius: int) -> None:
    for _ in range(20):
        values = random_mask((50, 60))
        soft = feather(values, radius)
        assert ((soft == 0) == (values == 0)).all()
        if (values == 0).any():
            depth = distance_transform_edt(values > 0)
            assert np.allclose(soft, values * np.minimum(depth / (radius + 1), 1), atol=1e-6)
        else:
            assert np.array_equal(soft, values)
    assert np.array_equal(feather(values, 0), values)
    with pytest.raises(SettingError, match="at least 0, not -1"):
        feather(values, -1)


def test_the_outside_of_any_mask_comes_back_to_the_byte() -> None:
    for number in range(50):
        size = tuple(RANDOM.integers(1, 70, 2))
        original, made = (RANDOM.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(2))
        values = random_mask(size)
        given = made + RANDOM.normal(0, 30, made.shape).astype(np.float32) if number % 2 else made
        pasted = paste(original, given, values)
        assert pasted.dtype == np.uint8
        assert np.array_equal(pasted[values == 0], original[values == 0])
        assert np.array_equal(pasted[values == 1], given[values == 1].round().clip(0, 255))
        between = np.minimum(original, given.clip(0, 255)) - 0.5, np.maximum(original, given) + 0.5
        assert ((pasted >= between[0]) & (pasted <= between[1])).all()


def test_pictures_that_do_not_lie_on_each_other_are_not_pasted() -> None:
    original = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(SettingError, match="do not lie on"):
        paste(original, original[:7], np.ones((8, 8), np.float32))
    with pytest.raises(SettingError, match="do not lie on"):
        paste(original, original, np.ones((8, 7), np.float32))


def test_a_picture_that_is_not_finite_is_not_pasted_as_black() -> None:
    original = np.zeros((8, 8, 3), np.uint8)
    made = original.astype(np.float32)
    made[3, 3, 0] = np.nan
    with pytest.raises(DivergenceError, match="not finite"):
        paste(original, made, np.ones((8, 8), np.float32))
