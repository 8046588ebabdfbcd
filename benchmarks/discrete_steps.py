"""A step of sampling tokens beside diffusers' VQDiffusionScheduler, the network left out: time, and what it draws.

    OMP_NUM_THREADS=2 python benchmarks/discrete_steps.py

Both get normalised log-probabilities, as the networks give them: theirs (B, K, N), ours (B, N, K). Theirs: one step of
the scheduler; ours: one of the ancestral sampler. The last column is ours from logits, normalised by it. Wall-clock
time, medians of alternating rounds in one process.
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
    """Median seconds of each, called in turn."""
    spent: list[list[float]] = [[] for _ in each]
    for _ in range(rounds):
        for function, seconds in zip(each, spent, strict=True):
            began = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - began)
    return [statistics.median(one[1:]) for one in spent]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=11)
    given = parser.parse_args()
    torch.set_grad_enabled(False)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, milliseconds a step\n")
    print("| classes | tokens | diffusers | ours: mask-and-replace | absorbing | uniform | the first, from logits |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for classes, tokens in ((128, 49), (512, 256), (1024, 1024), (4096, 1024), (16384, 1024)):
        theirs = VQDiffusionScheduler(num_vec_classes=classes + 1)
        theirs.set_timesteps(100)
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(1, tokens, classes, generator=generator)
        said = logits.log_softmax(-1)
        transposed = said.transpose(1, 2).contiguous()
        x = torch.randint(0, classes + 1, (1, tokens), generator=generator)
        t, s = (torch.full((1,), step / 100, dtype=torch.float64) for step in (50, 49))

        def own(kernel_x: tuple[DiscreteProcess, Tensor], said: Tensor = said, t: Tensor = t, s: Tensor = s) -> Tensor:
            process, x = kernel_x
            return process.reverse(x, t, s, Categorical(said)).sample(SampleNoise(0, [0]))

        processes = [
            (DiscreteProcess(mask_and_replace(classes, masked=0.9)), x),
            (DiscreteProcess(absorbing(classes)), x),
            (DiscreteProcess(uniform(classes)), x.clamp(max=classes - 1)),
        ]
        times = alternated(
            given.rounds,
            lambda theirs=theirs, transposed=transposed, x=x: theirs.step(transposed, torch.tensor(49), x),
            *(lambda one=one, own=own: own(one) for one in processes),
            lambda one=processes[0], own=own, logits=logits: own(one, logits.log_softmax(-1)),
        )
        print(f"| {classes} | {tokens} | " + " | ".join(f"{1000 * one:.1f}" for one in times) + " |", flush=True)


if __name__ == "__main__":
    main()
