"""`neblina info`: what is known about a model."""

import json
from pathlib import Path

from neblina.cli.progress import console


def info(model: Path, /, *, as_json: bool = False) -> None:
    """Say what is known about a model: its network, its process, what it was trained with, what it was measured at.

    Parameters
    ----------
    model
        A model folder.
    as_json
        One JSON object instead of a table.
    """
    from rich.table import Table

    from neblina.tasks.model import load

    facts = load(model, device="cpu").describe()
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    table = Table(show_header=False, box=None, padding=(0, 2))
    for name, value in facts.items():
        shown = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value
        table.add_row(
            name,
            shown if isinstance(shown, str) else json.dumps(shown, indent=2 if isinstance(value, dict) else None),
        )
    console.print(table)
