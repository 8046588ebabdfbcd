"""Discrete diffusion beside an autoregressive transformer of equal blocks: seconds a picture, with random weights.

    python benchmarks/discrete_speed.py

Both make {64, 256, 1024} tokens of 1024 classes. The autoregressive one writes them one by one, keeping keys and values
(cached) or reading everything anew for each token (uncached); diffusion takes so many evaluations of all tokens.
Sampling itself is included. Uncached writing is timed on some of its tokens, evenly spaced over the sequence, and
scaled. Wall-clock seconds, all threads.
"""

import argparse
import time

import torch
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.denoisers.categorical import CategoricalDenoiser
from neblina.nets.autoregressive import AutoregressiveConfig, AutoregressiveTransformer
from neblina.nets.token_config import SequenceTransformerConfig
from neblina.nets.token_transformer import TokenTransformer
from neblina.processes.discrete import DiscreteProcess
from neblina.processes.kernels import mask_and_replace
from neblina.samplers.generate_tokens import generate_tokens

CLASSES = 1024


def drawn(logits: Tensor) -> Tensor:
    return torch.multinomial(logits.softmax(-1), 1)[:, 0]


def cached(net: AutoregressiveTransformer, batch: int, tokens: int) -> float:
    """Seconds a picture, keys and values kept."""
    began = time.perf_counter()
    logits, cache = net.begin(batch)
    for _ in range(tokens - 1):
        logits, cache = net.step(drawn(logits), cache)
    drawn(logits)
    return (time.perf_counter() - began) / batch


def uncached(net: AutoregressiveTransformer, batch: int, tokens: int, *, looked_at: int = 6) -> float:
    """Seconds a picture, everything read anew for every token."""
    whole = torch.randint(0, CLASSES, (batch, tokens))
    places = [round((number + 0.5) * tokens / looked_at) for number in range(looked_at)]
    began = time.perf_counter()
    for place in places:
        drawn(net(whole[:, : max(place, 1)])[:, -1])
    return (time.perf_counter() - began) / looked_at * tokens / batch


def diffused(denoiser: CategoricalDenoiser, batch: int, side: int, evaluations: int) -> float:
    """Seconds a picture."""
    began = time.perf_counter()
    generate_tokens(denoiser, (side, side), range(batch), condition=Condition(), sampler="ancestral", steps=evaluations)
    return (time.perf_counter() - began) / batch


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--heads", type=int, default=8, help="of 32 channels")
    parser.add_argument("--sides", type=int, nargs="*", default=[8, 16, 32])
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 16])
    parser.add_argument("--evaluations", type=int, nargs="*", default=[100, 25, 10], help="25 among them")
    given = parser.parse_args()
    torch.set_grad_enabled(False)
    shape = {"num_attention_heads": given.heads, "attention_head_dim": 32, "num_layers": given.layers}
    counts = " | ".join(f"diffusion, {count}" for count in given.evaluations)
    print(f"| tokens | batch | AR cached | AR uncached | {counts} | 25 is faster than cached, uncached by |")
    print("| ---: " * (5 + len(given.evaluations)) + "|")
    for side in given.sides:
        writer = AutoregressiveTransformer(AutoregressiveConfig(CLASSES, (side, side), **shape)).eval()
        net = TokenTransformer(SequenceTransformerConfig(CLASSES + 1, (side, side), **shape)).eval()
        denoiser = CategoricalDenoiser(net, DiscreteProcess(mask_and_replace(CLASSES, masked=0.9)), 100)
        for batch in given.batches:
            diffused(denoiser, batch, side, 1)
            slow, quick = uncached(writer, batch, side**2), cached(writer, batch, side**2)
            each = [diffused(denoiser, batch, side, count) for count in given.evaluations]
            some = each[given.evaluations.index(25)]
            cells = " | ".join(f"{one:.3f}" for one in (quick, slow, *each))
            print(f"| {side**2} | {batch} | {cells} | {quick / some:.1f}x, {slow / some:.1f}x |", flush=True)


if __name__ == "__main__":
    main()
