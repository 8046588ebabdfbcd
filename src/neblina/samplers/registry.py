"""The table of samplers: what a sampler declares of itself is what the conformance suite holds it to."""

import inspect
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from neblina.core.errors import SettingError, choose
from neblina.core.noise import Noise
from neblina.core.plan import Query
from neblina.core.posterior import Posterior
from neblina.core.registry import Registry
from neblina.processes.gaussian import GaussianProcess

Sampling = Generator[Query, Posterior, Tensor]
samplers: Registry["Sampler"] = Registry("sampler")


@dataclass(frozen=True)
class Sampler:
    """A sampler and what it claims.

    Attributes:
        name: its first name.
        function: called as function(process, x, times, noise=…, **settings), returns the generator.
        order: how fast its error falls with the step, as a power of the step.
        stages: network evaluations a step; the step to clean data takes one.
        stochastic: whether it draws noise on the way.
        requires: the kind of process it walks on.
        grid: its default grid.
        settings: values of the function's settings that this name stands for.
    """

    name: str
    function: Callable[..., Sampling]
    order: int
    stages: int = 1
    stochastic: bool = False
    requires: type = GaussianProcess
    grid: str = "log_snr"
    settings: dict[str, Any] = field(default_factory=dict)

    def __call__(
        self, process: GaussianProcess, x: Tensor, times: Tensor, *, noise: Noise, **settings: Any
    ) -> Sampling:
        """Start walking from x, shape (B, *), over times of shape (N + 1, B) or (N + 1,).

        Raises:
            SettingError: a process of the wrong kind, a setting the sampler does not have, or times that rise or
                leave [0, 1].
        """
        if not isinstance(process, self.requires):
            raise SettingError(f"{self.name} walks on a {self.requires.__name__}, not a {type(process).__name__}")
        known = [name for name in inspect.signature(self.function).parameters if name not in _GIVEN]
        for name in settings:
            choose(f"setting of {self.name}", name, known)
        if times.ndim == 1:
            times = times[:, None].expand(-1, len(x))
        if bool((times.diff(dim=0) > 0).any()) or bool((times < 0).any()) or bool((times > 1).any()):
            raise SettingError("a grid of times falls from at most 1 to at least 0")
        return self.function(process, x, times, noise=noise, **{**self.settings, **settings})

    def evaluations(self, steps: int) -> int:
        """Network evaluations of `steps` steps that end at clean data."""
        return steps * self.stages - (self.stages - 1)


_GIVEN = ("process", "x", "times", "noise")


def register(
    *names: str,
    order: int,
    stages: int = 1,
    stochastic: bool = False,
    requires: type = GaussianProcess,
    grid: str = "log_snr",
    **settings: Any,
) -> Callable[[Callable[..., Sampling]], Callable[..., Sampling]]:
    """Put a sampler in the table under one or more names: two names, one map.

    Args:
        order, stages, stochastic, requires, grid: what it claims, as in `Sampler`.
        settings: values of the function's settings under these names.
    """

    def add(function: Callable[..., Sampling]) -> Callable[..., Sampling]:
        entry = Sampler(names[0], function, order, stages, stochastic, requires, grid, settings)
        samplers.add(entry, *names)
        return function

    return add
