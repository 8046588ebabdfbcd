"""The figure that explains the loss: two normal distributions, and their divergence as an area.

    python benchmarks/kl_figure.py docs/images/kl.png

Left, one step of the bound as the densities P = q(x_s|x_t, x_0) and Q = p(x_s|x_t) of one pixel; below it the
integrand p log(p/q), whose area is KL(P ‖ Q). Right, the same divergence against the distance of the means, where both
widths are equal: the parabola (μ_P − μ_Q)²/2σ², which is the squared error that training minimises. Areas are
integrated numerically and must agree with the closed form, or nothing is drawn.
"""

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from neblina.core.atomic import write_file
from neblina.processes.divergences import divergence
from neblina.processes.gaussian import Normal

BLUE, RED, GREY = "#2a6f97", "#d1495b", "#555555"


def one(mean: float, std: float) -> Normal:
    return Normal(torch.tensor([[mean]], dtype=torch.float64), torch.tensor([std], dtype=torch.float64))


def log_density(x: Tensor, mean: float, std: float) -> Tensor:
    return -(((x - mean) / std) ** 2) / 2 - torch.log(torch.tensor(std)) - 0.5 * torch.log(torch.tensor(2 * torch.pi))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("place", type=Path)
    given = parser.parse_args()
    p, q = (0.0, 0.8), (1.3, 1.1)
    x = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    p_x, q_x = log_density(x, *p).exp(), log_density(x, *q).exp()
    integrand = p_x * (log_density(x, *p) - log_density(x, *q))
    area = float(torch.trapezoid(integrand, x))
    closed = float(divergence(one(*p), one(*q)))
    if abs(area - closed) > 1e-6:
        raise SystemExit(f"the area is {area:.9f} and the closed form says {closed:.9f}")

    figure = Figure(figsize=(10, 4.6), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=[1.5, 1])
    above = figure.add_subplot(grid[0, 0])
    above.plot(x, p_x, color=BLUE, lw=2, label=f"P = N({p[0]:g}, {p[1]:g}²): the true step, knowing the clean data")
    above.plot(x, q_x, color=RED, lw=2, label=f"Q = N({q[0]:g}, {q[1]:g}²): the model's step")
    above.set_ylabel("density")
    above.set_ylim(0, 0.78)
    above.legend(fontsize=8, loc="upper left", frameon=False)
    below = figure.add_subplot(grid[1, 0], sharex=above)
    below.plot(x, integrand, color=GREY, lw=1.5)
    for mask, color in ((integrand > 0, BLUE), (integrand < 0, RED)):
        below.fill_between(x, integrand, where=mask.numpy(), color=color, alpha=0.3, lw=0)
    below.axhline(0, color=GREY, lw=0.8)
    below.set_xlim(-3, 4.5)
    below.set_xlabel("$x_s$, one pixel")
    below.set_ylabel("$p\\,\\log(p/q)$")
    below.text(
        0.98,
        0.9,
        f"blue − red area = {area:.4f} nats\nclosed form KL(P ‖ Q) = {closed:.4f} nats",
        transform=below.transAxes,
        ha="right",
        va="top",
        fontsize=9,
    )
    side = figure.add_subplot(grid[:, 1])
    gaps = torch.linspace(-2, 2, 81, dtype=torch.float64)
    for std, color in ((1.0, BLUE), (0.6, RED)):
        nats = divergence(Normal(gaps[:, None], std * torch.ones_like(gaps)), Normal(0 * gaps[:, None], std + 0 * gaps))
        side.plot(gaps, nats, color=color, lw=2, label=f"both of width {std:g}")
    side.set_xlabel("distance of the means")
    side.set_ylabel("KL(P ‖ Q) in nats")
    side.set_title("equal widths: the squared error of the mean", fontsize=9)
    side.legend(fontsize=8, frameon=False)
    for axes in (above, below, side):
        axes.spines[["top", "right"]].set_visible(False)
    write_file(given.place, lambda aside: figure.savefig(aside, dpi=120))
    print(f"area {area:.6f} nats, closed form {closed:.6f} nats: {given.place}")


if __name__ == "__main__":
    main()
