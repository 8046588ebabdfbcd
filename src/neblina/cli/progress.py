"""Progress bars."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
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

_EVERY = 30.0  # seconds between lines where there is no bar

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


def teller(progress: Progress) -> Callable[[int, int, str], None]:
    """What shows how far a bar's task is: done, of how many, and a few words.

    Where the output is no terminal, and so has no bar until the end, it is a line now and then.
    """
    task = progress.task_ids[0]
    said = [time.monotonic()]

    def tell(done: int, count: int, words: str) -> None:
        progress.update(task, completed=done, total=count, words=words)
        if not console.is_terminal and time.monotonic() - said[0] >= _EVERY:
            said[0] = time.monotonic()
            console.print(f"{progress.tasks[0].description}: {done:,} of {count:,}  {words}")

    return tell
