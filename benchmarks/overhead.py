"""What a sampler costs beside the network: microseconds an evaluation, for one CIFAR-size picture on the CPU.

    python benchmarks/overhead.py [--rounds 9] [--pipeline]

The network is replaced by one that hands back its input, so what is left is the driver, the sampler, the conversion of
the prediction and the noise. Against diffusers' scheduler of the same method (scale_model_input and step), alternating
in one process; medians over rounds. "late/early" compares steps 70 to 95 with steps 5 to 30 of a hundred: it stays at 1
if the cost does not grow with the step number. The share is of one evaluation of the 35.7 M-parameter DDPM U-Net.

--pipeline measures what a whole request costs beside the network: Stable Diffusion's pipeline of a tiny model, with
guidance, from a prompt to a picture, against diffusers' own, in processor time; a step is a hundredth of the
difference between 125 of them and 25.
"""

import argparse
import logging
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import torch
from peers import CIFAR, machine
from sd_model import write_tiny_model
from torch import Tensor, nn

import neblina
from neblina.core.conditions import Condition
from neblina.core.noise import SampleNoise
from neblina.core.plan import conditional
from neblina.denoisers.denoiser import NetworkDenoiser
from neblina.nets.unet import UNet, UNetConfig
from neblina.processes.gaussian import GaussianProcess
from neblina.processes.grids import make_grid
from neblina.processes.tables import Linear
from neblina.samplers import samplers
from neblina.samplers.drive import sample

PEERS = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "heun_edm": "HeunDiscreteScheduler",
    "dpm2": "KDPM2DiscreteScheduler",
    "dpm2_ancestral": "KDPM2AncestralDiscreteScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "dpmpp_2s": "DPMSolverSinglestepScheduler",
    "deis": "DEISMultistepScheduler",
    "lms": "LMSDiscreteScheduler",
    "plms": "PNDMScheduler",
    "unipc": "UniPCMultistepScheduler",
}
STEPS = 100


class Echo(nn.Module):
    """A network that costs nothing."""

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return x


def our_times(name: str) -> list[float]:
    """Seconds at which each answer was given, from the first on."""
    process = GaussianProcess(Linear())
    plan = conditional(NetworkDenoiser(Echo(), process, "eps"), Condition())
    noise = SampleNoise(0, [0])
    x = noise(torch.empty(1, 3, 32, 32))
    stamps: list[float] = []
    grid = make_grid("uniform", process.schedule, STEPS)
    walk = samplers[name](process, x, grid, noise=noise)
    sample(walk, plan, on_step=lambda step: stamps.append(time.perf_counter()))
    return stamps


def their_times(name: str) -> list[float]:
    scheduler = getattr(diffusers, PEERS[name])()
    scheduler.set_timesteps(STEPS)
    x = torch.randn(1, 3, 32, 32)
    stamps = []
    for index in scheduler.timesteps:
        given = scheduler.scale_model_input(x, index)
        stamps.append(time.perf_counter())
        x = scheduler.step(given, index, x).prev_sample
    return stamps


def between(stamps: list[float], first: int, last: int) -> float:
    """Microseconds an evaluation over a part of the walk, as shares of a hundred."""
    begin, end = len(stamps) * first // 100, len(stamps) * last // 100
    return (stamps[end] - stamps[begin]) / (end - begin) * 1e6


def network() -> float:
    """Microseconds an evaluation of the U-Net."""
    net = UNet(UNetConfig.from_dict(CIFAR)).eval()
    net.channels_last()
    x, t = torch.randn(1, 3, 32, 32), torch.zeros(1)
    with torch.no_grad():
        net(x, t)
        return statistics.median(timed(lambda: net(x, t)) for _ in range(7))


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1e6


def requests(folder: Path) -> dict[str, Callable[[int], object]]:
    """Both sides' call for a picture in a number of DDIM steps, with a U-Net that hands back its input."""
    model = neblina.load(folder, device="cpu")
    model.bundle.net.forward = lambda x, time, **condition: x  # type: ignore[method-assign]
    pipeline: Any = diffusers.StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.unet.forward = lambda x, time, **condition: (x,)
    return {
        "neblina": lambda steps: model.generate("a red boat", sampler="ddim", steps=steps, guidance=7.5),
        "diffusers": lambda steps: pipeline("a red boat", num_inference_steps=steps, guidance_scale=7.5),
    }


def whole_pipeline(rounds: int) -> None:
    """Print what a request costs beside the network, for both sides in turn."""
    few, many = 25, 125
    with TemporaryDirectory() as place:
        write_tiny_model(Path(place))
        asked = requests(Path(place))
    took: dict[tuple[str, int], list[float]] = {(side, steps): [] for side in asked for steps in (few, many)}
    for number in range(rounds + 1):
        for side, steps in took:
            began = time.process_time()
            asked[side](steps)
            if number:  # the first one warms up
                took[side, steps].append((time.process_time() - began) * 1000)
    print(f"| beside the network, ms | a step | a request of {few} steps |\n| --- | ---: | ---: |")
    for side in asked:
        step = statistics.median((b - a) / (many - few) for a, b in zip(took[side, few], took[side, many], strict=True))
        print(f"| {side} | {step:.2f} | {statistics.median(took[side, few]):.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--pipeline", action="store_true")
    asked = parser.parse_args()
    rounds = asked.rounds
    logging.disable(logging.WARNING)
    if asked.pipeline:
        print(machine())
        whole_pipeline(rounds)
        return
    cost = network()
    print(f"{machine()}\nU-Net: {cost / 1000:.1f} ms an evaluation at batch 1\n")
    print("| sampler | ours, µs | share of the network | late/early | diffusers, µs | theirs / ours |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, sampler in samplers.items():
        if name != sampler.name or sampler.adaptive or sampler.learned_variance:
            continue
        ours, growth, theirs = [], [], []
        for _ in range(rounds):
            stamps = our_times(name)
            ours.append(between(stamps, 5, 95))
            growth.append(between(stamps, 70, 95) / between(stamps, 5, 30))
            if name in PEERS:
                theirs.append(between(their_times(name), 5, 95))
        mine = statistics.median(ours)
        row = f"| {name} | {mine:.0f} | {100 * mine / cost:.2f} % | {statistics.median(growth):.2f} |"
        if theirs:
            ratio = statistics.median(one / other for one, other in zip(theirs, ours, strict=True))
            row += f" {statistics.median(theirs):.0f} | {ratio:.2f} |"
        else:
            row += " – | – |"
        print(row)


if __name__ == "__main__":
    main()
