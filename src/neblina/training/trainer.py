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

import torch
import yaml
from accelerate import Accelerator
from torch import Tensor

from neblina.bundle.folder import Bundle, save_bundle
from neblina.bundle.schedulers import Sampling
from neblina.core.atomic import write_file
from neblina.core.conditions import Condition
from neblina.core.devices import pick_device
from neblina.core.errors import CheckpointError, DivergenceError, Interrupted, SettingError
from neblina.core.launch import is_main_process, world_size
from neblina.data.pictures import Pictures, to_uint8
from neblina.data.sheets import save_sheet
from neblina.denoisers.parameterisations import check_end
from neblina.nets.unet import UNet, UNetConfig
from neblina.objectives.simple import simple_loss
from neblina.processes.grids import make_grid
from neblina.processes.schedules import make_schedule
from neblina.samplers import samplers
from neblina.samplers.generate import generate
from neblina.training.checkpoint import (
    Checkpoint,
    drop_after,
    list_checkpoints,
    newest_checkpoint,
    save_checkpoint,
)
from neblina.training.ema import Ema
from neblina.training.examples import Batch, Examples, draw_examples, read_batch, step_seed
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
    check_end(recipe.process.parameterisation, recipe.process.clock, schedule)
    if recipe.sampling.guidance != 1 and not hidden:
        raise SettingError(
            f"sampling.guidance {recipe.sampling.guidance:g} needs pictures with labels and "
            "training.label_dropout > 0; set it to 1"
        )
    sampler = samplers[recipe.sampling.sampler]
    make_grid(recipe.sampling.grid or sampler.grid, schedule, recipe.sampling.steps)
    torch.manual_seed(recipe.training.seed % 2**63)
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


