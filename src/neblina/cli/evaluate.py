"""`neblina evaluate`: how good a model is, on pictures that it was not trained on."""

import sys
import time
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from neblina.cli.numbers import Whole, WholeOrNone
from neblina.cli.progress import bar, console


def evaluate(
    model: Path,
    /,
    *,
    metrics: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    data: str | None = None,
    count: WholeOrNone = None,
    batch: Whole = 64,
    method: Literal["bound", "ode", "both"] = "both",
    steps: WholeOrNone = None,
    terms: WholeOrNone = None,
    tolerance: float = 3e-4,
    seed: Whole = 0,
    out: Path = Path("evaluation"),
    device: str | None = None,
    skip_bad: bool = False,
) -> None:
    """Measure a trained model; under torchrun every process takes its share.

    Parameters
    ----------
    model
        A model folder.
    metrics
        What to measure: nll, bits per dimension; of a model of tokens bits a token.
    data
        Pictures or a text to measure on: digits, or a path; what the recipe held out of training when left out.
    count
        Pictures at most, chosen at random.
    batch
        Most pictures in one network call.
    method
        Of nll: the variational bound, the probability-flow ODE, or both; tokens have the bound alone.
    steps
        Of the bound; the schedule's own, or 1000, when left out.
    terms
        Of the bound's steps, how many are evaluated for each picture, drawn anew; all when left out.
    tolerance
        Most error of a step of the ODE.
    seed
        Of all noise, and of which pictures are chosen.
    out
        Folder for the numbers and their picture.
    device
        cpu, cuda, …; the best there is when left out.
    skip_bad
        Leave files that cannot be read out instead of stopping.
    """
    from neblina.evaluation.likelihood import METHODS, How
    from neblina.tasks.evaluate import evaluate as measure
    from neblina.tasks.evaluate import load_for_evaluation

    how = How(METHODS if method == "both" else (method,), batch, steps, terms, tolerance, seed)
    opened = load_for_evaluation(model, device)
    began = time.perf_counter()
    with bar("measuring") as progress:
        task = progress.task_ids[0]

        def on_progress(done: float, total: int) -> None:
            progress.update(task, completed=done, total=total, words="pictures")

        found = measure(
            opened,
            metrics or ["nll"],
            out,
            data=data,
            count=count,
            how=how,
            skip_bad=skip_bad,
            on_progress=on_progress,
        )
    for sentence in found.left_out:
        console.print(f"{sentence} Left out.")
    console.print(f"measured in {time.perf_counter() - began:.0f} s on {found.words}")
    for name, result in found.results.items():
        for sentence in result.sentences():
            console.print(sentence)
        console.print(f"{name}: where the bits go                 {found.pictures[name]}")
    console.print(f"the numbers                               {found.report}")
    if found.stopped is not None:
        console.print(f"{found.stopped}; the numbers are of those")
        sys.exit(130)
