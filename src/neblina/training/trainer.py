"""The training loop.

Each step: take the next pictures, draw a time and noise for each, diffuse them in closed form, have the network
predict, compare, update, and let the averaged weights follow. Everything random in a step is a function of (seed,
step, process), so a run continues from (weights, average, optimiser state, step) with the bits it would have had.

Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. NeurIPS 2020, algorithm 1.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from accelerate import Accelerator
from torch import Tensor

from neblina.bundle.folder import Bundle, save_bundle
from neblina.bundle.schedulers import Sampling
from neblina.core.atomic import write_file
from neblina.core.conditions import NULL_LABEL, Condition
from neblina.core.devices import pick_device
from neblina.core.errors import DivergenceError, Interrupted, SettingError, choose
from neblina.data.order import batch_numbers
from neblina.data.pictures import Pictures, to_float, to_uint8
from neblina.data.sheets import save_sheet
from neblina.denoisers.parameterisations import clocks, parameterisations
from neblina.nets.unet import UNet, UNetConfig
from neblina.objectives.simple import simple_loss, spread_uniforms
from neblina.processes.grids import make_grid
from neblina.processes.schedules import make_schedule
from neblina.samplers import samplers
from neblina.samplers.generate import generate
from neblina.training.checkpoint import Checkpoint, list_checkpoints, newest_checkpoint, save_checkpoint
from neblina.training.ema import Ema
from neblina.training.journal import Journal
from neblina.training.recipe import Recipe, build_recipe, differences

_PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Report:
    """What training tells whoever watches it, once a step.

    Attributes:
        step: steps done.
        steps: steps of the whole run.
        images: training examples seen.
        loss: mean over the steps since the last log line; None between log lines.
        note: something to tell the user, or None.
    """

    step: int
    steps: int
    images: int
    loss: float | None = None
    note: str | None = None


OnReport = Callable[[Report], None]


def new_model(recipe: Recipe, pictures: Pictures) -> Bundle:
    """The untrained model that a recipe describes for these pictures, weights drawn from its seed.

    Raises:
        SettingError: an unknown name, a network that does not fit the pictures, or more sampling steps than the
            schedule has.
    """
    channels, height, width = pictures.shape
    net = recipe.network
    attend = [max(height, width) // 2**level <= net.attention for level in range(len(net.channels))]
    classes = len(pictures.label_names) if recipe.data.labels and pictures.labels is not None else 0
    hidden = classes > 0 and recipe.training.label_dropout > 0
    config = UNetConfig(
        sample_size=height if height == width else (height, width),
        in_channels=channels,
        out_channels=channels,
        down_block_types=tuple("AttnDownBlock2D" if one else "DownBlock2D" for one in attend),
        up_block_types=tuple("AttnUpBlock2D" if one else "UpBlock2D" for one in attend[::-1]),
        block_out_channels=net.channels,
        layers_per_block=net.blocks,
        dropout=net.dropout,
        attention_head_dim=net.head_dim,
        norm_num_groups=net.groups,
        resnet_time_scale_shift="scale_shift" if net.scale_shift else "default",
        num_class_embeds=classes + hidden if classes else None,
    )
    schedule = make_schedule(recipe.process.schedule, **recipe.process.settings)
    choose("parameterisation", recipe.process.parameterisation, parameterisations)
    if recipe.process.clock is not None:
        clocks[recipe.process.clock](schedule, torch.ones(1, dtype=torch.float64))
    sampler = samplers[recipe.sampling.sampler]
    make_grid(recipe.sampling.grid or sampler.grid, schedule, recipe.sampling.steps)
    torch.manual_seed(recipe.training.seed)
    return Bundle(
        UNet(config).eval(),
        schedule,
        recipe.process.parameterisation,
        recipe.process.clock,
        pictures.label_names if classes else (),
        classes if hidden else None,
        Sampling(**recipe.sampling.model_dump()),
        {"recipe": recipe.model_dump(mode="json")},
    )


@dataclass(frozen=True)
class Examples:
    """What one process sees in one step.

    Attributes:
        x0: clean pictures in [−1, 1], shape (B, C, H, W).
        noise: standard normal, shape of x0.
        t: times, shape (B,), float64.
        labels: classes, NULL_LABEL where hidden, shape (B,), or None.
    """

    x0: Tensor
    noise: Tensor
    t: Tensor
    labels: Tensor | None


class Trainer:
    """A run in progress: the network, its average, the optimiser, and how far they are."""

    def __init__(self, recipe: Recipe, pictures: Pictures, *, device: str | None = None) -> None:
        if len(pictures) == 0:
            raise SettingError("there are no pictures to train on")
        self.recipe = recipe
        self.pictures = pictures
        chosen = pick_device(device)
        self.accelerator = Accelerator(cpu=chosen.type == "cpu")
        # under torchrun every process has a device of its own
        self.device = self.accelerator.device if device is None else chosen
        if recipe.training.batch % self.accelerator.num_processes:
            raise SettingError(
                f"training.batch {recipe.training.batch} cannot be shared by {self.accelerator.num_processes} processes"
            )
        self.share = recipe.training.batch // self.accelerator.num_processes
        self.bundle = new_model(recipe, pictures)
        self.bundle.net.to(self.device)
        # convolutions are up to 1.8 times faster backwards with the channels last, in fp32 too (docs/log.md)
        self.bundle.net.channels_last()
        self.ema = Ema(self.bundle.net, recipe.training.ema)
        self.step = 0
        self.optimizer = torch.optim.AdamW(
            self.bundle.net.parameters(),
            lr=recipe.optimizer.lr,
            betas=recipe.optimizer.betas,
            weight_decay=recipe.optimizer.weight_decay,
            fused=True,
        )
        dtype = _PRECISIONS[recipe.training.precision]
        self.autocast = torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=dtype is torch.float16)
        self.denoiser = replace(self.bundle.denoiser(), net=self.accelerator.prepare(self.bundle.net))
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self.summed = 0
        self.gradient_norm = torch.zeros((), device=self.device)
        self.first_bad = torch.full((), math.inf, device=self.device)
        self._ahead = ThreadPoolExecutor(1)
        self._next: tuple[int, Future[tuple[Tensor, Tensor | None]]] | None = None

    def advance(self) -> None:
        """One optimiser step."""
        torch.manual_seed(self._seed(self.step))  # dropout
        seen = self.examples(self.step, self._batch())
        with self.autocast:
            loss = simple_loss(self.denoiser, seen.x0, seen.noise, seen.t, Condition(seen.labels)).mean()
        self.optimizer.zero_grad()
        self.accelerator.backward(self.scaler.scale(loss))
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.bundle.net.parameters(), self.recipe.optimizer.clip, foreach=True)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, self.step)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        self.ema.update(self.bundle.net, self.step)

        # kept on the device: asking for them would make it wait
        self.loss_sum += loss.detach()
        self.summed += 1
        self.gradient_norm = norm.detach()
        self.first_bad = torch.where(loss.isfinite(), self.first_bad, self.first_bad.clamp(max=self.step))

    def examples(self, step: int, batch: tuple[Tensor, Tensor | None] | None = None) -> Examples:
        """What this process sees in step number `step`, counted from 0; the pictures may be given if they are read."""
        pixels, labels = self._read(step) if batch is None else batch
        generator = torch.Generator().manual_seed(self._seed(step))
        x0 = to_float(pixels.to(self.device, non_blocking=True))
        if self.recipe.data.flip:
            mirrored = torch.rand(len(x0), generator=generator) < 0.5
            x0 = torch.where(mirrored.to(self.device)[:, None, None, None], x0.flip(-1), x0)
        t = self.bundle.schedule.training_time(spread_uniforms(len(x0), generator))
        noise = torch.randn(x0.shape, generator=generator).to(self.device)
        if labels is not None:
            hidden = torch.rand(len(labels), generator=generator) < self.recipe.training.label_dropout
            labels = labels.masked_fill(hidden, NULL_LABEL)
        return Examples(x0, noise, t, labels)

    def check(self) -> None:
        """Refuse to go on after a loss that is not finite.

        Raises:
            DivergenceError: naming the step.
        """
        first = float(self.first_bad)
        if math.isfinite(first):
            raise DivergenceError(
                f"the loss was not finite at step {int(first)}. Lower optimizer.lr ({self.recipe.optimizer.lr:g}), "
                f"raise optimizer.warmup, or look at the data."
            )

    def mean_loss(self) -> float:
        """Mean over the steps since the last call, over all processes."""
        total = self.accelerator.reduce(self.loss_sum / self.summed, "mean")
        self.loss_sum = torch.zeros_like(self.loss_sum)
        self.summed = 0
        return float(total)

    def progress(self) -> dict[str, Any]:
        """What a checkpoint stores beside the tensors."""
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "loss_sum": float(self.loss_sum),
            "summed": self.summed,
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to where a checkpoint was made.

        Raises:
            SettingError: it was made by another recipe; every differing setting is named.
        """
        was = build_recipe(checkpoint.progress["recipe"], "the checkpoint's recipe")
        changed = list(differences(was, self.recipe))
        if changed:
            raise SettingError("the recipe has changed since the checkpoint, in " + "; ".join(changed))
        self.bundle.net.load_state_dict(checkpoint.net)
        self.ema.net.load_state_dict(checkpoint.ema)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        for parameter, state in self.optimizer.state.items():
            # the fused update walks weights and moments in memory order, so they must be laid out alike
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = torch.empty_like(parameter).copy_(state[name])
        self.loss_sum.fill_(checkpoint.progress["loss_sum"])
        self.summed = checkpoint.progress["summed"]
        if checkpoint.progress["scaler"]:
            self.scaler.load_state_dict(checkpoint.progress["scaler"])
        self.step = checkpoint.step

    def preview(self, columns: int = 10) -> Tensor:
        """Pictures from the averaged weights as they are, uint8; always of the same noise, a class a column."""
        classes = len(self.bundle.label_names)
        shown = min(classes, columns) if classes else columns
        labels = torch.arange(4 * shown) % shown if classes else None
        was_training = self.ema.net.training
        with self.autocast:
            pictures = generate(
                replace(self.denoiser, net=self.ema.net),
                self.pictures.shape,
                range(4 * shown),
                labels=labels,
                sampler=self.bundle.sampling.sampler,
                steps=self.bundle.sampling.steps,
                grid=self.bundle.sampling.grid,
                clip=self.bundle.sampling.clip,
                device=self.device,
            )
        self.ema.net.train(was_training)
        return to_uint8(pictures)

    def _batch(self) -> tuple[Tensor, Tensor | None]:
        """This step's share of pictures and labels; the next step's are being read meanwhile."""
        waiting = self._next
        ready = waiting[1].result() if waiting is not None and waiting[0] == self.step else self._read(self.step)
        self._next = (self.step + 1, self._ahead.submit(self._read, self.step + 1))
        return ready

    def _read(self, step: int) -> tuple[Tensor, Tensor | None]:
        training = self.recipe.training
        first = step * training.batch + self.accelerator.process_index * self.share
        numbers = batch_numbers(training.seed, len(self.pictures), first, self.share)
        labels = self.pictures.labels if self.bundle.label_names else None
        return self.pictures.read(numbers), None if labels is None else labels[numbers]

    def _seed(self, step: int) -> int:
        entropy = [self.recipe.training.seed % 2**64, step, self.accelerator.process_index]
        return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


