"""How long `import neblina`, `neblina --help` and a picture of a tiny model take, and sampling's memory at its peak.

python benchmarks/startup.py
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from peers import machine
from sd_model import write_tiny_model

ROUNDS = 7
SAMPLE = """
import resource, sys, torch
sys.path.insert(0, {here!r})
from peers import CIFAR
{build}
with torch.no_grad():
    for _ in range(2):
        net(torch.randn(16, 3, 32, 32), torch.full((16,), 500.0))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
OURS = "from neblina.nets.unet import UNet, UNetConfig\nnet = UNet(UNetConfig(**CIFAR)).eval()"
HALF = OURS + (
    ".to(torch.bfloat16)\nnet.channels_last()\nforward = net.forward\n"
    "net.forward = lambda x, t: forward(x.bfloat16(), t)"
)
THEIRS = "from diffusers import UNet2DModel\nnet = UNet2DModel(**CIFAR).eval()"

PICTURE = """
import torch
from diffusers import StableDiffusionPipeline
pipeline = StableDiffusionPipeline.from_pretrained({folder!r}, dtype=torch.float32)
pipeline("a boat", num_inference_steps=5).images[0].save({out!r})
"""


def seconds(*command: str) -> float:
    """Median wall-clock of a command."""
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def megabytes(build: str) -> float:
    """Peak resident memory of a process that builds a network and runs it twice on 16 pictures."""
    code = SAMPLE.format(here=str(Path(__file__).parent), build=build)
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    return float(json.loads(out))


def main() -> None:
    python, command = sys.executable, str(Path(sys.executable).with_name("neblina"))
    nothing = seconds(python, "-c", "pass")
    print(f"{machine()}\nmedians of {ROUNDS}\n\n| what | seconds |\n| --- | ---: |")
    print(f"| python that does nothing | {nothing:.3f} |")
    print(f"| import neblina | {seconds(python, '-c', 'import neblina'):.3f} |")
    print(f"| neblina --help | {seconds(command, '--help'):.3f} |")
    print(f"| import neblina, neblina.load | {seconds(python, '-c', 'import neblina; neblina.load'):.3f} |")
    print(f"| from diffusers import UNet2DModel | {seconds(python, '-c', 'from diffusers import UNet2DModel'):.3f} |")
    with TemporaryDirectory() as place:
        folder, out = Path(place) / "model", Path(place) / "out"
        write_tiny_model(folder)
        made = seconds(command, "generate", str(folder), "a boat", "--steps", "5", "--device", "cpu", "--out", str(out))
        own = seconds(command, "generate", "red apple", "--device", "cpu", "--out", str(out))
        theirs = seconds(python, "-c", PICTURE.format(folder=str(folder), out=str(out / "theirs.png")))
    print(f"| neblina generate, a tiny model, from shell to file | {made:.3f} |")
    print(f"| the same with diffusers' pipeline, in Python | {theirs:.3f} |")
    print(f'| neblina generate "red apple", the package\'s model, 25 steps, from shell to file | {own:.3f} |')
    print("\n| peak memory, CIFAR-size network, 16 pictures | MB |\n| --- | ---: |")
    for name, build in (("ours, fp32", OURS), ("ours, bf16", HALF), ("diffusers, fp32", THEIRS)):
        print(f"| {name} | {megabytes(build):,.0f} |")


if __name__ == "__main__":
    main()
