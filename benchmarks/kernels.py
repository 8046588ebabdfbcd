"""Kernels whose speed decides a choice in `nets/`: normalisation, attention and convolutions on the CPU.

    python benchmarks/kernels.py

Forward and backward, milliseconds, medians.
"""

import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from peers import machine, timed
from torch import Tensor


def milliseconds(work: Callable[[], object]) -> float:
    work()
    return 1000 * statistics.median(timed(work) for _ in range(9))


def backwards(forward: Callable[..., Tensor], *inputs: Tensor) -> Callable[[], object]:
    leaves = [one.detach().requires_grad_() for one in inputs]

    def work() -> object:
        out = forward(*leaves)
        return torch.autograd.grad(out, leaves, out.detach())

    return work


def main() -> None:
    print(f"{machine()}\n\n| kernel | fp32 | bf16 | bf16 by way of fp32 |\n| --- | ---: | ---: | ---: |")
    for shape, groups in (((64, 64, 28, 28), 8), ((8, 256, 16, 16), 32)):
        for layout in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(shape).to(memory_format=layout)
            weight, bias = torch.ones(shape[1]), torch.zeros(shape[1])

            def norm(x: Tensor, w: Tensor, b: Tensor, groups: int = groups) -> Tensor:
                return F.group_norm(x, groups, w, b)

            def detour(x: Tensor, w: Tensor, b: Tensor, groups: int = groups) -> Tensor:
                return F.group_norm(x.float(), groups, w, b).to(x.dtype)

            times = [
                milliseconds(backwards(norm, x, weight, bias)),
                milliseconds(backwards(norm, x.bfloat16(), weight, bias)),
                milliseconds(backwards(detour, x.bfloat16(), weight, bias)),
            ]
            name = f"group norm {'x'.join(map(str, shape))}, {str(layout).removeprefix('torch.')}"
            print(f"| {name} | " + " | ".join(f"{one:.2f}" for one in times) + " |")
    for shape in ((64, 8, 49, 8), (8, 1, 256, 256)):
        q, k, v = torch.randn(3, *shape)

        def up(*parts: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(*(one.float() for one in parts)).to(parts[0].dtype)

        half = [one.bfloat16() for one in (q, k, v)]
        times = [
            milliseconds(backwards(F.scaled_dot_product_attention, q, k, v)),
            milliseconds(backwards(F.scaled_dot_product_attention, *half)),
            milliseconds(backwards(up, *half)),
        ]
        print(f"| attention {'x'.join(map(str, shape))} | " + " | ".join(f"{one:.2f}" for one in times) + " |")
    print("\n| convolution 3x3, forward and backward | fp32 | fp32, channels last |\n| --- | ---: | ---: |")
    for batch, channels, side in ((128, 64, 8), (64, 32, 28), (8, 128, 32)):
        times = []
        for layout in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(batch, channels, side, side).to(memory_format=layout)
            w = torch.randn(channels, channels, 3, 3).to(memory_format=layout)
            times.append(milliseconds(backwards(lambda x, w: F.conv2d(x, w, padding=1), x, w)))
        print(f"| {batch}x{channels}x{side}x{side} | {times[0]:.2f} | {times[1]:.2f} |")


if __name__ == "__main__":
    main()
