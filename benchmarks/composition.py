"""Composing a canvas, against the authors' procedure in one process, on the same network and with equal pictures.

    python benchmarks/composition.py [--size tiny small] [--rounds 5] [--clock cpu]
    python benchmarks/composition.py --size sd --steps 1 --rounds 3
    python benchmarks/composition.py --views [--size tiny small]
    python benchmarks/composition.py --memory

The authors' procedure is that of the released code, written anew: at every step a loop over views and prompts, each
with its two branches of guidance in one call, a DDIM step of each view by itself, and the mean of what comes out. Ours
is `generate` with a `Composition`, everything in one call a step. The sides take turns; the ratio is the median over
rounds, of wall time, or of processor time for a machine that is shared (with OMP_NUM_THREADS=1). Networks are U-Nets
of Stable Diffusion's kind with random weights; `small` is a tenth of its width.

--views says what a view costs by how many there are. --memory samples two steps on canvases of several sizes in
processes of their own, and says the most that was resident over what it was when the network had been made.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import torch
from peers import compare, machine
from sd_model import TEXT, TINY_UNET, UNET, fill
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.windows import Cover, Window, cover
from neblina.denoisers.denoiser import NetworkDenoiser
from neblina.guidance.settings import Composition, GuidanceSettings, Place
from neblina.processes.gaussian import GaussianProcess
from neblina.processes.grids import make_grid
from neblina.processes.tables import ScaledLinear
from neblina.samplers.generate import generate

WEIGHT = 7.5
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
CONFIGS: dict[str, dict[str, Any]] = {
    "tiny": TINY_UNET,
    "small": {**UNET, "sample_size": 32, "block_out_channels": [32, 64, 128], "attention_head_dim": 4}
    | {"down_block_types": UNET["down_block_types"][1:], "up_block_types": UNET["up_block_types"][:-1]}
    | {"cross_attention_dim": 64},
    "sd": UNET,
}


@dataclass(frozen=True)
class Case:
    """A canvas and what is asked for on it.

    Attributes:
        denoiser: of the network.
        canvas: (h, w) in cells.
        masks: of each prompt, shape (h, w); they cover the canvas.
        texts: of each prompt, and of what it goes away from.
        views: windows of the canvas.
        steps: of DDIM.
    """

    denoiser: NetworkDenoiser
    canvas: tuple[int, int]
    masks: list[Tensor]
    texts: list[tuple[Tensor, Tensor]]
    views: Cover
    steps: int

    @property
    def times(self) -> Tensor:
        return make_grid("uniform", self.denoiser.process.schedule, max(self.steps, 2))[: self.steps + 1]

    @property
    def noise(self) -> Tensor:
        from neblina.core.noise import SampleNoise

        return SampleNoise(0, [0])(torch.empty(1, 4, *self.canvas))


def network(size: str) -> NetworkDenoiser:
    """A denoiser of random weights that keep what goes through at its size."""
    from neblina.bundle.components import build_module

    module = build_module(CONFIGS[size], "unet")
    torch.manual_seed(0)
    fill(module)
    net = module.float().eval()
    net.channels_last()
    return NetworkDenoiser(net, GaussianProcess(ScaledLinear()), "eps", wants=net.config.wants)


def case(size: str, denoiser: NetworkDenoiser, prompts: int, windows: int, steps: int, *, shared: bool = True) -> Case:
    """So many prompts side by side on a canvas of so many windows, half of each shared with the next.

    Args:
        shared: whether all prompts go away from the same text.
    """
    side = CONFIGS[size]["sample_size"]
    canvas = side, side + (windows - 1) * (side // 2)
    generator = torch.Generator().manual_seed(0)
    width = CONFIGS[size]["cross_attention_dim"]
    masks = []
    for number in range(prompts):
        mask = torch.zeros(canvas)
        mask[:, number * canvas[1] // prompts : (number + 1) * canvas[1] // prompts] = 1
        masks.append(mask)
    texts = [torch.randn(1, TEXT[0], width, generator=generator) for _ in range(prompts)]
    away = [torch.randn(1, TEXT[0], width, generator=generator) for _ in range(1 if shared else prompts)]
    said = [(text, away[0 if shared else number]) for number, text in enumerate(texts)]
    return Case(denoiser, canvas, masks, said, cover(canvas, side, side // 2, even=True), steps)


@torch.no_grad()
def theirs(one: Case) -> Tensor:
    """The released procedure: a call for every view and prompt, a step of each by itself, the mean of the steps."""
    schedule, net, x = one.denoiser.process.schedule, one.denoiser.net, one.noise
    for t, s in pairwise(one.times):
        time = one.denoiser.read_clock(schedule, t[None]).float()
        (a_t, s_t), (a_s, s_s) = ((float(schedule.alpha(each)), float(schedule.sigma(each))) for each in (t, s))
        value, count = torch.zeros_like(x), torch.zeros_like(x)
        for share, (mask, (text, away)) in product(one.views, zip(one.masks, one.texts, strict=True)):
            view, own = share.window.of(x), share.window.of(mask)
            away_eps, eps = net(torch.cat([view] * 2), time.expand(2), text=torch.cat([away, text])).chunk(2)
            eps = away_eps + WEIGHT * (eps - away_eps)
            stepped = a_s * (view - s_t * eps) / a_t + s_s * eps
            share.window.add(value, stepped * own)
            share.window.add(count, own.expand_as(view))
        x = torch.where(count > 0, value / count, value)
    return x


def ours(one: Case, max_batch: int | None = None) -> Tensor:
    """Everything of a step in one call."""
    away = {id(text): Condition(text=text) for _, text in one.texts}
    conditions = [Condition(text=text, unsaid=away[id(other)]) for text, other in one.texts]
    views = None if one.views[0].window == Window(0, 0, *one.canvas) else one.views
    places = tuple(
        Place(condition, mask, cover=views, alone=False)
        for condition, mask in zip(conditions[1:], one.masks[1:], strict=True)
    )
    composition = Composition(places, None if not places else one.masks[0], views)
    return generate(
        one.denoiser,
        (4, *one.canvas),
        [0],
        condition=conditions[0],
        sampler="ddim",
        steps=max(one.steps, 2),
        grid="uniform",
        stretch=None,
        guidance=GuidanceSettings(WEIGHT, composition=composition),
        max_batch=max_batch,
        on_step=(lambda step: step.evaluation >= one.steps) if one.steps < 2 else None,
    )


def table(size: str, steps: int, rounds: int, clock: Clock) -> None:
    """Regions, windows, and both."""
    denoiser = network(size)
    cases = {
        "5 prompts, one window": (5, 1, True),
        "5 prompts, each away from its own": (5, 1, False),
        "1 prompt, 7 windows": (1, 7, True),
        "3 prompts, 4 windows": (3, 4, True),
    }
    if size == "sd":
        cases = {"3 prompts, one window": (3, 1, True), "3 prompts, each away from its own": (3, 1, False)}
        cases |= {"1 prompt, 3 windows": (1, 3, True)}
    for name, (prompts, windows, shared) in cases.items():
        one = case(size, denoiser, prompts, windows, steps, shared=shared)
        if steps > 1:
            made, wanted = ours(one), theirs(one)
            apart = float((made - wanted).abs().max() / wanted.abs().max())
            assert apart < 1e-4, f"{name}: the pictures differ by {apart}"
        found = compare(lambda one=one: ours(one), lambda one=one: theirs(one), rounds, clock=clock)
        print(found.row(f"{size}: {name}"), flush=True)


def per_view(size: str, steps: int, rounds: int, clock: Clock) -> None:
    """Milliseconds a view, branches of guidance included, by the number of views."""
    denoiser = network(size)
    for windows in (1, 2, 4, 8, 16):
        one = case(size, denoiser, 1, windows, steps)
        found = compare(lambda one=one: ours(one), lambda one=one: theirs(one), rounds, clock=clock)
        each = [1000 * seconds / steps / windows for seconds in (found.ours, found.theirs)]
        print(f"| {size} | {windows} | {each[0]:.1f} | {each[1]:.1f} | {found.ratio:.2f}× |", flush=True)


def resident(which: str) -> float:
    """Megabytes of this process as Linux counts them: VmRSS, now, or VmHWM, at most since it was last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) / 1024


