"""A whole run: steps, log, samples, checkpoints, and what happens on Ctrl-C."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from neblina.bundle.folder import save_bundle
from neblina.core.errors import Interrupted
from neblina.core.launch import is_main_process
from neblina.data.pictures import Pictures
from neblina.data.sheets import save_sheet
from neblina.training.checkpoint import drop_after, newest_checkpoint, save_checkpoint
from neblina.training.journal import Journal, open_journal
from neblina.training.posthoc import drop_snapshots_after, save_snapshot
from neblina.training.recipe import Recipe
from neblina.training.same import refuse_second_run
from neblina.training.trainer import Trainer, learning_rate


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
        folder: where the run lives: `log.jsonl`, `timing.jsonl`, `samples/`, `checkpoints/`, `snapshots/`
            if the recipe wants them, and at the end `model/`.
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
    refuse_second_run(folder, checkpoints, resume=resume)
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
        drop_snapshots_after(folder / "snapshots", trainer.step)
    trainer.accelerator.wait_for_everyone()
    journal = None
    if main:
        journal = open_journal(folder, recipe, trainer.step)
    with interruptible() as stop:
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
        due = training.snapshots_every and (trainer.step % training.snapshots_every == 0 or done)
        if due and journal is not None and trainer.averages is not None:
            save_snapshot(folder / "snapshots", trainer.step, trainer.averages)
        if training.sample_every and (trainer.step % training.sample_every == 0 or done) and journal is not None:
            save_sheet(
                trainer.preview(),
                folder / "samples" / f"step-{trainer.step:08d}.png",
                columns=_columns(trainer),
            )
        if trainer.step % training.checkpoint_every == 0 or done or stopping:
            trainer.check()
            trainer.share_loss()
            if journal is not None:
                save_checkpoint(
                    checkpoints,
                    trainer.step,
                    net=trainer.bundle.net,
                    ema=trainer.ema.net,
                    optimizer=trainer.optimizer,
                    progress=trainer.progress(),
                    state=trainer.state(),
                    keep=training.keep,
                )
            saved = trainer.step
        tell(report)
        if stopping and not done:
            raise interrupted(saved, steps)


def _columns(trainer: Trainer) -> int:
    return min(len(trainer.bundle.label_names), 10) or 10


@contextmanager
def interruptible() -> Iterator[threading.Event]:
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


def interrupted(step: int, steps: int) -> Interrupted:
    """What is raised once a run that was asked to stop has saved everything."""
    done = f"stopped after step {step} of {steps}; everything is saved"
    return Interrupted(f"{done}. Go on with the same command and --resume", done)
