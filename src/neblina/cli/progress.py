"""Progress bars."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from neblina.core.launch import is_main_process

# under torchrun only the first process talks
console = Console(highlight=False, soft_wrap=True, quiet=not is_main_process())
_aside = Console(highlight=False, soft_wrap=True, quiet=not is_main_process(), stderr=True)


def command() -> str:
    """How this program is called: its name where that is found, else its path."""
    return "neblina" if shutil.which("neblina") else os.path.relpath(sys.argv[0])


@contextmanager
def bar(title: str, *, aside: bool = False) -> Iterator[Progress]:
    """A bar with how far it is, the time left, and room for a few words.

    Args:
        aside: show it on the standard error, where the standard output is for a program to read.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}"),
    )
    with Progress(*columns, console=_aside if aside else console, refresh_per_second=4) as progress:
        progress.add_task(title, total=None, words="")
        yield progress