def memory(windows: int, max_batch: int | None, side: str) -> None:
    """In a process of its own: the most that two steps take beyond the network."""
    denoiser = network("small")
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    one = case("small", denoiser, 1, windows, 2)
    _ = theirs(one) if side == "theirs" else ours(one, max_batch)
    print(f"{resident('VmHWM') - before:.0f}")


def memories() -> None:
    print("| canvas (cells) | views | all in one call (MB) | --max-batch 4 (MB) | the authors' loop (MB) |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for windows in (1, 3, 7, 15, 31):
        took = []
        for most, side in ((0, "ours"), (4, "ours"), (0, "theirs")):
            command = [sys.executable, __file__, "--alone", str(windows), str(most), side]
            took.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
        cells = 32 + (windows - 1) * 16
        print(f"| 32x{cells} | {windows} | {' | '.join(took)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", nargs="+", default=["tiny", "small"], choices=list(CONFIGS))
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", default="wall", choices=list(CLOCKS))
    parser.add_argument("--views", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--alone", nargs=3)
    asked = parser.parse_args()
    if asked.alone:
        return memory(int(asked.alone[0]), int(asked.alone[1]) or None, asked.alone[2])
    print(f"{machine()}, {torch.get_num_threads()} threads\n")
    if asked.memory:
        return memories()
    if asked.views:
        print(
            "| size | views | ours (ms a view and step) | theirs | theirs / ours |\n| --- | ---: | ---: | ---: | ---: |"
        )
    else:
        print("| what | ours (s) | the authors' (s) | theirs / ours | spread |\n| --- | ---: | ---: | ---: | --- |")
    for size in asked.size:
        (per_view if asked.views else table)(size, asked.steps, asked.rounds, CLOCKS[asked.clock])
    return None


if __name__ == "__main__":
    main()
