"""The table of samplers: what a sampler declares of itself is what the conformance suite holds it to."""

import inspect
import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from neblina.core.errors import SettingError, choose
from neblina.core.noise import Noise, Silence
from neblina.core.plan import Query
from neblina.core.posterior import Categorical, Gaussian
from neblina.core.registry import Registry
from neblina.processes.discrete import DiscreteProcess
from neblina.processes.gaussian import GaussianProcess
from neblina.processes.schedules import Schedule, schedules

Sampling = Generator[Query, Gaussian, Tensor]
samplers: Registry["Sampler"] = Registry("sampler")
TokenSampling = Generator[Query, Categorical, Tensor]
token_samplers: Registry["TokenSampler"] = Registry("sampler of tokens")


@dataclass(frozen=True)
class Sampler:
    """A sampler and what it claims.

    Attributes:
        name: its first name.
        names: all of them: two names, one map.
        function: called as function(process, x, times, noise=…, **settings), returns the generator.
        order: how fast its error falls with the step, as a power of the step; 0 for one whose error does not vanish.
        source: the paper and its equation.
        stochastic: whether it draws noise on the way.
        adaptive: whether it chooses its own steps, from times[0] to times[-1], by an error tolerance.
        linear: whether a step is linear in the state and the belief, so that an exact law can be followed.
        learned_variance: whether it needs a denoiser that learned its reverse variance.
        finite_sde: whether it needs a process whose drift and diffusion are finite at t = 1.
        bias: of an order 0, the most that its standard deviation is off by, relatively, however many steps; and why.
        grid: its default grid.
        settings: values of the function's settings that this name stands for.
    """

    name: str
    names: tuple[str, ...]
    function: Callable[..., Sampling]
    order: int
    source: str
    stochastic: bool = False
    adaptive: bool = False
    linear: bool = True
    learned_variance: bool = False
    finite_sde: bool = False
    bias: tuple[float, str] | None = None
    grid: str = "log_snr"
    settings: dict[str, Any] = field(default_factory=dict)

    def __call__(
        self, process: GaussianProcess, x: Tensor, times: Tensor, *, noise: Noise | None = None, **settings: Any
    ) -> Sampling:
        """Start walking from x, shape (B, *).

        Args:
            times: falling times in [0, 1], shape (N + 1, B) or (N + 1,).
            noise: drawn from on the way; None for a walk that draws none.
            settings: of the sampler, in place of those its name stands for.
        Raises:
            SettingError: a process that it does not walk on, a setting that the sampler does not have or that is not a
                number of its kind, times that rise, leave [0, 1] or are not of this batch, or a stochastic walk without
                noise.
        """
        times = of_each(times, len(x))
        self._check_process(process, times[0])
        check_settings(self.name, self.function, settings)
        given = {**self.settings, **settings}
        if noise is None and (self.stochastic or given.get("eta", 0) != 0):
            raise SettingError(
                f"{self.name} draws noise on the way and was given none; pass noise=SampleNoise(seed, …)"
            )
        return self.function(process, x, times, noise=noise or Silence(), **given)

    @property
    def choices(self) -> tuple[str, ...]:
        """Names of the settings a user can give."""
        return choices(self.function)

    def _check_process(self, process: object, start: Tensor) -> None:
        if not isinstance(process, GaussianProcess):
            raise SettingError(f"{self.name} walks on a GaussianProcess, not a {type(process).__name__}")
        if self.finite_sde and not _is_finite(process.schedule, start):
            able = [name for name, kind in schedules.items() if name != "betas" and _is_finite(kind(), _END)]
            raise SettingError(
                f"{self.name} integrates the reverse SDE, which the {process.schedule.name} schedule makes infinite at "
                f"t = 1. Sample with ddpm, or on one of: {', '.join(able)}"
            )

    def evaluations(self, process: GaussianProcess, times: Tensor, **settings: Any) -> int | None:
        """How many answers a walk over times of shape (N + 1,) takes, by walking it; None if it decides on the way."""
        if self.adaptive:
            return None
        walk = self(process, torch.zeros(1, 1), times, noise=Silence(), **settings)
        count = 0
        try:
            query = next(walk)
            while True:
                count += 1
                query = walk.send(Gaussian(query.x, variance_fraction=torch.zeros_like(query.x)))
        except StopIteration:
            return count


_END = torch.ones(1, dtype=torch.float64)


def _is_finite(schedule: Schedule, t: Tensor) -> bool:
    return bool((schedule.drift(t).isfinite() & schedule.diffusion(t).isfinite()).all())


_GIVEN = ("process", "x", "times", "noise")


