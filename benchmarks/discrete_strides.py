"""What exactness at any stride buys: the masked fraction before every step, beside the released code's fast sampling.

    python benchmarks/discrete_strides.py --out docs/images/discrete-strides.png

VQ-Diffusion's released code strides its grid of 100 steps and takes, at every one of the fewer steps, the posterior of
a single step back; it is re-implemented here with this package's one-step law. Ours takes the law of the whole stride.
The belief is even over the classes, which changes nothing about how many tokens are masked. Also printed: how far the
law of a pair of dependent tokens is from the enumerated one, in total variation, by the number of evaluations, under
the exact belief.
"""

import argparse
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.noise import SampleNoise
from neblina.core.posterior import Categorical
from neblina.denoisers.token_oracles import EnumeratedDenoiser
from neblina.processes.discrete import DiscreteProcess
from neblina.processes.grids import token_grid
from neblina.processes.kernels import absorbing, mask_and_replace, uniform
from neblina.samplers.tokens import masked_share

STEPS = 100
EVALUATIONS = (100, 50, 25, 10, 5)
TOKENS = 20_000
POINTS, WEIGHTS = torch.tensor([[0, 0], [1, 1], [2, 1], [2, 2]]), torch.tensor([0.4, 0.3, 0.2, 0.1]).double()


class Noise(SampleNoise):
    """One stream for a whole batch: only its law matters here."""

    def __call__(self, like: Tensor) -> Tensor:
        return super().__call__(like[None])[0]


def masked(process: DiscreteProcess, evaluations: int, *, released: bool) -> list[float]:
    """The masked fraction before every step."""
    classes, noise, times = process.kernel.classes, Noise(0, [0]), token_grid(evaluations, STEPS)
    x = process.prior((1, TOKENS), noise)
    even = Categorical(torch.zeros(1, TOKENS, classes).log_softmax(-1))
    found = []
    for t, s in pairwise(times):
        found.append(float((x == classes).double().mean()))
        to = t - 1 / STEPS if released else s
        x = process.reverse(x, t[None], to[None].clamp(min=0), even).sample(noise)
    return [*found, float((x == classes).double().mean())]


def apart(process: DiscreteProcess, evaluations: int, *, released: bool, count: int = 20_000) -> float:
    """Total variation of a pair of dependent tokens from its law; what is still masked counts as wrong."""
    denoiser, noise, times = EnumeratedDenoiser(process, POINTS, WEIGHTS), Noise(1, [0]), token_grid(evaluations, STEPS)
    x, states = process.prior((count, 2), noise), process.kernel.states
    for t, s in pairwise(times):
        to = (t - 1 / STEPS if released else s).clamp(min=0)
        belief = denoiser.posterior(x, t.expand(count), Condition())
        x = process.reverse(x, t.expand(count), to.expand(count), belief).sample(noise)
    shares = torch.bincount(x[:, 0] * states + x[:, 1], minlength=states**2).double() / count
    truth = torch.zeros(states**2, dtype=torch.float64).index_put((POINTS[:, 0] * states + POINTS[:, 1],), WEIGHTS)
    return float((shares - truth).abs().sum() / 2)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    process = DiscreteProcess(mask_and_replace(3, masked=0.9))
    print("masked tokens left after the last step, and the largest distance from theory before any step:\n")
    print("| evaluations | released rule: left | ours: left | ours: off theory by |")
    print("| ---: | ---: | ---: | ---: |")
    curves = {}
    for count in EVALUATIONS:
        theirs, ours = (masked(process, count, released=one) for one in (True, False))
        theory = masked_share(process, token_grid(count, STEPS)).tolist()
        off = max(abs(one - other) for one, other in zip(ours, theory, strict=True))
        curves[count] = (theirs, ours, theory)
        print(f"| {count} | {theirs[-1]:.1%} | {ours[-1]:.1%} | {off:.2%} |", flush=True)
    print("\ntotal variation from the law of two dependent tokens, under the exact belief:\n")
    kernels = {"uniform": uniform(3), "absorbing": absorbing(3), "mask-and-replace": mask_and_replace(3, masked=0.9)}
    print("| evaluations | " + " | ".join(kernels) + " | mask-and-replace, released rule |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for count in EVALUATIONS:
        row = [apart(DiscreteProcess(kernel), count, released=False) for kernel in kernels.values()]
        row.append(apart(process, count, released=True))
        print(f"| {count} | " + " | ".join(f"{one:.3f}" for one in row) + " |", flush=True)
    if given.out is not None:
        plot(curves, given.out)


def plot(curves: dict[int, tuple[list[float], list[float], list[float]]], place: Path) -> None:
    """Masked fractions over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [count for count in curves if count in (50, 10, 5)]
    figure, panels = pyplot.subplots(1, len(shown), figsize=(9, 3), sharey=True)
    for axes, count in zip(panels, shown, strict=True):
        theirs, ours, theory = curves[count]
        times = token_grid(count, STEPS).tolist()
        axes.plot(times, theory, color="black", linewidth=1, label="theory")
        axes.plot(times, ours, "o", color="#2a6f97", markersize=4, label="ours")
        axes.plot(times, theirs, "x", color="#d1495b", markersize=4, label="released rule")
        axes.set_title(f"{count} evaluations", fontsize=10)
        axes.set_xlabel("t")
        axes.invert_xaxis()
    panels[0].set_ylabel("masked tokens")
    panels[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(place, dpi=110)


if __name__ == "__main__":
    main()
