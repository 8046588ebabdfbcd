"""Whole numbers on the command line: what `int` reads and nothing else, so that no fraction is rounded in silence."""

from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import Parameter, Token


def whole(kind: Any, tokens: Sequence[Token]) -> int:
    """The number that an option is given.

    Raises:
        ValueError: a fraction or no number; cyclopts says the option in front of it.
    """
    (token,) = tokens
    try:
        return int(token.value)
    except ValueError:
        raise ValueError(f"{token.value} is no whole number, such as 20.") from None


Whole = Annotated[int, Parameter(converter=whole)]
WholeOrNone = Annotated[int | None, Parameter(converter=whole)]