def register(*names: str, **given: Any) -> Callable[[Callable[..., Sampling]], Callable[..., Sampling]]:
    """Put a sampler in the table under one or more names: two names, one map.

    Args:
        given: what it claims (`order` and `source`, and any other attribute of `Sampler`); the rest are values of the
            function's settings under these names.
    """
    claims = {field.name: given.pop(field.name) for field in fields(Sampler) if field.name in given}

    def add(function: Callable[..., Sampling]) -> Callable[..., Sampling]:
        entry = Sampler(names[0], names, function, **claims, settings=given)
        for name in given:
            choose(f"setting of {entry.name}", name, entry.choices)
        samplers.add(entry, *names)
        return function

    return add


@dataclass(frozen=True)
class TokenSampler:
    """A sampler of tokens and what it claims.

    Attributes:
        name, names, source: as of `Sampler`.
        function: called as function(process, x, times, noise=…, **settings), returns the generator.
        exact: whether a token by itself, believed exactly, follows the process's law at every time of every grid.
        masked: whether it needs a mask, as the kernel's only state that is not data.
        rates: whether it needs a kernel of continuous time.
    """

    name: str
    names: tuple[str, ...]
    function: Callable[..., TokenSampling]
    source: str
    exact: bool = True
    masked: bool = False
    rates: bool = False

    def __call__(
        self, process: DiscreteProcess, x: Tensor, times: Tensor, *, noise: Noise, **settings: Any
    ) -> TokenSampling:
        """Start walking from tokens x, int64 of shape (B, *).

        Args:
            times: falling times in [0, 1], shape (N + 1, B) or (N + 1,).
            noise: drawn from on the way.
            settings: of the sampler.
        Raises:
            SettingError: as `Sampler`.
        """
        times = of_each(times, len(x))
        self.check_process(process)
        check_settings(self.name, self.function, settings)
        return self.function(process, x, times, noise=noise, **settings)

    @property
    def choices(self) -> tuple[str, ...]:
        """Names of the settings a user can give."""
        return choices(self.function)

    def check_process(self, process: object) -> None:
        """Refuse a process that it does not walk on.

        Raises:
            SettingError: naming it.
        """
        if not isinstance(process, DiscreteProcess):
            raise SettingError(f"{self.name} walks on a DiscreteProcess, not a {type(process).__name__}")
        kernel = process.kernel
        if self.masked and kernel.states == kernel.classes:
            raise SettingError(f"{self.name} unmasks tokens, and the kernel of this model has no mask: take ancestral")
        if self.rates and kernel.steps is not None:
            raise SettingError(
                f"{self.name} needs a kernel of continuous time, and this one has {kernel.steps} steps: take ancestral"
            )


def register_tokens(
    *names: str, **given: Any
) -> Callable[[Callable[..., TokenSampling]], Callable[..., TokenSampling]]:
    """Put a sampler of tokens in the table under one or more names.

    Args:
        given: what it claims.
    """

    def add(function: Callable[..., TokenSampling]) -> Callable[..., TokenSampling]:
        token_samplers.add(TokenSampler(names[0], names, function, **given), *names)
        return function

    return add


def of_each(times: Tensor, count: int) -> Tensor:
    """A grid of times for each sample, shape (N + 1, count), float64 on the CPU.

    Raises:
        SettingError: times that rise, leave [0, 1] or are not of this batch.
    """
    if times.ndim not in (1, 2) or len(times) < 2 or (times.ndim == 2 and times.shape[1] != count):
        raise SettingError(
            f"a grid of times has shape (N + 1,) or (N + 1, {count}), N at least 1, not {tuple(times.shape)}"
        )
    times = times.double().cpu()
    if times.ndim == 1:
        times = times[:, None].expand(-1, count)
    if not bool((times.diff(dim=0) <= 0).all() & (times >= 0).all() & (times <= 1).all()):
        raise SettingError("a grid of times falls from at most 1 to at least 0")
    return times


def choices(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of the settings of a sampler's function."""
    return tuple(name for name in inspect.signature(function).parameters if name not in _GIVEN)


def check_settings(sampler: str, function: Callable[..., Any], settings: dict[str, Any]) -> None:
    """Refuse settings that a sampler does not have, or that are not numbers of their kind.

    Raises:
        SettingError: naming the setting.
    """
    for name, value in settings.items():
        choose(f"setting of {sampler}", name, choices(function))
        _check_setting(sampler, function, name, value)


def _check_setting(sampler: str, function: Callable[..., Any], name: str, value: Any) -> None:
    kind = inspect.signature(function).parameters[name].annotation
    whole = isinstance(value, int) and not isinstance(value, bool)
    fits = {
        int: whole,
        float: (whole or isinstance(value, float)) and math.isfinite(value),
        bool: isinstance(value, bool),
    }
    if kind in fits and not fits[kind]:
        words = {int: "a whole number", float: "a finite number", bool: "true or false"}[kind]
        raise SettingError(f"{name} of {sampler} is {words}, not {value!r}")
