"""The table of guidances: what each does, who described it, and the setting at which it does nothing.

The conformance suite holds every entry to the same facts: at its neutral setting it is the plan that it was given, a
plan over plans answers as the plans nested in one another would, it is finite at both ends of time, and it asks every
network once.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from neblina.core.plan import Plan
from neblina.core.registry import Registry

Function = TypeVar("Function", bound=Callable[..., Plan])


@dataclass(frozen=True)
class Guidance:
    """A guidance, an operator on beliefs or a way of following a measurement.

    Attributes:
        name: its first name.
        function: called with the plan that it changes first; returns a plan.
        source: the paper and its equation.
        neutral: settings at which it returns the belief of the plan it was given.
        changes: what it can change, "numbers" (pictures, latents), "tokens" or "both".
    """

    name: str
    function: Callable[..., Plan]
    source: str
    neutral: Mapping[str, float]
    changes: str = "numbers"

    @property
    def settings(self) -> tuple[str, ...]:
        """Names of the numbers that a user can give."""
        parameters = inspect.signature(self.function).parameters.values()
        return tuple(one.name for one in parameters if one.kind is one.KEYWORD_ONLY)

    @property
    def follows_a_measurement(self) -> bool:
        """Whether it is called as function(plan, operator, measurement, schedule, **settings)."""
        return "measurement" in inspect.signature(self.function).parameters


guidances: Registry[Guidance] = Registry("guidance")


def register(*names: str, source: str, changes: str = "numbers", **neutral: float) -> Callable[[Function], Function]:
    """Put a guidance in the table under one or more names: two names, one map."""

    def add(function: Function) -> Function:
        guidances.add(Guidance(names[0], function, source, neutral, changes), *names)
        return function

    return add
