"""Where to run Heun's method, and on which grid: the worst error over widths of exact Gaussian targets.

    python benchmarks/two_stage.py

With the exact denoiser of N(0, s²) every deterministic step is a number, so the sampled standard deviation is exact.
Each form of the two-stage step is given its best log-SNR-like grid (k^(1/ρ) in equal steps, k = σ/α) out of some 500.
"""

import math
from collections.abc import Callable, Sequence

import torch

from neblina.processes.tables import Linear

STDS = (1.0, 0.5, 0.3, 0.1, 0.05)


def path(k: float, unit: bool) -> tuple[float, float]:
    """(α, σ) at a ratio: variance preserving, or with α = 1."""
    alpha = 1 / math.sqrt(1 + k * k) if unit else 1.0
    return alpha, k * alpha


def step(form: str, x: float, k: float, l: float, std: float, unit: bool) -> float:  # noqa: E741
    """One step from ratio k to l > 0, for data N(0, std²)."""

    def belief(x: float, alpha: float, sigma: float) -> float:
        return alpha * std**2 / (alpha**2 * std**2 + sigma**2) * x

    (a, s), (b, r) = path(k, unit), path(l, unit)
    here = belief(x, a, s)
    euler = r / s * x + (b - a * r / s) * here
    if l == 0 or form == "ddim":
        return euler
    if form == "angle":
        n, m = math.hypot(a, s), math.hypot(b, r)
        turn = math.atan2(r, b) - math.atan2(s, a)
        velocity = a / (s * n) * x - n / s * here
        guess = m * (x / n + turn * velocity)
        return guess + m * turn / 2 * (b / (r * m) * guess - m / r * belief(guess, b, r) - velocity)
    there = belief(euler, b, r)
    if form == "σ/α (EDM, algorithm 1)":
        return euler + b * (k - l) / 2 * ((x - a * here) / s - (euler - b * there) / r)
    if form == "trapezoid in x̂_0":
        return r / s * x + (b - a * r / s) * (here + there) / 2
    h = math.log(k / l)  # exact for x̂_0 linear in log k
    return euler + b * (h - 1 + math.exp(-h)) / h * (there - here)


def worst(form: str, grid: Sequence[float], unit: bool) -> float:
    """Largest relative error of the sampled standard deviation."""
    errors = []
    for std in STDS:
        x = 1.0 if unit else grid[0]
        for k, l in zip(grid[:-1], grid[1:], strict=True):  # noqa: E741, RUF007
            x = step(form, x, k, l, std, unit)
        errors.append(abs(x / std - 1))
    return max(errors)


def grids(first: float) -> list[Callable[[int], list[float]]]:
    """Karras-type grids from t = 1, over ends and exponents."""

    def grid(rho: float, high: float, low: float) -> Callable[[int], list[float]]:
        def make(steps: int) -> list[float]:
            inner = steps if high >= first else steps - 1
            ends = high ** (1 / rho), low ** (1 / rho)
            ratios = [(ends[0] + i / (inner - 1) * (ends[1] - ends[0])) ** rho for i in range(inner)]
            return [*([] if high >= first else [first]), *ratios, 0.0]

        return make

    highs = {min(high, first) for high in (2, 5, 10, 20, 40, 80, 160)}
    lows = (0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.015, 0.01, 0.006)
    return [grid(rho, high, low) for rho in (1.5, 2, 3, 4, 5, 7, 10, 50) for high in highs for low in lows]


def main() -> None:
    schedule = Linear()
    noisiest = math.exp(-float(schedule.log_snr(torch.ones(1, dtype=torch.float64))) / 2)
    forms = ("angle", "σ/α (EDM, algorithm 1)", "trapezoid in x̂_0", "exact for x̂_0 linear in log k")
    print("| two-stage step | path | at 19 evaluations | at 49 |\n| --- | --- | ---: | ---: |")
    for name, first, unit in (("linear (variance preserving)", noisiest, True), ("EDM", 80.0, False)):
        for form in forms:
            results = [(worst(form, grid(10), unit), worst(form, grid(25), unit)) for grid in grids(first)]
            best = min(results, key=lambda pair: max(pair[0] / 0.05, pair[1] / 0.015))
            print(f"| {form} | {name} | {best[0]:.1%} | {best[1]:.1%} |", flush=True)
    t = torch.linspace(1, 0, 21, dtype=torch.float64)
    even = torch.exp(-schedule.log_snr(t) / 2).tolist()
    print(f"\nDDIM, 20 even steps of t on the linear schedule: {worst('ddim', even, True):.0%}")


if __name__ == "__main__":
    main()
