"""How long it takes to open a model of Stable Diffusion 1.5's size, and what is held in memory then.

    python benchmarks/opening.py [--dtype fp16 fp32] [--folder PATH]

2.1 GB of fp16 weights with random values, as a folder and as a single file, opened to be run on the CPU. Each way is a
process of its own that opens it twice: the first time with all imports, the second with all files in the cache and
everything imported. Memory is the most that was resident, pages of mapped files included.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from peers import machine
from sd_model import model_folder, write_single_file

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def ours(folder: Path, file: Path, dtype: str, whole: bool) -> Any:
    """Our side, of the folder or of the file, whose vocabulary is in the folder."""
    import neblina

    if whole:
        return neblina.load(folder, dtype=dtype, device="cpu")
    return neblina.load(file, dtype=dtype, device="cpu", tokenizer=folder / "tokenizer")


def theirs(folder: Path, file: Path, dtype: str, whole: bool) -> Any:
    """diffusers' side, whose single files are opened with the folder's configurations."""
    import torch
    from diffusers import StableDiffusionPipeline

    wanted = getattr(torch, DTYPES[dtype])
    if whole:
        return StableDiffusionPipeline.from_pretrained(folder, dtype=wanted)
    return StableDiffusionPipeline.from_single_file(file, config=str(folder), torch_dtype=wanted)


WAYS: dict[str, Callable[[Path, Path, str], Any]] = {
    "neblina, a folder": lambda *given: ours(*given, True),
    "neblina, a single file": lambda *given: ours(*given, False),
    "diffusers, a folder": lambda *given: theirs(*given, True),
    "diffusers, a single file": lambda *given: theirs(*given, False),
}


def alone(way: str, folder: Path, file: Path, dtype: str) -> None:
    """Print the seconds of both openings and the gigabytes of one, in this process."""
    from neblina.core.memory import peak_memory  # brings torch along

    took = []
    held = 0.0
    for _ in range(2):
        began = time.perf_counter()
        WAYS[way](folder, file, dtype)
        took.append(time.perf_counter() - began)
        held = held or peak_memory() / 1e9
    print(f"{took[0]:.2f} | {took[1]:.2f} | {held:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", nargs="+", choices=list(DTYPES), default=["fp16", "fp32"])
    parser.add_argument("--folder", type=Path, help="keep the model there, or take the one that is there")
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.alone:
        alone(asked.alone[0], asked.folder, Path(asked.alone[1]), asked.dtype[0])
        return
    print(f"{machine()}\n\n| what | opened, s | once more, s | most held, GB |\n| --- | ---: | ---: | ---: |")
    with model_folder(asked.folder) as folder, TemporaryDirectory() as place:
        file = Path(place) / "model.safetensors"
        write_single_file(folder, file)
        for dtype in asked.dtype:
            for way in WAYS:
                own = [sys.executable, __file__, "--alone", way, str(file), "--folder", str(folder), "--dtype", dtype]
                done = subprocess.run(own, check=False, capture_output=True, text=True)
                failed = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode
                said = f"failed: {failed} | |" if done.returncode else done.stdout.strip().splitlines()[-1]
                print(f"| {way}, {dtype} | {said} |", flush=True)


if __name__ == "__main__":
    main()
