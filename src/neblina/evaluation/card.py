"""The correctness card: what every sampler claims, and what it is measured to do on problems with an exact answer.

The problems are N(0, s²) under DDPM's linear schedule with the exact denoiser, s = 1, 0.3 and 0.1: as wide as the
noise, as wide as pictures are, and narrow. The error is that of the sampled standard deviation, relative to s. For
samplers with steps of their own, the tolerance is the smallest that stays within the evaluations.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from neblina.evaluation.laws import adaptive_std_error, measured_order, std_error, steps_for
from neblina.processes.gaussian import GaussianProcess
from neblina.processes.grids import make_grid
from neblina.processes.tables import Linear
from neblina.samplers import Sampler, samplers

PROBLEMS = {"N(0, 1)": 1.0, "N(0, 0.3²)": 0.3, "N(0, 0.1²)": 0.1}
EVALUATIONS = (5, 10, 20, 50)
PROCESS = GaussianProcess(Linear())
_TOLERANCES = tuple(10 ** (-number / 4) for number in range(2, 25))


@dataclass(frozen=True)
class Row:
    """What is known about one sampler.

    Attributes:
        name: its first name.
        also: its other names.
        order_claimed, order_measured: the power of the step that its error falls with; measured between two noise
            levels, None for order 0 and for adaptive samplers, whose error follows their tolerance.
        std_error: relative error of the standard deviation, by problem and number of evaluations; None where so few do
            not make a step.
        evaluations_per_step: network calls, on the long run; None for an adaptive sampler.
        stochastic: whether it draws noise on the way.
        requires: what of the model or the process, in words; empty for nothing.
        grid: its default grid of times.
        bias: of an order 0: the most it is off by, however many steps, and why.
        source: the paper.
    """

    name: str
    also: tuple[str, ...]
    order_claimed: int
    order_measured: float | None
    std_error: dict[str, dict[str, float | None]]
    evaluations_per_step: float | None
    stochastic: bool
    requires: str
    grid: str
    bias: str
    source: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def measure_card(names: Sequence[str] | None = None, *, on_row: Callable[[str], None] | None = None) -> list[Row]:
    """Measure samplers, all of them unless named; takes about half a minute.

    Raises:
        SettingError: an unknown name.
    """
    chosen = {entry.name: entry for entry in (samplers[name] for name in names or samplers)}
    rows = []
    for sampler in chosen.values():
        rows.append(_row(sampler))
        if on_row is not None:
            on_row(sampler.name)
    return rows


def _row(sampler: Sampler) -> Row:
    errors = _adaptive_errors(sampler) if sampler.adaptive else _errors(sampler)
    stepping = sampler.order > 0 and not sampler.adaptive
    order = round(measured_order(sampler, PROCESS), 2) if stepping else None
    return Row(
        name=sampler.name,
        also=sampler.names[1:],
        order_claimed=sampler.order,
        order_measured=order,
        std_error=errors,
        evaluations_per_step=None if sampler.adaptive else _per_step(sampler),
        stochastic=sampler.stochastic,
        requires=_requirements(sampler),
        grid=sampler.grid,
        bias="" if sampler.bias is None else f"up to {sampler.bias[0]:.0%}: {sampler.bias[1]}",
        source=sampler.source,
    )


def _errors(sampler: Sampler) -> dict[str, dict[str, float | None]]:
    table: dict[str, dict[str, float | None]] = {problem: {} for problem in PROBLEMS}
    for evaluations in EVALUATIONS:
        steps = steps_for(sampler, PROCESS, evaluations)
        for problem, std in PROBLEMS.items():
            table[problem][str(evaluations)] = _rounded(std_error(sampler, PROCESS, std, steps)) if steps else None
    return table


def _adaptive_errors(sampler: Sampler) -> dict[str, dict[str, float | None]]:
    table: dict[str, dict[str, float | None]] = {}
    for problem, std in PROBLEMS.items():
        tried = [adaptive_std_error(sampler, PROCESS, std, tolerance) for tolerance in _TOLERANCES]
        within = {most: [error for error, taken in tried if taken <= most] for most in EVALUATIONS}
        table[problem] = {str(most): _rounded(errors[-1]) if errors else None for most, errors in within.items()}
    return table


def _per_step(sampler: Sampler) -> float:
    few, many = (
        sampler.evaluations(PROCESS, make_grid(sampler.grid, PROCESS.schedule, steps)) or 0 for steps in (20, 40)
    )
    return round((many - few) / 20, 2)


def _requirements(sampler: Sampler) -> str:
    words = []
    if sampler.learned_variance:
        words.append("a model that learned its variance")
    if sampler.finite_sde:
        words.append("drift and diffusion finite at t = 1")
    return ", ".join(words)


def _rounded(error: float) -> float:
    """Three digits: what the card shows."""
    return float(f"{error:.3g}")
