"""The commands that make pictures: open the model, show how far it is, save what was made, say where."""

import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neblina.cli.options import Opening, Output, Sampling, arguments_of
from neblina.cli.progress import bar, console

if TYPE_CHECKING:
    from neblina.tasks.order import Order
    from neblina.tasks.recipe import Made


def carry_out(verb: str, model: str, own: dict[str, Any], opening: Opening, sampling: Sampling, output: Output) -> None:
    """Carry out a verb with what was given on the command line.

    Args:
        own: the verb's own arguments; None is not given.
    """
    from neblina.tasks.order import Order

    given = {name: str(value) if isinstance(value, Path) else value for name, value in own.items() if value is not None}
    save(Order(verb, model, {**given, **arguments_of(opening, sampling)}), output)


def save(order: "Order", output: Output) -> "list[Made]":
    """Make the pictures of an order and write each with its recipe, and a sheet of all where there are several.

    They are written as they come, so that Ctrl-C loses what is being made and no more. Nothing is written over but
    the last order's sheet.
    """
    from neblina.encoders.prompts import PromptCut
    from neblina.tasks.keeping import keep, keep_sheet, ready
    from neblina.tasks.making import Watch, in_portions, open_model
    from neblina.tasks.preview import Preview
    from neblina.tasks.settings import Noticed

    ready(output.out)
    opened = open_model(order, device=output.device)
    preview = Preview(opened, output.out / "preview.png", output.preview)
    with bar(order.verb) as progress, warnings.catch_warnings(record=True) as said, preview:
        warnings.simplefilter("always", UserWarning)
        task = progress.task_ids[0]
        known: list[int | None] = []

        def on_begin(total: int | None) -> None:
            known.append(total)
            progress.update(task, total=None if None in known else sum(total or 0 for total in known))

        def on_step(step: Any) -> None:
            progress.update(task, advance=len(step.query.x), words=f"t = {float(step.query.t.max()):.3f}")
            preview(step)

        began = time.perf_counter()
        made, places = [], []
        for portion in in_portions(order, opened, Watch(on_begin, on_step)):
            made += portion
            places += keep(portion, output.out)
        seconds = time.perf_counter() - began
        progress.update(task, words="")
    for warning in said:
        if issubclass(warning.category, PromptCut | Noticed):
            console.print(f"[yellow]note:[/yellow] {warning.message}")
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    shown = places[0]
    if len(made) > 1:
        labels = order.arguments.get("labels")
        columns = len(labels) if isinstance(labels, list) and len(labels) > 1 else 8
        shown = keep_sheet(made, output.out, columns=min(len(made), columns))
    count = f"{len(made)} pictures" if len(made) > 1 else "1 picture"
    console.print(f"{order.verb}: {count} in {seconds:.1f} s ({len(made) / seconds:.2g} images/s)    {shown}")
    return made
