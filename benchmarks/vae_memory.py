"""What decoding costs in memory and time: Stable Diffusion's autoencoder with random weights, against diffusers' own.

    python benchmarks/vae_memory.py [--sides 512 1024 2048] [--half decode] [--rounds 1]

Every row is measured in a process of its own: peak resident memory by getrusage (the interpreter, PyTorch and the
weights included) and seconds of one call, the best of the rounds. "tiled" is diffusers after enable_vae_tiling(), whose
tiles are of the 512 pixels its configuration says.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from neblina.core.memory import peak_memory

FIELDS = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "sample_size": 512,
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def ours(dtype: torch.dtype, tile: int | None, channels_last: bool) -> dict[str, Callable[[Tensor], Tensor]]:
    """Our codec's halves."""
    from neblina.codecs.kl import KLCodec
    from neblina.nets.autoencoder import AutoencoderKL, AutoencoderKLConfig

    net = AutoencoderKL(AutoencoderKLConfig.from_dict(FIELDS)).eval().to(dtype)
    if channels_last:
        net.channels_last()
    codec = KLCodec(net, tile=tile)
    return {"decode": codec.decode, "encode": codec.encode}


def theirs(dtype: torch.dtype, tiled: bool) -> dict[str, Callable[[Tensor], Tensor]]:
    """diffusers' halves."""
    from diffusers import AutoencoderKL

    net = AutoencoderKL(**FIELDS).eval().to(dtype)
    if tiled:
        net.enable_tiling()
    return {
        "decode": lambda z: net.decode((z / 0.18215).to(dtype)).sample.float(),
        "encode": lambda x: net.encode(x.to(dtype)).latent_dist.mode().float() * 0.18215,
    }


WAYS: dict[str, Callable[[torch.dtype], dict[str, Callable[[Tensor], Tensor]]]] = {
    "neblina": lambda dtype: ours(dtype, 1024, False),
    "neblina channels_last": lambda dtype: ours(dtype, 1024, True),
    "neblina in one piece": lambda dtype: ours(dtype, None, False),
    "diffusers": lambda dtype: theirs(dtype, False),
    "diffusers tiled": lambda dtype: theirs(dtype, True),
}


def measure(way: str, half: str, side: int, dtype: str, rounds: int) -> None:
    """Print seconds and GB of one way, in this process."""
    torch.manual_seed(0)
    run = WAYS[way](DTYPES[dtype])[half]
    x = torch.randn(1, 4, side // 8, side // 8) if half == "decode" else torch.rand(1, 3, side, side) * 2 - 1
    spent = []
    with torch.inference_mode():
        for _ in range(rounds):
            start = time.perf_counter()
            run(x)
            spent.append(time.perf_counter() - start)
    peak = peak_memory() / 1e9
    print(f"{min(spent):8.1f} s {peak:7.2f} GB")


def main() -> None:
    """Measure every way at every size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--half", choices=("decode", "encode"), default="decode")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--limit", type=int, default=900, help="seconds after which a way is given up")
    parser.add_argument("--alone", action="store_true", help="one measurement, in this process")
    given = parser.parse_args()
    if given.alone:
        measure(given.ways[0], given.half, given.sides[0], given.dtype, given.rounds)
        return
    for side in given.sides:
        for way in given.ways:
            own = [sys.executable, __file__, "--alone", "--ways", way, "--half", given.half, "--sides", str(side)]
            own += ["--dtype", given.dtype, "--rounds", str(given.rounds)]
            try:
                done = subprocess.run(own, capture_output=True, text=True, timeout=given.limit, check=False)
                said = done.stdout.rstrip() if done.returncode == 0 else f"failed ({done.returncode})"
            except subprocess.TimeoutExpired:
                said = f"not done in {given.limit} s"
            print(f"{given.half} {side:5d}² {given.dtype:9s} {way:22s} {said}", flush=True)


if __name__ == "__main__":
    main()
