"""`neblina samplers`: which there are, and what they are measured to do."""

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from neblina.cli.progress import bar, console


def samplers(
    *names: str,
    card: bool = False,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
    out: Path | None = None,
) -> None:
    """List the samplers; with --card, measure them on problems whose answer is known exactly.

    Parameters
    ----------
    names
        Samplers to show; all of them when left out.
    card
        Measure: the order of convergence, and the error after 5, 10, 20 and 50 network evaluations.
    as_json
        The card as a list of objects.
    out
        Folder to write the card of all samplers to, as a page with a plot.
    """
    from rich.table import Table

    from neblina.core.errors import SettingError
    from neblina.evaluation.card import EVALUATIONS, PROBLEMS, measure_card
    from neblina.samplers import samplers as registry
    from neblina.tasks.card import shown, write_card

    if out is not None and names:
        raise SettingError("the page is of all samplers: leave the names out, or --out")
    chosen = {entry.name: entry for entry in (registry[name] for name in names or registry)}
    if not (card or as_json or out):
        listing = Table(box=None, padding=(0, 1))
        for title in ("name", "order", "what it is", "source"):
            listing.add_column(title)
        for entry in chosen.values():
            about = (entry.function.__doc__ or "").split("\n")[0].split(";")[0].rstrip(".")
            listing.add_row(", ".join(entry.names), str(entry.order or "–"), about, entry.source)
        console.print(listing)
        return
    with bar("measuring", aside=as_json) as progress:
        task = progress.task_ids[0]
        progress.update(task, total=len(chosen))
        rows = measure_card(list(chosen), on_row=lambda name: progress.update(task, advance=1, words=name))
        progress.update(task, words="")
    if as_json:
        print(json.dumps([row.to_dict() for row in rows], indent=1, ensure_ascii=False))
    elif card and out is None:
        for problem in PROBLEMS:
            table = Table(title=f"error of the standard deviation, {problem}", box=None, padding=(0, 1))
            table.add_column("sampler", no_wrap=True)
            for title in ("order", "is", "calls", "noise", *map(str, EVALUATIONS)):
                table.add_column(title, justify="right", no_wrap=True)
            for row in rows:
                table.add_row(
                    row.name,
                    str(row.order_claimed or "–"),
                    "–" if row.order_measured is None else f"{row.order_measured:.2f}",
                    "own" if row.evaluations_per_step is None else f"{row.evaluations_per_step:g}",
                    "yes" if row.stochastic else "",
                    *(shown(row.std_error[problem][str(most)]) for most in EVALUATIONS),
                )
            console.print(table)
        for row in rows:
            if row.bias:
                console.print(f"{row.name} is biased, {row.bias}")
    if out is not None:
        page = write_card(out, rows=rows)
        if not as_json:
            console.print(f"measured {len(rows)} samplers    {page}")
