"""What the benchmarks share: alternating measurements, medians of ratios, and the diffusers side of a comparison."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

CIFAR: dict[str, Any] = {
    "sample_size": 32,
    "block_out_channels": (128, 256, 256, 256),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}


@dataclass(frozen=True)
class Compared:
    """Two sides, measured in turn.

    Attributes:
        ours, theirs: median seconds.
        ratio: median over rounds of theirs / ours; above 1 we are faster.
        low, high: the smallest and the largest ratio of a round.
    """

    ours: float
    theirs: float
    ratio: float
    low: float
    high: float

    def row(self, name: str) -> str:
        """A line of a Markdown table."""
        spread = f"{self.low:.2f} … {self.high:.2f}"
        return f"| {name} | {self.ours:.3f} | {self.theirs:.3f} | **{self.ratio:.2f}×** | {spread} |"


HEAD = "| what | ours (s) | theirs (s) | theirs / ours | spread |\n| --- | ---: | ---: | ---: | --- |"


def compare(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    rounds: int,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Compared:
    """A/B/A/B after warming both up; the ratio of each round is of neighbours in time."""
    for _ in range(warmup):
        ours()
        theirs()
    pairs = [(timed(ours, clock), timed(theirs, clock)) for _ in range(rounds)]
    ratios = [b / a for a, b in pairs]
    return Compared(
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
    )


def timed(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds."""
    began = clock()
    work()
    return clock() - began


def machine() -> str:
    """The processor, for the record."""
    name = platform.processor()
    try:
        with open("/proc/cpuinfo") as stream:
            name = next(line.split(":")[1].strip() for line in stream if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    import diffusers
    import torch

    flags = torch.backends.cpu.get_cpu_capability()
    return f"{name}, {os.cpu_count()} cores, {flags}; torch {torch.__version__}, diffusers {diffusers.__version__}"
