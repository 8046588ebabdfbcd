"""A training step of the recipe `emoji` on the CPU, against a plain diffusers text-to-image loop in one process.

    python benchmarks/text_training.py [--batch 16] [--rounds 15] [--clock processor]

Same networks (UNet2DConditionModel and CLIPTextModel in the recipe's shapes, both trained), same latents and captions,
kept in memory on both sides; both: tokens, noise, forward, backward, clip, AdamW, an average of both networks. Then the
data path as a share of our step, and the memory that a process of each side alone peaks at.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peers import HEAD, compare, machine, timed

from neblina.bundle.codec import wrapped
from neblina.codecs.kl import KLCodec
from neblina.core.memory import peak_memory
from neblina.data.pictures import InMemory
from neblina.data.styles import styled
from neblina.training.build_codec import new_autoencoder
from neblina.training.encoded import Encoded
from neblina.training.joint import JointNetwork
from neblina.training.recipe import load_recipe
from neblina.training.text import TextTrainer

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
COUNT = 512  # pictures


def our_trainer(precision: str, batch: int) -> TextTrainer:
    """A trainer of the recipe's networks on latents of noise and captions of drawn words."""
    recipe = load_recipe("emoji", {"training": {"batch": batch, "precision": precision, "images": 10**9}})
    generator = torch.Generator().manual_seed(0)
    words = [f"word{number}" for number in range(2000)]
    drawn = torch.randint(0, len(words), (COUNT, 3), generator=generator).tolist()
    records = [{"file_name": f"{n}.png", "text": " ".join(words[at] for at in ats)} for n, ats in enumerate(drawn)]
    pictures = InMemory(torch.zeros(COUNT, 3, 64, 64, dtype=torch.uint8), records=tuple(records))
    chosen = styled(pictures, recipe.data.styles, recipe.data.plain)
    codec = wrapped(new_autoencoder(load_recipe("emoji-codec"), pictures))
    assert isinstance(codec, KLCodec)
    rows = COUNT * (1 + len(recipe.data.styles))
    latents = torch.randn(rows, codec.channels, 16, 16, generator=generator)
    return TextTrainer(recipe, Encoded(latents, chosen, ""), codec, device="cpu")


def their_step(ours: TextTrainer, batch: int) -> Callable[[], None]:
    """diffusers' and transformers' networks of the same shapes, and a closure that trains them for one step."""
    from diffusers import DDPMScheduler, UNet2DConditionModel
    from diffusers.training_utils import EMAModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    joint = ours.bundle.net
    assert isinstance(joint, JointNetwork)
    assert ours.bundle.text is not None
    (encoder,) = ours.bundle.text.encoders.values()
    with tempfile.TemporaryDirectory() as folder:
        encoder.tokenizer.save(Path(folder))
        tokenizer = CLIPTokenizer.from_pretrained(folder)
    config = {name: value for name, value in joint.config.to_dict().items() if not name.startswith("_")}
    net = UNet2DConditionModel.from_config(config)
    text = CLIPTextModel(CLIPTextConfig(**{k: v for k, v in encoder.config.items() if k != "architectures"}))
    parameters = [*net.parameters(), *text.parameters()]
    scheduler = DDPMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        rescale_betas_zero_snr=True,
        prediction_type="v_prediction",
    )
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0)
    ema = EMAModel(parameters, decay=0.998, use_ema_warmup=True)
    captions, latents = ours.captions, ours.latents.latents

    def step() -> None:
        numbers = torch.randint(0, COUNT, (batch,)).tolist()
        clean = latents[numbers]
        said = ["" if torch.rand(()) < 0.1 else captions[number].name for number in numbers]
        tokens = tokenizer(said, padding="max_length", truncation=True, return_tensors="pt").input_ids
        noise = torch.randn_like(clean)
        t = torch.randint(0, 1000, (batch,))
        predicted = net(scheduler.add_noise(clean, noise, t), t, encoder_hidden_states=text(tokens)[0]).sample
        loss = F.mse_loss(predicted, scheduler.get_velocity(clean, noise, t))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.step(parameters)

    return step


def data_share(trainer: TextTrainer, seconds: float) -> float:
    """What captions, tokens, latents and noise of a step take, as a share of it."""
    return min(timed(lambda number=number: trainer.examples(number)) for number in range(10)) / seconds


def memory(side: str, batch: int, precision: str) -> float:
    """MB that a process peaks at, of its own, that takes eight steps of one side."""
    done = subprocess.run(
        [sys.executable, __file__, "--alone", side, "--batch", str(batch), "--precisions", precision],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(done.stdout.split()[-1])


def alone(side: str, batch: int, precision: str) -> None:
    """Eight steps of one side, and the memory that they took."""
    trainer = our_trainer(precision, batch)
    step: Callable[[], Any] = trainer.advance if side == "ours" else their_step(trainer, batch)
    if side == "theirs":
        del trainer.ema, trainer.optimizer
    for _ in range(8):
        step()
    print(peak_memory() / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--precisions", nargs="*", default=["fp32", "bf16"])
    parser.add_argument("--alone", choices=["ours", "theirs"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        alone(given.alone, given.batch, given.precisions[0])
        return
    clock, took = CLOCKS[given.clock], []
    for precision in given.precisions:  # first: what is begun by a process is charged what that one took already
        ours, others = memory("ours", given.batch, precision), memory("theirs", given.batch, "fp32")
        took.append(f"memory, {precision}: {ours:.0f} MB, theirs in fp32 {others:.0f} MB")
    print(f"{machine()}\nbatch {given.batch}, {given.rounds} rounds, {torch.get_num_threads()} threads\n\n{HEAD}")
    theirs = their_step(our_trainer("fp32", given.batch), given.batch)
    for precision in given.precisions:
        trainer = our_trainer(precision, given.batch)
        result = compare(trainer.advance, theirs, given.rounds, warmup=3, clock=clock)
        print(result.row(f"text-to-image step, {precision} against diffusers fp32"), flush=True)
        if precision == "fp32":
            share = 100 * data_share(trainer, result.ours)
            took.insert(0, f"captions, tokens, latents and noise: {share:.2f} % of our step")
    print("", *took, sep="\n")


if __name__ == "__main__":
    main()
