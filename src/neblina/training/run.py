"""A whole run: steps, log, samples, checkpoints, and what happens on Ctrl-C."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from neblina.core.errors import Interrupted
from neblina.core.launch import is_main_process
from neblina.core.memory import peak_memory
from neblina.data.pictures import Pictures
from neblina.data.sheets import save_sheet
from neblina.training.checkpoint import drop_after, newest_checkpoint, save_checkpoint
from neblina.training.journal import Journal, open_journal
from neblina.training.learner import Learner
from neblina.training.posthoc import drop_snapshots_after, save_snapshot
from neblina.training.recipe import Recipe
from neblina.training.same import refuse_second_run
from neblina.training.trainer import Trainer


@dataclass(frozen=True)
class Doing:
    """What is done before or after the steps: encoding pictures, measuring a model.

    Attributes:
        what: in words.
        done, count: how much of it, of how much.
    """

    what: str
    done: int
    count: int


@dataclass(frozen=True)
class Report:
    """What training tells whoever watches it, once a step.

    Attributes:
        step: steps done.
        steps: steps of the whole run.
        images: training examples seen.
        loss: mean over the steps since the last log line; None between log lines.
        words: what else there is to say of those steps, for people.
        note: something to tell the user, or None.
        doing: what is being done that is no step; None in a step.
    """

    step: int
    steps: int
    images: int
    loss: float | None = None
    words: str = ""
    note: str | None = None
    doing: Doing | None = None


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
    return run(lambda: Trainer(recipe, pictures, device=device), recipe, folder, resume=resume, on_report=on_report)


def run(
    build: Callable[[], Learner],
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    on_report: OnReport | None = None,
) -> Path:
    """Train what `build` makes from the recipe; arguments, result and errors of `train`."""
    tell = on_report if on_report is not None and is_main_process() else lambda report: None
    checkpoints = folder / "checkpoints"
    refuse_second_run(folder, checkpoints, resume=resume)
    learner = build()
    main = is_main_process()
    checkpoint, passed = newest_checkpoint(checkpoints) if resume else (None, [])
    learner.begin(checkpoint)
    for sentence in passed:
        tell(Report(learner.step, recipe.steps, 0, note=f"{sentence}; going on from the one before, which is whole"))
    for sentence in learner.notes:
        tell(Report(learner.step, recipe.steps, 0, note=sentence))
    if main:
        drop_after(checkpoints, learner.step)
        drop_snapshots_after(folder / "snapshots", learner.step)
    learner.wait()
    journal = None
    if main:
        journal = open_journal(folder, recipe, learner.step)
    with interruptible() as stop:
        _loop(learner, folder, checkpoints, journal, tell, stop)
    model = folder / "model"
    if main:
        learner.tell = lambda what, done, count: tell(
            Report(learner.step, recipe.steps, learner.step * recipe.training.batch, doing=Doing(what, done, count))
        )
        learner.save(model)
    learner.wait()
    return model


def _loop(
    learner: Learner,
    folder: Path,
    checkpoints: Path,
    journal: Journal | None,
    tell: OnReport,
    stop: threading.Event,
) -> None:
    training, steps = learner.recipe.training, learner.recipe.steps
    began, first = time.perf_counter(), learner.step
    while learner.step < steps:
        learner.advance()
        done = learner.step == steps
        stopping = learner.agree(stop.is_set())
        report = Report(learner.step, steps, learner.step * training.batch)
        if learner.step % training.log_every == 0 or done:
            learner.check()
            figures = learner.figures()
            report = replace(report, loss=figures["loss"], words=learner.words(figures))
            if journal is not None:
                seconds = time.perf_counter() - began
                speed = (learner.step - first) * training.batch / seconds
                journal.write(
                    {"step": learner.step, "images": report.images, **figures},
                    {
                        "step": learner.step,
                        "seconds": seconds,
                        "images_per_second": speed,
                        "seconds_left": (steps - learner.step) * seconds / (learner.step - first),
                        "memory_mb": peak_memory() / 2**20,
                    },
                )
        due = training.snapshots_every and (learner.step % training.snapshots_every == 0 or done)
        if due and journal is not None and learner.averages is not None:
            save_snapshot(folder / "snapshots", learner.step, learner.averages)
        if training.sample_every and (learner.step % training.sample_every == 0 or done) and journal is not None:
            seen = learner.preview()
            if seen is not None:
                place = folder / "samples" / f"step-{learner.step:08d}.png"
                save_sheet(seen, place, columns=learner.columns)
        if learner.step % training.checkpoint_every == 0 or done or stopping:
            learner.check()
            stored = learner.stored()
            if journal is not None:
                save_checkpoint(
                    checkpoints,
                    learner.step,
                    net=stored.net,
                    ema=stored.ema,
                    optimizer=stored.optimizer,
                    progress=stored.progress,
                    state=stored.state,
                    keep=training.keep,
                )
        tell(report)
        if stopping and not done:
            raise interrupted(learner.step, steps)


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
