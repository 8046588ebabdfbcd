"""How long the membrane of `tasks/seams.py` takes, and its accuracy: pictures of 1024², float noise at the border.

    OMP_NUM_THREADS=1 python benchmarks/seams.py

Median of three, one thread, all three channels. The residual is the largest difference, in levels of 255, between a
pixel and the mean of its neighbours.
"""

import statistics
from typing import Any

import numpy as np
import torch
from peers import machine, timed

from neblina.tasks.seams import membrane

SIDE = 1024


def masks() -> dict[str, np.ndarray[Any, Any]]:
    row, column = np.mgrid[:SIDE, :SIDE]
    far = np.hypot(row - SIDE / 2, column - SIDE / 2)
    drawn = {name: np.zeros((SIDE, SIDE), bool) for name in ("square of 600", "two strips of 256", "lines")}
    drawn["square of 600"][200:800, 200:800] = True
    drawn["two strips of 256"][:, :256] = drawn["two strips of 256"][:, -256:] = True
    drawn["lines"][:, ::7] = True
    drawn["disk"] = far < 0.47 * SIDE
    drawn["all but a pixel"] = far > 0.5
    return drawn


def residual(surface: np.ndarray[Any, Any], difference: np.ndarray[Any, Any], inside: np.ndarray[Any, Any]) -> float:
    whole = np.where(inside[..., None], surface, difference).astype(np.float64)
    padded = np.pad(whole, ((1, 1), (1, 1), (0, 0)), mode="edge")
    mean = (padded[2:, 1:-1] + padded[:-2, 1:-1] + padded[1:-1, 2:] + padded[1:-1, :-2]) / 4
    return float(np.abs(mean - whole)[inside].max())


def main() -> None:
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    slope = 60 * (np.mgrid[:SIDE, :SIDE][1] / SIDE)[..., None]
    difference = (random.normal(0, 20, (SIDE, SIDE, 3)) + 40 + slope).astype(np.float32)
    print(f"{machine()}\n\n| mask | seconds | residual |\n| --- | ---: | ---: |")
    for name, inside in masks().items():
        seconds = statistics.median(timed(lambda inside=inside: membrane(difference, inside)) for _ in range(3))
        print(f"| {name} | {seconds:.2f} | {residual(membrane(difference, inside), difference, inside):.4f} |")


if __name__ == "__main__":
    main()
