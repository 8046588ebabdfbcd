"""A step and a decode of Stable Diffusion 1.5's size with random weights, against diffusers in one process.

    python benchmarks/stable_diffusion.py [--dtype fp32 bf16] [--what step decode] [--rounds 3] [--clock wall]
    python benchmarks/stable_diffusion.py --memory [--dtype fp32 bf16]
    python benchmarks/stable_diffusion.py --device cuda --dtype fp16 bf16 [--compile] [--memory]

A step is one call of the U-Net for a picture of 512x512 and guidance: a batch of two (with the prompt and without it),
latents of 64x64, texts of 77x768. A decode is one picture of 512x512. Ours is the model as `neblina.load` opens it;
diffusers' is as its pipeline opens it, and once more after `.to(memory_format=torch.channels_last)`. The sides take
turns, the ratio is the median over rounds, and the clock is wall time, or processor time for a machine that is shared.

--memory opens, steps and decodes in a process of its own for each side, and says the most that was resident by then,
with the interpreter and all imports, or on a GPU the most that was allocated.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peers import machine
from sd_model import TEXT, model_folder
from torch import Tensor

from neblina.core.memory import peak_memory

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
Works = dict[str, Callable[[], Tensor]]  # what is measured, by name
HEAD = (
    "| what | ours (s) | theirs / ours | spread | theirs, channels_last / ours | spread |\n"
    "| --- | ---: | ---: | --- | ---: | --- |"
)


def inputs(dtype: torch.dtype, device: str) -> dict[str, Tensor]:
    """What is stepped and decoded, the same for every side."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"x": (2, 4, 64, 64), "text": (2, *TEXT), "z": (1, 4, 64, 64)}
    given = {name: torch.randn(shape, generator=generator).to(device, dtype) for name, shape in shapes.items()}
    return {**given, "time": torch.full((2,), 500.0, device=device)}


def ours(folder: Path, dtype: str, device: str, compiled: bool = False) -> Works:
    """Our side."""
    import neblina

    bundle = neblina.load(folder, dtype=dtype, device=device).bundle
    net: Any = torch.compile(bundle.net) if compiled else bundle.net
    given = inputs(DTYPES[dtype], device)
    return {
        "step": lambda: net(given["x"], given["time"], text=given["text"]),
        "decode": lambda: bundle.codec.decode(given["z"]),
    }


def theirs(folder: Path, dtype: str, device: str, compiled: bool = False, channels_last: bool = False) -> Works:
    """diffusers' side."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=DTYPES[dtype]).to(device)
    net, vae = pipeline.unet, pipeline.vae
    if channels_last:
        net.to(memory_format=torch.channels_last)
        vae.to(memory_format=torch.channels_last)
    net = torch.compile(net) if compiled else net
    given = inputs(DTYPES[dtype], device)
    return {
        "step": lambda: net(given["x"], given["time"], encoder_hidden_states=given["text"]).sample,
        "decode": lambda: vae.decode(given["z"] / vae.config.scaling_factor).sample,
    }


SIDES: dict[str, Callable[..., Works]] = {
    "neblina": ours,
    "diffusers": theirs,
    "diffusers, channels_last": lambda *asked: theirs(*asked, channels_last=True),
}


def timed(work: Callable[[], Tensor], clock: Callable[[], float], device: str) -> float:
    """Seconds."""
    began = clock()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - began


def row(name: str, took: dict[str, list[float]]) -> str:
    """A line of the table."""
    line = f"| {name} | {statistics.median(took['neblina']):.3f} |"
    for side in list(SIDES)[1:]:
        ratios = [other / own for other, own in zip(took[side], took["neblina"], strict=True)]
        line += f" **{statistics.median(ratios):.2f}×** | {min(ratios):.2f} … {max(ratios):.2f} |"
    return line


def measure(folder: Path, dtype: str, asked: argparse.Namespace) -> list[str]:
    """Print a row for each piece of work; what is to be said below the table."""
    notes = []
    sides = {name: side(folder, dtype, asked.device, asked.compile) for name, side in SIDES.items()}
    for what in asked.what:
        took: dict[str, list[float]] = {name: [] for name in sides}
        made = {name: works[what]().float() for name, works in sides.items()}
        for _ in range(asked.rounds):
            for name, works in sides.items():
                took[name].append(timed(works[what], CLOCKS[asked.clock], asked.device))
        print(row(f"{what}, {dtype}{', compiled' if asked.compile else ''}", took), flush=True)
        apart = float((made["neblina"] - made["diffusers"]).abs().max() / made["diffusers"].abs().max())
        notes.append(f"{what}, {dtype}: largest difference, over the largest value: {apart:.1e}")
    return notes


def alone(side: str, folder: Path, dtype: str, asked: argparse.Namespace) -> None:
    """Print the memory of one side, in this process, after each stage."""
    works = SIDES[side](folder, dtype, asked.device, asked.compile)
    held = [peak_memory() / 1e9]
    for work in works.values():
        work()
        held.append(peak_memory() / 1e9)
    print(" | ".join(f"{each:.2f}" for each in held))


def memory(folder: Path, dtype: str, asked: argparse.Namespace) -> None:
    """Print a row for each side."""
    for side in SIDES:
        own = [sys.executable, __file__, "--alone", side, "--folder", str(folder), "--dtype", dtype]
        own += ["--device", asked.device, *(["--compile"] if asked.compile else [])]
        done = subprocess.run(own, check=True, capture_output=True, text=True)
        print(f"| {side}, {dtype} | {done.stdout.strip().splitlines()[-1]} |", flush=True)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", nargs="+", choices=list(DTYPES), default=["fp32", "bf16"])
    parser.add_argument("--what", nargs="+", choices=("step", "decode"), default=["step", "decode"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--compile", action="store_true", help="torch.compile of both U-Nets")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--folder", type=Path, help="keep the model there, or take the one that is there")
    parser.add_argument("--alone", choices=list(SIDES), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.alone:
        alone(asked.alone, asked.folder, asked.dtype[0], asked)
        return
    print(machine())
    with model_folder(asked.folder) as folder:
        if asked.memory:
            print("\n| most held, GB | opened | after a step | after a decode |\n| --- | ---: | ---: | ---: |")
            for dtype in asked.dtype:
                memory(folder, dtype, asked)
            return
        threads = f"{torch.get_num_threads()} threads" if asked.device == "cpu" else torch.cuda.get_device_name()
        print(f"{asked.clock} time, {threads}, medians of {asked.rounds} rounds\n\n{HEAD}")
        notes = [note for dtype in asked.dtype for note in measure(folder, dtype, asked)]
        print("\n" + "\n\n".join(notes))


if __name__ == "__main__":
    main()
