"""Bits per dimension of a set of pictures: in batches, shared by processes, with the error of the mean.

Every picture has values of its own (`evaluation.bits`), whatever batch or process it falls to. The result is their
mean, and its standard error the standard deviation over pictures by the root of their number: it covers what the
pictures differ by and what the estimates are off by, the drawn terms and the trace included.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.errors import SettingError, choose
from neblina.core.noise import SampleNoise
from neblina.data.pictures import Pictures
from neblina.denoisers.denoiser import NetworkDenoiser
from neblina.evaluation.bits import bound_bits, ode_bits
from neblina.evaluation.shares import Mean, OnProgress, Values, by_all, mean_of
from neblina.objectives.likelihood import check_density
from neblina.objectives.stratified import bound_times, strata
from neblina.processes.gaussian import Eta, Large, Learned, Variance

METHODS = ("bound", "ode")
_ODE_COST = 300  # evaluations that the ODE takes about as long as, derivative included; for the progress only
_VARIANCES: dict[str, Variance] = {"small": Eta(1.0), "large": Large(), "learned": Learned()}


@dataclass(frozen=True)
class How:
    """How to measure.

    Attributes:
        methods: "bound", "ode" or both.
        batch: pictures in one network call.
        steps: of the bound; None for a discrete schedule's own number, 1000 for others.
        terms: of the bound's steps, how many are evaluated for each picture, drawn anew; None for all.
        tolerance: of the ODE.
        seed: of all noise.
    """

    methods: tuple[str, ...] = METHODS
    batch: int = 64
    steps: int | None = None
    terms: int | None = None
    tolerance: float = 3e-4
    seed: int = 0


@dataclass(frozen=True)
class Stratum:
    """What the bound's steps between two times cost.

    Attributes:
        t, s: its ends, t > s.
        steps: how many steps it has.
        bits: per dimension, of all its steps together.
    """

    t: float
    s: float
    steps: int
    bits: float


@dataclass(frozen=True)
class Bound:
    """The variational bound: total = prior + steps + reconstruction.

    Attributes:
        variance: of the model's reverse steps: learned, or whichever of small and large has the lower mean.
        other: the mean with the other fixed variance; None where it was learned.
        evaluated: how many of the steps were evaluated for each picture.
        of: how many steps there are, the reconstruction not counted.
        strata: the steps over time, from noise to data.
    """

    total: Mean
    prior: Mean
    steps: Mean
    reconstruction: Mean
    variance: str
    other: Mean | None
    evaluated: int
    of: int
    strata: tuple[Stratum, ...]


@dataclass(frozen=True)
class Flow:
    """The probability-flow ODE.

    Attributes:
        evaluations: of the network and its derivative, a picture, on average.
    """

    total: Mean
    evaluations: float


@dataclass(frozen=True)
class Likelihood:
    """What was measured.

    Attributes:
        pictures: how many were measured.
        asked: how many were to be; more than that if it was stopped.
    """

    pictures: int
    asked: int
    bound: Bound | None
    ode: Flow | None


def likelihood(
    denoiser: NetworkDenoiser,
    pictures: Pictures,
    numbers: Sequence[int],
    labels: Tensor | None,
    how: How,
    *,
    device: torch.device,
    on_progress: OnProgress | None = None,
) -> Likelihood:
    """Measure the pictures of these numbers; under torchrun each process measures its share and all get the result.

    Args:
        denoiser: the model.
        pictures: what to measure on, of the model's shape.
        numbers: which of them.
        labels: of the measured pictures as the model numbers them, shape (len(numbers),), or None.
        how: the methods and their settings.
        device: where the network is.
        on_progress: told how many of this process's pictures are done, with fractions, and how many it has.
    Raises:
        SettingError: a process without a density, a setting out of range, or labels that do not fit.
        DivergenceError: the ODE cannot be followed.
        Interrupted: on Ctrl-C before the first batch was done; later, what was done is returned.
    """
    measuring = _checked(denoiser, numbers, labels, how)

    def of_batch(places: list[int], tell: Callable[[float], None]) -> Values:
        chosen = [numbers[place] for place in places]
        condition = Condition(None if labels is None else labels[places])
        return _measured(measuring, pictures.read(chosen), chosen, condition, device, tell)

    rows = by_all(len(numbers), how.batch, of_batch, device=device, on_progress=on_progress)
    return _summary(measuring, rows, len(numbers))


@dataclass(frozen=True)
class _Measuring:
    """What is the same for all batches."""

    denoiser: NetworkDenoiser
    how: How
    times: Tensor
    edges: Tensor

    @property
    def variances(self) -> tuple[str, ...]:
        return ("learned",) if self.denoiser.learned_variance else ("small", "large")

    @property
    def cost(self) -> dict[str, int]:
        """Of each method, in evaluations a picture."""
        cost = {"bound": len(self.edges), "ode": _ODE_COST}
        return {method: cost[method] for method in self.how.methods}


def _checked(denoiser: NetworkDenoiser, numbers: Sequence[int], labels: Tensor | None, how: How) -> _Measuring:
    """Refuse what cannot be measured, before anything is.

    Raises:
        SettingError: as `likelihood`.
    """
    check_density(denoiser.process)
    for method in how.methods:
        choose("way to measure the likelihood", method, METHODS)
    if how.batch < 1 or not numbers or not how.methods:
        raise SettingError(f"nll is of at least 1 picture in batches of at least 1, not {len(numbers)} in {how.batch}")
    if not how.tolerance > 0:
        raise SettingError(f"tolerance {how.tolerance:g} must be positive; 3e-4 is the default")
    denoiser.check(Condition(labels))
    schedule = denoiser.process.schedule
    times = bound_times(schedule, how.steps)
    edges = strata(schedule, times, len(times) - 2 if how.terms is None else how.terms)
    return _Measuring(denoiser, how, times, edges)


def _measured(
    measuring: _Measuring,
    pixels: Tensor,
    numbers: list[int],
    condition: Condition,
    device: torch.device,
    tell: Callable[[float], None],
) -> Values:
    """The values of one batch, a row a picture, and of the strata one row for all."""
    denoiser, how, cost = measuring.denoiser, measuring.how, measuring.cost
    rows: Values = {}
    spent, whole = 0, sum(cost.values())
    for method in how.methods:

        def on_share(share: float, before: int = spent, of: int = cost[method]) -> None:
            tell((before + share * of) / whole)

        noise = SampleNoise(how.seed, numbers)
        if method == "bound":
            terms = bound_bits(
                denoiser,
                denoiser.process,
                pixels,
                condition,
                measuring.times,
                len(measuring.edges) - 1,
                variances=[_VARIANCES[name] for name in measuring.variances],
                noise=noise,
                device=device,
                on_share=on_share,
            )
            rows["parts"] = torch.stack([terms[..., 0], terms[..., 1:-1].sum(2), terms[..., -1]], 2)
            rows["strata"] = terms[..., 1:-1].sum(0, keepdim=True)
        else:
            rows["ode"], rows["evaluations"] = ode_bits(
                denoiser,
                denoiser.process,
                pixels,
                condition,
                tolerance=how.tolerance,
                noise=noise,
                device=device,
                on_share=on_share,
            )
        spent += cost[method]
    return rows


def _summary(measuring: _Measuring, rows: Values, asked: int) -> Likelihood:
    count = len(next(rows[name] for name in ("parts", "ode") if name in rows))
    ode = Flow(mean_of(rows["ode"]), float(rows["evaluations"].double().mean())) if "ode" in rows else None
    return Likelihood(count, asked, _bound(measuring, rows) if "parts" in rows else None, ode)


def _bound(measuring: _Measuring, rows: Values) -> Bound:
    parts, names = rows["parts"], measuring.variances  # parts: (pictures, variances, 3)
    means = [mean_of(parts[:, number].sum(1)) for number in range(len(names))]
    best = min(range(len(names)), key=lambda number: means[number].bits)
    others = [mean for number, mean in enumerate(means) if number != best]
    prior, steps, reconstruction = (mean_of(parts[:, best, part]) for part in range(3))
    edges, times = measuring.edges.tolist(), measuring.times.tolist()
    spent = (rows["strata"].sum(0)[best] / len(parts)).tolist()
    strata_ = tuple(
        Stratum(times[start], times[end], end - start, bits)
        for start, end, bits in zip(edges[:-1], edges[1:], spent, strict=True)
    )
    return Bound(
        total=means[best],
        prior=prior,
        steps=steps,
        reconstruction=reconstruction,
        variance=names[best],
        other=others[0] if others else None,
        evaluated=len(strata_),
        of=edges[-1],
        strata=strata_,
    )