def learning_rate(recipe: Recipe, step: int) -> float:
    """The learning rate of the step after `step` steps: a linear rise, then the recipe's fall over the whole run."""
    optimizer = recipe.optimizer
    rise = min(1.0, (step + 1) / (optimizer.warmup + 1))
    left = 1 - step / recipe.steps
    fall = {"none": 1.0, "linear": left, "cosine": 0.5 - 0.5 * math.cos(math.pi * left)}[optimizer.decay]
    return optimizer.lr * rise * fall


def train(
    recipe: Recipe,
    pictures: Pictures,
    folder: Path,
    *,
    resume: bool = False,
    device: str | None = None,
    on_report: OnReport | None = None,
) -> Path:
    """Train a model, or go on with training one.

    Args:
        recipe: what to do.
        pictures: the training pictures.
        folder: where the run lives: `log.jsonl`, `timing.jsonl`, `samples/`, `checkpoints/`, and at the end `model/`.
        resume: go on from the newest whole checkpoint; from the beginning if there is none.
        device: "cpu", "cuda", …; None for the best there is.
        on_report: told after every step.
    Returns:
        The model's folder.
    Raises:
        SettingError: a recipe that does not fit the pictures, or not the run that is there.
        DivergenceError: the loss stopped being finite; the last good checkpoint stands.
        StorageError: the disk is full; the last checkpoint stands.
        Interrupted: on Ctrl-C, after finishing the step and saving.
    """
    tell = on_report or (lambda report: None)
    checkpoints = folder / "checkpoints"
    if not resume and list_checkpoints(checkpoints):
        raise SettingError(f"{folder} holds a run already. Pass --resume to go on with it, or choose another folder.")
    trainer = Trainer(recipe, pictures, device=device)
    main = trainer.accelerator.is_main_process
    checkpoint, passed = newest_checkpoint(checkpoints) if resume else (None, [])
    if checkpoint is not None:
        trainer.restore(checkpoint)
    for sentence in passed:
        tell(Report(trainer.step, recipe.steps, 0, note=f"{sentence}; going on from the one before"))
    trainer.accelerator.wait_for_everyone()
    journal = None
    if main:
        folder.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
        write_file(folder / "recipe.yaml", lambda aside: aside.write_text(text))
        journal = Journal(folder, trainer.step)
    with _interruptible() as stop:
        _loop(trainer, folder, checkpoints, journal, tell, stop)
    model = folder / "model"
    if main:
        save_bundle(replace(trainer.bundle, net=trainer.ema.net), model)
    trainer.accelerator.wait_for_everyone()
    return model


