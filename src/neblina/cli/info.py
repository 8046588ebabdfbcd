"""`neblina info`: what is known about a model."""

import json
import math

from neblina.cli.progress import console

_MOST = 20  # entries of a list that the table shows


def info(subject: str, /, *, as_json: bool = False) -> None:
    """Say what is known about a model (its parts, its process, what it was measured at) or how a picture was made.

    Parameters
    ----------
    subject
        A model's folder or file, or a picture: of this program, or with AUTOMATIC1111's or ComfyUI's parameters.
    as_json
        One JSON object instead of a table.
    """
    import yaml
    from rich.markup import escape
    from rich.table import Table

    from neblina.tasks.describing import describe

    facts = describe(subject)
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    table = Table(show_header=False, box=None, padding=(0, 2))
    scene = facts.get("arguments", {}).pop("scene", None)
    for name, value in facts.items():
        if isinstance(value, list | tuple) and len(value) > _MOST:
            value = f"{', '.join(map(str, value[:_MOST]))}, … ({len(value):,} in all, which --as-json prints)"
        shown = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value
        words = shown if isinstance(shown, str) else json.dumps(shown, indent=2 if isinstance(value, dict) else None)
        table.add_row(name, escape(words))  # what is in brackets is no style
    console.print(table)
    if scene is not None:  # outside the table, which would break long lines: it can be copied to a file
        lines = yaml.safe_dump(scene, sort_keys=False, default_flow_style=None, allow_unicode=True, width=math.inf)
        console.print(f"# the scene, as a file\n{lines}", markup=False, end="")
