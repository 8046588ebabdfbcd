"""Sampling with the CIFAR-size DDPM U-Net (35.7 M parameters) on the CPU, against diffusers in one process.

    python benchmarks/sampling.py [--batch 8] [--steps 5] [--rounds 7]

Same weights, same noise, same grid (DDIM, leading), random weights; A/B/A/B, medians of the rounds' ratios.
"""

import argparse

import torch
from diffusers import DDIMScheduler, UNet2DModel
from peers import CIFAR, HEAD, compare, machine

from neblina.core.conditions import Condition
from neblina.core.plan import conditional
from neblina.denoisers.denoiser import NetworkDenoiser
from neblina.nets.unet import UNet, UNetConfig
from neblina.processes.gaussian import GaussianProcess
from neblina.processes.grids import make_grid
from neblina.processes.tables import Linear
from neblina.samplers import samplers
from neblina.samplers.drive import sample


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()

    torch.manual_seed(0)
    theirs = UNet2DModel(**CIFAR).eval()
    nets = {}
    for name in ("fp32", "bf16"):
        nets[name] = UNet(UNetConfig.from_dict(dict(theirs.config))).eval()
        nets[name].load_state_dict(theirs.state_dict())
        nets[name].channels_last()  # as neblina.load lays every network out
    nets["bf16"].to(torch.bfloat16)
    start = torch.randn(given.batch, 3, 32, 32)
    scheduler = DDIMScheduler(clip_sample=False)

    @torch.no_grad()
    def diffusers_sampling() -> torch.Tensor:
        scheduler.set_timesteps(given.steps)
        x = start
        for t in scheduler.timesteps:
            x = scheduler.step(theirs(x, t).sample, t, x).prev_sample
        return x

    def our_sampling(precision: str) -> torch.Tensor:
        process = GaussianProcess(Linear())
        plan = conditional(NetworkDenoiser(nets[precision], process, "eps"), Condition())
        grid = make_grid("leading", process.schedule, given.steps)
        return sample(samplers["ddim"](process, start, grid, noise=torch.randn_like), plan)

    reference = diffusers_sampling()
    scale = float(reference.abs().max())
    print(f"{machine()}\nbatch {given.batch}, {given.steps} DDIM steps, {given.rounds} rounds\n\n{HEAD}")
    for precision in ("fp32", "bf16"):
        result = compare(lambda precision=precision: our_sampling(precision), diffusers_sampling, given.rounds)
        print(result.row(f"sampling, {precision} against diffusers fp32"), flush=True)
    for precision in ("fp32", "bf16"):
        worst = float((our_sampling(precision) - reference).abs().max()) / scale
        print(f"\nlargest difference of the samples, over their largest value, {precision}: {worst:.1e}")


if __name__ == "__main__":
    main()
