"""A step of sampling tokens beside diffusers' VQDiffusionScheduler, the network left out: time, and what it draws.

    OMP_NUM_THREADS=1 python benchmarks/discrete_steps.py

Theirs: one step of the scheduler on log-probabilities (B, K, N). Ours: one step of the ancestral sampler on a belief
(B, N, K), from logits, so that the normalisation which their network does is among ours. Processor time, medians of
alternating rounds in one process.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from diffusers import VQDiffusionScheduler
from torch import Tensor

from neblina.core.noise import SampleNoise
from neblina.core.posterior import Categorical
from neblina.processes.discrete import DiscreteProcess
from neblina.processes.kernels import absorbing, mask_and_replace, uniform


def alternated(rounds: int, *each: Callable[[], object]) -> list[float]:
    """Median processor seconds of each, called in turn."""
    spent: list[list[float]] = [[] for _ in each]
    for _ in range(rounds):
        for function, seconds in zip(each, spent, strict=True):
            began = time.process_time()
            function()
            seconds.append(time.process_time() - began)
    return [statistics.median(one[1:]) for one in spent]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=11)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    print(f"torch {torch.__version__}, one thread, milliseconds of processor time a step\n")
    print("| classes | tokens | diffusers | ours: mask-and-replace | absorbing | uniform |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for classes, tokens in ((128, 49), (512, 256), (1024, 1024), (4096, 1024), (16384, 1024)):
        theirs = VQDiffusionScheduler(num_vec_classes=classes + 1)
        theirs.set_timesteps(100)
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(1, tokens, classes, generator=generator)
        transposed = logits.log_softmax(-1).transpose(1, 2).contiguous()
        x = torch.randint(0, classes + 1, (1, tokens), generator=generator)
        t, s = (torch.full((1,), step / 100, dtype=torch.float64) for step in (50, 49))

        def own(
            kernel_x: tuple[DiscreteProcess, Tensor], logits: Tensor = logits, t: Tensor = t, s: Tensor = s
        ) -> Tensor:
            process, x = kernel_x
            belief = Categorical(logits.log_softmax(-1))
            return process.reverse(x, t, s, belief).sample(SampleNoise(0, [0]))

        processes = [
            (DiscreteProcess(mask_and_replace(classes, masked=0.9)), x),
            (DiscreteProcess(absorbing(classes)), x),
            (DiscreteProcess(uniform(classes)), x.clamp(max=classes - 1)),
        ]
        times = alternated(
            given.rounds,
            lambda theirs=theirs, transposed=transposed, x=x: theirs.step(transposed, torch.tensor(49), x),
            *(lambda one=one, own=own: own(one) for one in processes),
        )
        print(f"| {classes} | {tokens} | " + " | ".join(f"{1000 * one:.1f}" for one in times) + " |", flush=True)


if __name__ == "__main__":
    main()