def _loop(
    trainer: Trainer,
    folder: Path,
    checkpoints: Path,
    journal: Journal | None,
    tell: OnReport,
    stop: threading.Event,
) -> None:
    training, steps = trainer.recipe.training, trainer.recipe.steps
    began, first = time.perf_counter(), trainer.step
    saved = trainer.step
    while trainer.step < steps:
        trainer.advance()
        done = trainer.step == steps
        stopping = stop.is_set()
        report = Report(trainer.step, steps, trainer.step * training.batch)
        if trainer.step % training.log_every == 0 or done:
            trainer.check()
            loss = trainer.mean_loss()
            report = replace(report, loss=loss)
            if journal is not None:
                record = {
                    "step": trainer.step,
                    "images": report.images,
                    "loss": loss,
                    "gradient_norm": float(trainer.gradient_norm),
                    "lr": learning_rate(trainer.recipe, trainer.step - 1),
                }
                seconds = time.perf_counter() - began
                speed = (trainer.step - first) * training.batch / seconds
                journal.write(record, {"step": trainer.step, "seconds": seconds, "images_per_second": speed})
        if training.sample_every and (trainer.step % training.sample_every == 0 or done) and journal is not None:
            save_sheet(
                trainer.preview(),
                folder / "samples" / f"step-{trainer.step:08d}.png",
                columns=_columns(trainer),
            )
        if trainer.step % training.checkpoint_every == 0 or done or stopping:
            trainer.check()
            if journal is not None:
                save_checkpoint(
                    checkpoints,
                    trainer.step,
                    net=trainer.bundle.net,
                    ema=trainer.ema.net,
                    optimizer=trainer.optimizer,
                    progress=trainer.progress(),
                    keep=training.keep,
                )
            saved = trainer.step
        tell(report)
        if stopping and not done:
            raise Interrupted(
                f"stopped after step {saved} of {steps}; everything is saved. Go on with the same command and --resume"
            )


def _columns(trainer: Trainer) -> int:
    return min(len(trainer.bundle.label_names), 10) or 10


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C (or SIGTERM) into an event; the second one interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: Any) -> None:
        stop.set()
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
