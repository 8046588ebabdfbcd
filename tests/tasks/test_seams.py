"""The membrane solves Laplace's equation, and with it no seam is left while the photo keeps its bytes."""

import time
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import spsolve

from neblina.core.errors import DivergenceError, SettingError
from neblina.tasks.masks import paste
from neblina.tasks.seams import membrane, paste_seamlessly

RANDOM = np.random.default_rng(0)
Array = np.ndarray[Any, Any]


def solved_directly(difference: Array, inside: Array) -> Array:
    """The same equations, written down pixel by pixel and solved at once."""
    number = np.full(inside.shape, -1)
    number[inside] = np.arange(inside.sum())
    entries, force = [], np.zeros((inside.sum(), difference.shape[2]))
    for row, column in np.argwhere(inside):
        here, neighbours = number[row, column], 0
        for there in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
            if 0 <= there[0] < inside.shape[0] and 0 <= there[1] < inside.shape[1]:
                neighbours += 1
                if inside[there]:
                    entries.append((here, number[there], -1.0))
                else:
                    force[here] += difference[there]
        entries.append((here, here, float(neighbours)))
    rows, columns, weights = zip(*entries, strict=True)
    surface = np.zeros(difference.shape)
    surface[inside] = spsolve(coo_matrix((weights, (rows, columns))).tocsc(), force).reshape(force.shape)
    return surface


def drawn(kind: str, height: int, width: int) -> Array:
    inside = np.zeros((height, width), bool)
    if kind == "blocks":  # several, some of them at the picture's border
        for _ in range(4):
            top, left = RANDOM.integers(0, height), RANDOM.integers(0, width)
            inside[top : top + RANDOM.integers(1, 25), left : left + RANDOM.integers(1, 25)] = True
    elif kind == "lines":
        inside[::3] = True
        inside[:, width // 2] = True
    elif kind == "points":
        inside = RANDOM.random((height, width)) < 0.2
    elif kind == "sponge":
        inside = RANDOM.random((height, width)) < 0.7
    elif kind == "ring":
        row, column = np.mgrid[:height, :width]
        far = np.hypot(row - height / 2, column - width / 2)
        inside = (far < 0.4 * min(height, width)) & (far > 0.2 * min(height, width))
    elif kind == "strips":  # as outpainting marks them
        inside[:, : width // 4] = inside[:, -width // 3 :] = True
    elif kind == "all but one":
        inside[:] = True
        inside[height // 3, 0] = False
    return inside


@pytest.mark.parametrize("kind", ["blocks", "lines", "points", "sponge", "ring", "strips", "all but one"])
@pytest.mark.parametrize("size", [(64, 64), (37, 71), (9, 50), (1, 40), (2, 2)])
def test_the_membrane_is_the_direct_solution(kind: str, size: tuple[int, int]) -> None:
    for _ in range(3):
        inside = drawn(kind, *size)
        if inside.all() or not inside.any():
            continue
        difference = (RANDOM.normal(0, 40, (*size, 3)) + RANDOM.normal(0, 60)).astype(np.float32)
        found = membrane(difference, inside)
        assert np.abs(found - solved_directly(difference, inside)).max() < 0.02
        assert (found[~inside] == 0).all()


def test_with_no_border_there_is_nothing_to_meet() -> None:
    difference = RANDOM.normal(0, 40, (20, 30, 3)).astype(np.float32)
    assert not membrane(difference, np.ones((20, 30), bool)).any()
    assert not membrane(difference, np.zeros((20, 30), bool)).any()


def photo(height: int = 96, width: int = 128) -> Array:
    row, column = np.mgrid[:height, :width]
    waves = [120 + 80 * np.sin(row / 9 + shift) * np.cos(column / 13) for shift in (0, 1, 2)]
    return np.stack(waves, -1).round().astype(np.uint8)


@pytest.mark.parametrize("kind", ["blocks", "lines", "points", "ring", "strips", "all but one"])
def test_a_shift_of_colour_vanishes_altogether(kind: str) -> None:
    original = photo()
    made = original.astype(np.float32) + np.array([12.0, -20.0, 7.0], np.float32)
    values = drawn(kind, *original.shape[:2]).astype(np.float32)
    assert np.array_equal(paste_seamlessly(original, made, values), original)


def test_no_step_is_left_at_the_seam_and_the_outside_keeps_its_bytes() -> None:
    """A picture of other contrast and colour: the step over the seam, beyond the made picture's own slope there."""
    original = photo()
    made = (0.6 * original + 90).round().astype(np.uint8)
    inside = drawn("ring", *original.shape[:2])
    values = inside.astype(np.float32)

    def step(pasted: Array) -> float:
        total = []
        for axis in (0, 1):
            seam = np.diff(inside.astype(int), axis=axis) != 0
            beyond = np.diff(pasted.astype(float), axis=axis) - np.diff(made.astype(float), axis=axis)
            total.append(np.abs(beyond[seam]).ravel())
        return float(np.concatenate(total).mean())

    plain, seamless = paste(original, made, values), paste_seamlessly(original, made, values)
    assert step(plain) > 30
    assert step(seamless) < 3
    assert np.array_equal(seamless[~inside], original[~inside])


def test_a_soft_mask_keeps_its_outside_and_its_share() -> None:
    original = photo()
    made = np.full_like(original, 200)
    values = np.zeros(original.shape[:2], np.float32)
    values[20:60, 30:90] = 0.5
    pasted = paste_seamlessly(original, made, values)
    assert np.array_equal(pasted[values == 0], original[values == 0])
    whole = paste_seamlessly(original, made, np.ceil(values)).astype(float)
    assert np.abs(pasted - (whole + original) / 2).max() <= 1


def test_a_picture_that_is_not_finite_or_of_another_size_is_refused() -> None:
    original = photo()
    values = np.zeros(original.shape[:2], np.float32)
    values[3:9, 3:9] = 1
    with pytest.raises(DivergenceError, match="not finite"):
        paste_seamlessly(original, np.full(original.shape, np.nan, np.float32), values)
    with pytest.raises(SettingError, match="do not lie on"):
        paste_seamlessly(original, original[:-1], values)


@pytest.mark.slow
def test_a_large_picture_takes_seconds() -> None:
    """A solver that does not slow down with the size; the figures are in benchmarks/seams.py."""
    inside = drawn("strips", 1024, 1024)
    difference = RANDOM.normal(0, 40, (1024, 1024, 3)).astype(np.float32)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    began = time.process_time()
    membrane(difference, inside)
    torch.set_num_threads(threads)
    assert time.process_time() - began < 10
