"""`neblina demo`: see it work."""

import time
from pathlib import Path
from typing import Any, Literal

from neblina.cli.numbers import Whole
from neblina.cli.progress import bar, command, console
from neblina.training.recipe import load_recipe


def demo(
    *,
    out: Path = Path("demo"),
    seed: Whole = 0,
    device: str | None = None,
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32",
) -> None:
    """Make pictures of words, then train a model of handwritten digits in about two minutes, and measure it.

    Parameters
    ----------
    out
        Where everything goes. A demo that was stopped there goes on.
    seed
        Of everything random.
    device
        cpu, cuda, …; the best there is when left out.
    dtype
        Precision of training.
    """
    recipe = load_recipe("digits", {"training": {"seed": seed, "precision": dtype}})

    from neblina.tasks.demo import first_pictures, run_demo, try_next

    began = time.perf_counter()
    for what, place in first_pictures(out, device=device).items():
        console.print(f"{what:<40}  {place}")
    console.print(f"made in {time.perf_counter() - began:.0f} s; now a model of handwritten digits is trained\n")
    began = time.perf_counter()
    with bar("demo") as progress:
        task = progress.task_ids[0]
        losses: list[float] = []

        def on_report(report: Any) -> None:
            losses.extend([] if report.loss is None else [report.loss])
            words = f"loss {losses[-1]:.4f}" if losses else ""
            progress.update(task, completed=report.step, total=report.steps, words=words)

        def on_stage(words: str) -> None:
            progress.update(task, description=words)

        shown = run_demo(recipe, out, device=device, on_report=on_report, on_stage=on_stage)
    measured = shown.measured
    console.print(f"trained, drawn and measured in {time.perf_counter() - began:.0f} s\n")
    for what, place in shown.pictures.items():
        console.print(f"{what:<40}  {place}")
    console.print(f"\nread as the digit asked for: {measured.agreement:.1%}" + " " * 13 + f"{shown.metrics}")
    ratio = f"Fréchet distance to held-out digits, over that of real ones: {measured.frechet_ratio:.2f}"
    console.print(f"{ratio}   ({measured.extractor})\n")
    for number, words in enumerate(try_next(shown)):
        console.print(f"{'try next:' if number == 0 else '':<10} {command()} {words}")
