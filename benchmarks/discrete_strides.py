"""What exactness at any stride buys: the masked fraction before every step, beside the released code's fast sampling.

    python benchmarks/discrete_strides.py --out docs/images/discrete-strides.png

VQ-Diffusion's released code (`sample_fast`) strides its grid of 100 steps: at every stride the network is asked and a
single step is taken, the last of the stride; one more evaluation, at the grid's last step, ends the walk and draws all
that is still masked at once. It is re-implemented here with this package's one-step law; ours takes that of the whole
stride. The belief is even over the classes, which changes nothing about how many tokens are masked. Also printed: how
far the law of a pair of dependent tokens is from the enumerated one, in total variation, by the number of evaluations,
under the exact belief.
"""

import argparse
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.noise import Noise, SampleNoise
from neblina.core.plan import Query
from neblina.core.posterior import Categorical
from neblina.denoisers.token_oracles import EnumeratedDenoiser
from neblina.processes.discrete import DiscreteProcess
from neblina.processes.grids import token_grid
from neblina.processes.kernels import absorbing, mask_and_replace, uniform
from neblina.samplers.registry import TokenSampling
from neblina.samplers.tokens import masked_share

STEPS = 100
EVALUATIONS = (100, 50, 25, 10, 5)
TOKENS = 20_000
POINTS, WEIGHTS = torch.tensor([[0, 0], [1, 1], [2, 1], [2, 2]]), torch.tensor([0.4, 0.3, 0.2, 0.1]).double()


class OneStream(SampleNoise):
    """One stream for a whole batch: only its law matters here."""

    def __call__(self, like: Tensor) -> Tensor:
        return super().__call__(like[None])[0]


def strides(evaluations: int, *, released: bool) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Of each evaluation: the time that the network is told, and those that the step goes from and to, shape (1,)."""
    if not released:
        return [(t[None], t[None], s[None]) for t, s in pairwise(token_grid(evaluations, STEPS))]
    skip = STEPS // evaluations - 1
    asked = list(range(STEPS - 1, -1, -1 - skip))
    asked += [] if asked[-1] == 0 else [0]
    taken = [index - skip if index > skip else index for index in asked]
    return [
        tuple(torch.tensor([step / STEPS], dtype=torch.float64) for step in (index + 1, at + 1, at))  # type: ignore[misc]
        for index, at in zip(asked, taken, strict=True)
    ]


def stride(process: DiscreteProcess, x: Tensor, evaluations: int, *, released: bool, noise: Noise) -> TokenSampling:
    """Walk from noise, shape (B, *), to data."""
    for asked, t, s in strides(evaluations, released=released):
        belief = yield Query(x, asked.expand(len(x)))
        x = process.reverse(x, t.expand(len(x)), s.expand(len(x)), belief).sample(noise)
    return x


def masked(process: DiscreteProcess, evaluations: int, *, released: bool) -> list[float]:
    """The masked fraction before every step, and after the last."""
    classes, noise, found = process.kernel.classes, OneStream(0, [0]), []

    def even(query: Query) -> Categorical:
        found.append(float((query.x == classes).double().mean()))
        return Categorical(torch.zeros(1, TOKENS, classes).log_softmax(-1))

    x = answered(stride(process, process.prior((1, TOKENS), noise), evaluations, released=released, noise=noise), even)
    return [*found, float((x == classes).double().mean())]


def apart(process: DiscreteProcess, evaluations: int, *, released: bool, count: int = 20_000) -> float:
    """Total variation of a pair of dependent tokens from its law."""
    denoiser, noise, states = EnumeratedDenoiser(process, POINTS, WEIGHTS), OneStream(1, [0]), process.kernel.states
    walk = stride(process, process.prior((count, 2), noise), evaluations, released=released, noise=noise)
    x = answered(walk, lambda query: denoiser.posterior(query.x, query.t, Condition()))
    shares = torch.bincount(x[:, 0] * states + x[:, 1], minlength=states**2).double() / count
    truth = torch.zeros(states**2, dtype=torch.float64).index_put((POINTS[:, 0] * states + POINTS[:, 1],), WEIGHTS)
    return float((shares - truth).abs().sum() / 2)


def answered(walk: TokenSampling, belief: Callable[[Query], Categorical]) -> Tensor:
    """Where a walk ends."""
    try:
        query = next(walk)
        while True:
            query = walk.send(belief(query))
    except StopIteration as end:
        return end.value


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    process = DiscreteProcess(mask_and_replace(3, masked=0.9))
    print("masked tokens before the last evaluation, and the largest distance from theory before any step:\n")
    print("| evaluations | released rule: masked | theory | ours: masked | theory | ours, any step: off by |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    curves = {}
    for count in EVALUATIONS:
        theirs, ours = (masked(process, count, released=one) for one in (True, False))
        theory = masked_share(process, token_grid(count, STEPS)).tolist()
        off = max(abs(one - other) for one, other in zip(ours, theory, strict=True))
        curves[count] = (theirs, ours, theory)
        share = float(masked_share(process, strides(count, released=True)[-1][0]))
        print(
            f"| {count} | {theirs[-2]:.1%} | {share:.1%} | {ours[-2]:.1%} | {theory[-2]:.1%} | {off:.2%} |",
            flush=True,
        )
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
        asked = [float(one[0]) for one in strides(count, released=True)]
        axes.plot([*asked, 0.0], theirs, "x", color="#d1495b", markersize=4, label="released rule")
        axes.set_title(f"{count} evaluations", fontsize=10)
        axes.set_xlabel("t")
        axes.invert_xaxis()
    panels[0].set_ylabel("masked tokens")
    panels[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(place, dpi=110)


if __name__ == "__main__":
    main()
