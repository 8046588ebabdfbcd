"""`neblina train`: from pictures to a model."""

import time
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from neblina.cli.numbers import WholeOrNone
from neblina.cli.progress import bar, command, console, teller
from neblina.training.recipe import Recipe, load_recipe


def train(
    what: str,
    /,
    *,
    out: Path | None = None,
    resume: bool = False,
    device: str | None = None,
    dtype: Literal["fp32", "bf16", "fp16"] | None = None,
    seed: WholeOrNone = None,
    skip_bad: bool = False,
    overrides: Annotated[Recipe | None, Parameter(name="*", consume_multiple=True)] = None,
) -> None:
    """Train a model. Any setting of the recipe is an option: --optimizer.lr 3e-4.

    Parameters
    ----------
    what
        A recipe of the package (digits, mnist, ...), a YAML file, a folder or zip of pictures, or a text file. It
        comes first: an option of several values takes all that follow it (--network.channels 32 64).
    out
        Where the run lives; runs/NAME when left out.
    resume
        Go on with an interrupted run.
    device
        cpu, cuda, …; the best there is when left out.
    dtype
        Short for --training.precision.
    seed
        Short for --training.seed.
    skip_bad
        Leave unusable files out instead of refusing the set.
    """
    settings: dict[str, Any] = overrides.model_dump(exclude_unset=True) if overrides is not None else {}
    for key, value in {"precision": dtype, "seed": seed}.items():
        if value is not None:
            settings.setdefault("training", {})[key] = value
    recipe = load_recipe(what, settings)

    from neblina.tasks.train import codec_figures, token_figures, train_recipe
    from neblina.training.run import Report

    folder = out or Path("runs") / recipe.name
    began = time.perf_counter()
    with bar(f"training {recipe.name}") as progress:
        task, tell = progress.task_ids[0], teller(progress)
        first: list[int] = []  # images seen when this stage began or was gone on with
        started: list[float] = []

        def on_read(done: int, total: int) -> None:
            tell(done, total, "looking at the pictures")

        def on_report(report: Report) -> None:
            if report.note:
                console.print(f"note: {report.note}")
                return
            if report.doing:
                first.clear()
                tell(report.doing.done, report.doing.count, report.doing.what)
                return
            if not first or report.steps != progress.tasks[0].total:  # of the next stage
                first[:], started[:] = [], []
                first.append(report.images)
                started.append(time.perf_counter())
                progress.reset(task, total=report.steps, completed=report.step)
            seconds = time.perf_counter() - started[0]
            speed = (report.images - first[0]) / max(seconds, 1e-9)
            words = f"{speed:,.0f} images/s" if report.images > first[0] else ""
            if report.loss is not None:
                losses.append(report.loss)
                said[:] = [report.words]
            if losses:
                words += "  ".join(["", f"loss {losses[-1]:.4f}", *filter(None, said)])
            tell(report.step, report.steps, words)

        losses: list[float] = []
        said: list[str] = []
        model = train_recipe(
            recipe,
            folder,
            resume=resume,
            device=device,
            skip_bad=skip_bad,
            on_read=on_read,
            on_report=on_report,
        )
    console.print(f"trained in {time.perf_counter() - began:.0f} s")
    console.print(f"the model                                 {model}")
    if recipe.kind != "classifier" and recipe.tokens.of != "letters":
        console.print(f"samples while training                    {folder / 'samples'}")
    console.print(f"the loss                                  {folder / 'loss.png'}")
    if recipe.kind == "tokens":
        console.print(token_figures(model))
    if recipe.kind == "codec":
        console.print(codec_figures(model))
        return
    verb = f"generate {model}"
    if recipe.kind == "classifier":
        verb = f"generate AN_UNCONDITIONAL_MODEL --classifier {model} --label 0"
    elif recipe.text.layers:
        verb += f' "{next(iter(recipe.text.prompts), "WHAT IT IS TO SHOW")}"'
    console.print(f"try next:  {command()} {verb} -n 16")
