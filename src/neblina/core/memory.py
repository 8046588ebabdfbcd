"""Memory: how much this process took, and running out of it said as a sentence, however a library says so."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from neblina.core.errors import MemoryShortage

# torch has a type of its own for accelerators only
_SAYS = re.compile(r"can't allocate memory|not enough memory|out of memory|Invalid buffer size|calculation overflowed")


@contextmanager
def within_memory() -> Iterator[None]:
    """What is done inside fits in memory, or says what to do.

    Raises:
        MemoryShortage: it does not.
    """
    try:
        yield
    except MemoryError as error:
        if isinstance(error, MemoryShortage):
            raise
        raise _shortage(error) from error
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and not _SAYS.search(str(error)):
            raise
        raise _shortage(error) from error


def peak_memory() -> int:
    """Most bytes that this process took so far: on a GPU of that, else of this machine's memory; 0 if nobody knows."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    try:
        import resource
    except ImportError:  # Windows has none
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _shortage(error: Exception) -> MemoryShortage:
    said = next(iter(str(error).strip().splitlines()), "")
    return MemoryShortage(
        "there is not enough memory for this: ask for smaller pictures or a smaller batch, or load the model as bf16"
        + (f" ({said[:200]})" if said else "")
    )
