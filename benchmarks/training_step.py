"""A training step of the CIFAR-size DDPM U-Net on the CPU, against a plain diffusers loop in one process.

    python benchmarks/training_step.py [--batch 8] [--rounds 7]

Same weights; both: noise, forward, backward, clip, AdamW, EMA. Then what of our step is not the network: the loop, the
data and a checkpoint, as shares of the step.
"""

import argparse
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from peers import CIFAR, HEAD, compare, machine, timed

from neblina.data.pictures import InMemory
from neblina.training.checkpoint import save_checkpoint
from neblina.training.recipe import build_recipe
from neblina.training.trainer import Trainer


def our_trainer(precision: str, batch: int) -> Trainer:
    """A trainer whose network is the CIFAR-size one."""
    recipe = build_recipe(
        {
            "data": {"labels": False},
            "process": {"schedule": "linear", "parameterisation": "eps"},
            "network": {"channels": [128, 256, 256, 256], "attention": 0, "head_dim": None},
            "optimizer": {"lr": 2e-4, "warmup": 0},
            "training": {"batch": batch, "precision": precision, "ema": 0.9999, "images": 10**9},
        },
        "benchmark",
    )
    pixels = torch.randint(0, 256, (512, 3, 32, 32), dtype=torch.uint8)
    import neblina.training.trainer as module
    from neblina.bundle.bundle import Bundle
    from neblina.nets.unet import UNet, UNetConfig

    plain = module.new_model

    def with_cifar(recipe: object, pictures: object) -> Bundle:
        bundle = plain(recipe, pictures)  # type: ignore[arg-type]
        return Bundle(UNet(UNetConfig(**CIFAR)).eval(), bundle.schedule, "eps")

    module.new_model = with_cifar  # type: ignore[assignment]
    try:
        return Trainer(recipe, InMemory(pixels), device="cpu")
    finally:
        module.new_model = plain


def their_step(batch: int) -> "tuple[UNet2DModel, object]":
    """diffusers' network and a closure that trains it for one step, as its example scripts do."""
    net = UNet2DModel(**CIFAR)
    scheduler = DDPMScheduler()
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-4)
    ema = EMAModel(net.parameters(), decay=0.9999, use_ema_warmup=True)
    pixels = torch.randint(0, 256, (512, 3, 32, 32), dtype=torch.uint8)

    def step() -> None:
        clean = pixels[torch.randint(0, 512, (batch,))].float() / 127.5 - 1
        noise = torch.randn_like(clean)
        t = torch.randint(0, 1000, (batch,))
        loss = F.mse_loss(net(scheduler.add_noise(clean, noise, t), t).sample, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.step(net.parameters())

    return net, step


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    print(f"{machine()}\nbatch {given.batch}, {given.rounds} rounds\n\n{HEAD}")
    _, step = their_step(given.batch)
    for precision in ("fp32", "bf16"):
        trainer = our_trainer(precision, given.batch)
        result = compare(trainer.advance, step, given.rounds)  # type: ignore[arg-type]
        print(result.row(f"training step, {precision} against diffusers fp32"), flush=True)
        del trainer

    trainer = our_trainer("fp32", given.batch)
    trainer.advance()
    seen = trainer.examples(0)
    from neblina.core.conditions import Condition

    parameters = list(trainer.bundle.net.parameters())

    def network_alone() -> None:
        """Forward, backward, clip, AdamW and EMA on given tensors: the work no loop can avoid."""
        loss = trainer.objective(trainer.denoiser, seen.x0, seen.noise, seen.t, Condition()).loss.mean()
        trainer.optimizer.zero_grad()  # where the loop has it: freed memory is used again at once
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
        trainer.optimizer.step()
        trainer.ema.update(trainer.bundle.net, 10)

    whole = compare(trainer.advance, network_alone, given.rounds)
    print(f"\nloop and data, as a share of a step: {100 * (1 - whole.ratio):.1f} % (median of {given.rounds} rounds)")
    data = min(timed(lambda number=number: trainer.examples(number)) for number in range(5))
    print(f"reading, drawing times and noise: {1000 * data:.2f} ms, {100 * data / whole.ours:.2f} % of a step")
    with tempfile.TemporaryDirectory() as folder:
        seconds = timed(
            lambda: save_checkpoint(
                Path(folder),
                1,
                net=trainer.bundle.net,
                ema=trainer.ema.net,
                optimizer=trainer.optimizer,
                progress=trainer.progress(),
                state=trainer.state(),
                keep=1,
            )
        )
    steps = trainer.recipe.training.checkpoint_every
    share = 100 * seconds / (steps * whole.ours)
    print(f"a checkpoint: {seconds:.2f} s, {share:.2f} % of the {steps} steps between two")


if __name__ == "__main__":
    main()
