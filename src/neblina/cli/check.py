"""`neblina check`: what a model is and what is wrong with it."""

import json
import sys

from neblina.cli.options import Opening, arguments_of
from neblina.cli.progress import console

_COLOURS = {"ok": "green", "note": "yellow", "problem": "red"}


def check(
    model: str,
    /,
    *,
    opening: Opening = Opening(),  # noqa: B008, frozen
    device: str | None = None,
    as_json: bool = False,
) -> None:
    """Say what a model is, what is missing and what contradicts what; exits with 1 where there is a problem.

    Parameters
    ----------
    model
        A model's folder or file, one part of a model, or its name on the hub.
    device
        cpu, cuda, …; the best there is when left out.
    as_json
        One JSON object instead of a table.
    """
    from rich.table import Table

    from neblina.tasks.checks.check import check as look

    report = look(model, device=device, **arguments_of(opening))
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        facts, table = (Table(show_header=False, box=None, padding=(0, 2)) for _ in range(2))
        for name, value in report.facts.items():
            facts.add_row(
                name, f"{value:,}" if isinstance(value, int) else value if isinstance(value, str) else json.dumps(value)
            )
        for finding in report.findings:
            table.add_row(
                f"[{_COLOURS[finding.level]}]{finding.level}[/]", finding.part, finding.says.replace("[", r"\[")
            )
        console.print(facts)
        console.print(table)
    if report.problems:
        sys.exit(1)
