"""Every error is a sentence to the person who made the mistake: what is wrong, where, and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class NeblinaError(Exception):
    """Base of all errors that a user's input can cause; the command line prints it without a traceback."""


class SettingError(NeblinaError, ValueError):
    """A setting is unknown, out of range or contradicts another one."""


class DataError(NeblinaError, ValueError):
    """Data cannot be used as it is: a broken file, a label out of range, an empty folder."""


class CheckpointError(NeblinaError):
    """A model folder or a checkpoint is missing, incomplete or does not fit."""


class StorageError(NeblinaError, OSError):
    """A file could not be written; what was there before is untouched."""


class MemoryShortage(NeblinaError, MemoryError):
    """What was asked for takes more memory than there is."""


class DivergenceError(NeblinaError, ArithmeticError):
    """Training or a model produced a value that is not finite."""


class Interrupted(NeblinaError):
    """Training was stopped by the user; what was done is saved.

    Attributes:
        done: how far it came, as the beginning of a sentence.
    """

    def __init__(self, sentence: str, done: str = "") -> None:
        super().__init__(sentence)
        self.done = done


class Cancelled(NeblinaError):
    """Work was stopped at the caller's request."""


_SHOWN = 60  # options in a message; a model may know a thousand classes


def choose(kind: str, name: str, options: Iterable[str]) -> str:
    """Return `name` if it is one of `options`, else refuse it with the closest one.

    Raises:
        SettingError: `name` is not an option.
    """
    known = sorted(options)
    if name in known:
        return name
    close = get_close_matches(name, known, n=1)
    shown = known if len(known) <= _SHOWN else [*known[:_SHOWN], f"… ({len(known)} in all)"]
    hint = f"Did you mean {close[0]}?" if close else f"There is: {', '.join(shown)}."
    raise SettingError(f"{name!r} is not a {kind}. {hint}")
