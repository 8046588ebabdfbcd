"""Running out of memory, said as a sentence: whichever library ran out, and however it says so."""

import re
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


def _shortage(error: Exception) -> MemoryShortage:
    said = next(iter(str(error).strip().splitlines()), "")
    return MemoryShortage(
        "there is not enough memory for this: ask for smaller pictures or a smaller batch, or load the model as bf16"
        + (f" ({said[:200]})" if said else "")
    )