class Trainer:
    """A run in progress: the network, its average, the optimiser, and how far they are."""

    def __init__(self, recipe: Recipe, pictures: Pictures, *, device: str | None = None) -> None:
        if len(pictures) == 0:
            raise SettingError("there are no pictures to train on")
        self.recipe = recipe
        self.pictures = pictures
        chosen = pick_device(device)
        together = world_size() > 1
        self.accelerator = Accelerator(cpu=together and chosen.type == "cpu", mixed_precision="no")
        # under torchrun every process has a device of its own
        self.device = self.accelerator.device if together else chosen
        self.process = self.accelerator.process_index
        if recipe.training.batch % self.accelerator.num_processes:
            raise SettingError(
                f"training.batch {recipe.training.batch} cannot be shared by {self.accelerator.num_processes} processes"
            )
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
        net = self.accelerator.prepare(self.bundle.net) if together else self.bundle.net
        self.denoiser = replace(self.bundle.denoiser(), net=net)
        self.loss_sum = torch.zeros((), device=self.device)
        self.summed = 0
        self.gradient_norm = torch.zeros((), device=self.device)
        self.first_bad = torch.full((), math.inf, device=self.device)
        self._ahead = ThreadPoolExecutor(1)
        self._next: tuple[int, Future[Batch]] | None = None

    def advance(self) -> None:
        """One optimiser step."""
        torch.manual_seed(step_seed(self.recipe, self.step, self.process))  # dropout
        seen = draw_examples(self.recipe, self.bundle.schedule, self.step, self._batch(), process=self.process)
        x0, noise = (one.to(self.device, non_blocking=True) for one in (seen.x0, seen.noise))
        with self.autocast:
            loss = simple_loss(self.denoiser, x0, noise, seen.t, Condition(seen.labels)).mean()
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
        fine = loss.isfinite()
        if not self.scaler.is_enabled():  # a loss scaler skips steps whose gradient overflows
            fine = fine & norm.isfinite()
        self.first_bad = torch.where(fine, self.first_bad, self.first_bad.clamp(max=self.step))

    def examples(self, step: int) -> Examples:
        """What this process sees in step number `step`, counted from 0."""
        return draw_examples(self.recipe, self.bundle.schedule, step, self._read(step), process=self.process)

    def check(self) -> None:
        """Refuse to go on after a loss or a gradient that is not finite, in any process.

        Raises:
            DivergenceError: naming the step.
        """
        first = float(self.accelerator.gather(self.first_bad[None]).min())
        if math.isfinite(first):
            raise DivergenceError(
                f"the loss or its gradient was not finite at step {int(first)}. "
                f"Lower optimizer.lr ({self.recipe.optimizer.lr:g}), "
                f"raise optimizer.warmup, or look at the data."
            )

    def agree(self, stopping: bool) -> bool:
        """Whether any process wants to stop. Several processes ask each other every tenth step, since asking waits."""
        if self.accelerator.num_processes == 1:
            return stopping
        if self.step % 10:
            return False
        votes = self.accelerator.reduce(torch.tensor(float(stopping), device=self.device), "sum")
        return bool(votes > 0)

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
            "setting": self._setting(),
            "loss_sum": float(self.loss_sum),
            "summed": self.summed,
            "scaler": self.scaler.state_dict(),
        }

    def agree_on(self, checkpoint: Checkpoint | None) -> None:
        """Refuse to begin where another process does not.

        Raises:
            CheckpointError: the processes read different checkpoints.
        """
        mine = torch.tensor([-1 if checkpoint is None else checkpoint.step], device=self.device)
        steps = set(self.accelerator.gather(mine).tolist())
        if len(steps) > 1:
            raise CheckpointError(
                f"the processes see different checkpoints (steps {sorted(steps)}); "
                "put the run's folder where all of them see it"
            )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to where a checkpoint was made.

        Raises:
            SettingError: it was made by another recipe, on other pictures or by another number of processes; every
                difference is named.
        """
        was = build_recipe(checkpoint.progress["recipe"], "the checkpoint's recipe")
        changed = list(differences(was, self.recipe))
        now = self._setting()
        for name, value in checkpoint.progress["setting"].items():
            if value != now[name]:
                changed.append(f"{name}: {value!r} there, {now[name]!r} here")
        if changed:
            raise SettingError(
                "this is not the run that the checkpoint is of; it differs in "
                + "; ".join(changed)
                + ". Undo the change, or choose another folder with --out"
            )
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
        with self.autocast:
            pictures = generate(
                replace(self.denoiser, net=self.ema.net),
                self.pictures.shape,
                range(4 * shown),
                labels=labels,
                sampler=self.bundle.sampling.sampler,
                steps=self.bundle.sampling.steps,
                grid=self.bundle.sampling.grid,
                guidance=self.bundle.sampling.guidance,
                clip=self.bundle.sampling.clip,
                device=self.device,
            )
        return to_uint8(pictures)

    def _setting(self) -> dict[str, Any]:
        """What else the course of a run depends on."""
        return {
            "pictures": len(self.pictures),
            "their shape": list(self.pictures.shape),
            "classes": list(self.bundle.label_names),
            "processes": self.accelerator.num_processes,
        }

    def _batch(self) -> Batch:
        """This step's share of pictures and labels; the next step's are being read meanwhile."""
        waiting = self._next
        ready = waiting[1].result() if waiting is not None and waiting[0] == self.step else self._read(self.step)
        self._next = (self.step + 1, self._ahead.submit(self._read, self.step + 1))
        return ready

    def _read(self, step: int) -> Batch:
        processes = self.accelerator.num_processes
        return read_batch(self.recipe, self.pictures, step, process=self.process, processes=processes)


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
    tell = on_report if on_report is not None and is_main_process() else lambda report: None
    checkpoints = folder / "checkpoints"
    if not resume and list_checkpoints(checkpoints):
        raise SettingError(f"{folder} holds a run already. Pass --resume to go on with it, or choose another folder.")
    trainer = Trainer(recipe, pictures, device=device)
    main = is_main_process()
    checkpoint, passed = newest_checkpoint(checkpoints) if resume else (None, [])
    trainer.agree_on(checkpoint)
    if checkpoint is not None:
        trainer.restore(checkpoint)
    for sentence in passed:
        tell(Report(trainer.step, recipe.steps, 0, note=f"{sentence}; going on from the one before, which is whole"))
    if main:
        drop_after(checkpoints, trainer.step)
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
        stopping = trainer.agree(stop.is_set())
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
            done_so_far = f"stopped after step {saved} of {steps}; everything is saved"
            raise Interrupted(f"{done_so_far}. Go on with the same command and --resume", done_so_far)


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
