"""Plots: a loss curve, rows of pictures with words, and where the bits of a likelihood go."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from torch import Tensor

from neblina.core.atomic import write_file
from neblina.evaluation.likelihood import Likelihood, Stratum
from neblina.evaluation.tokens import TokenLikelihood


@dataclass(frozen=True)
class Row:
    """Pictures side by side.

    Attributes:
        title: what the row shows.
        pictures: uint8, shape (N, C, H, W).
        captions: under each picture, N of them, or none at all.
    """

    title: str
    pictures: Tensor
    captions: Sequence[str] = ()


def plot_rows(rows: Sequence[Row], place: Path, *, title: str) -> None:
    """Rows of pictures under one another, as one PNG."""
    from matplotlib.figure import Figure  # takes a while

    columns = max(len(row.pictures) for row in rows)
    figure = Figure(figsize=(0.95 * columns + 1.6, 1.15 * len(rows) + 0.5), layout="constrained")
    figure.suptitle(title, fontsize=10)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for row, axes in zip(rows, grid, strict=True):
        for number, axis in enumerate(axes):
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_frame_on(False)
            if number >= len(row.pictures):
                continue
            picture = row.pictures[number].permute(1, 2, 0).numpy()
            axis.imshow(picture if picture.shape[2] == 3 else picture[..., 0], cmap="gray", vmin=0, vmax=255)
            if row.captions:
                axis.set_xlabel(row.captions[number], fontsize=7, labelpad=2)
        axes[0].set_ylabel(row.title, fontsize=8, rotation=0, ha="right", va="center")
    write_file(place, lambda aside: figure.savefig(aside, dpi=110))


def plot_loss(records: Sequence[dict[str, Any]], place: Path) -> None:
    """Loss against training examples, from a run's log."""
    from matplotlib.figure import Figure  # takes a while

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(
        [record["images"] for record in records],
        [record["loss"] for record in records],
        lw=1.2,
        color="#2a6f97",
    )
    axes.set_xlabel("training examples")
    axes.set_ylabel("loss")
    axes.set_yscale("log")
    axes.grid(alpha=0.3, which="both")
    write_file(place, lambda aside: figure.savefig(aside, dpi=120))


def plot_run(log: Sequence[dict[str, Any]], timing: Sequence[dict[str, Any]], stream: IO[bytes]) -> None:
    """What the records of a run's log say over its training examples, a plot each, as a PNG."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure  # takes a while

    figure = Figure(figsize=(11, 5.5), layout="constrained")
    named = (("loss", "loss", "log"), ("gradient norm", "gradient_norm", "log"), ("learning rate", "lr", "linear"))
    for number, (title, name, scale) in enumerate(named, start=1):
        records = [record for record in log if name in record]
        axes = figure.add_subplot(2, 3, number, title=title, yscale=scale)
        axes.plot([record["images"] for record in records], [record[name] for record in records], lw=1.2)
    levels = [record for record in log if record.get("loss_by_level")]
    axes = figure.add_subplot(2, 3, 4, title="loss by level of noise", xlabel="training examples", yscale="log")
    count = len(levels[0]["loss_by_level"]) if levels else 0
    for level in range(count):
        axes.plot(
            [record["images"] for record in levels],
            [math.nan if (one := record["loss_by_level"][level]) is None else one for record in levels],
            lw=1.2,
            color=colormaps["viridis"](level / count),
            label=f"t {level / count:.1f} … {(level + 1) / count:.1f}",
        )
    if count:
        axes.legend(fontsize=7)
    axes = figure.add_subplot(2, 3, 5, title="images a second", xlabel="step")
    axes.plot([record["step"] for record in timing], [record["images_per_second"] for record in timing], lw=1.2)
    for axes in figure.axes:
        axes.grid(alpha=0.3)
    figure.savefig(stream, dpi=110, format="png")


def plot_likelihood(found: Likelihood, place: Path) -> None:
    """Where the bits go: both totals as bars, the bound's by its parts, and the bound's steps over time."""
    from matplotlib.figure import Figure  # takes a while

    bound, ode = found.bound, found.ode
    figure = Figure(figsize=(10 if bound else 4.5, 4), layout="constrained")
    figure.suptitle(f"Bits per dimension of {found.pictures:,} pictures", fontsize=11)
    bars, *over_time = figure.subplots(1, 2 if bound else 1, squeeze=False, width_ratios=[2, 3] if bound else None)[0]
    totals = {}
    if bound:
        totals["bound"] = bound.total
        bottom = 0.0
        parts = {"prior": bound.prior, "steps": bound.steps, "reconstruction": bound.reconstruction}
        for (words, mean), colour in zip(parts.items(), ("#7b2d26", "#f4a259", "#5b8e7d"), strict=True):
            bars.bar("bound", mean.bits, bottom=bottom, color=colour, label=f"{words} {mean.bits:.3f}")
            bottom += mean.bits
        bars.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.07), ncols=3, columnspacing=0.8)
        _draw_strata(over_time[0], bound.strata, "bits per dimension")
        over_time[0].set_xscale("log")
        over_time[0].set_title(f"the bound's {bound.of:,} steps, {bound.variance} variance", fontsize=9)
    if ode:
        totals["ODE"] = ode.total
        bars.bar("ODE", ode.total.bits, color="#2a6f97")
    for words, total in totals.items():
        bars.errorbar(words, total.bits, total.error or 0, color="black", capsize=5)
        shown = {"ha": "center", "va": "bottom", "xytext": (0, 6), "textcoords": "offset points"}
        bars.annotate(f"{total.bits:.3f}", (words, total.bits), **shown)
    bars.margins(y=0.15)
    bars.set_ylabel("bits per dimension")
    write_file(place, lambda aside: figure.savefig(aside, dpi=120))


def plot_token_likelihood(found: TokenLikelihood, unit: str, place: Path) -> None:
    """Where the bits go: the bound by its parts, and its steps over time."""
    from matplotlib.figure import Figure  # takes a while

    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(f"{unit} of {found.rows:,} rows of tokens: at most {found.total.bits:.3f}", fontsize=11)
    bars, over_time = figure.subplots(1, 2, width_ratios=[1, 4])
    bars.bar("bound", found.prior.bits, color="#7b2d26", label=f"prior {found.prior.bits:.3f}")
    bars.bar("bound", found.steps.bits, bottom=found.prior.bits, color="#f4a259", label=f"steps {found.steps.bits:.3f}")
    bars.errorbar("bound", found.total.bits, found.total.error or 0, color="black", capsize=5)
    bars.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.07))
    bars.margins(y=0.15)
    bars.set_ylabel(unit)
    _draw_strata(over_time, found.strata, unit)
    over_time.set_title(f"the bound's {found.of:,} steps", fontsize=9)
    write_file(place, lambda aside: figure.savefig(aside, dpi=120))


def _draw_strata(axes: Any, strata: Sequence[Stratum], unit: str) -> None:
    """What a step costs, over time."""
    each = [one.bits / one.steps for one in strata]
    axes.step([*(one.t for one in strata), strata[-1].s], [*each, each[-1]], where="post")
    axes.set_yscale("log")
    axes.set_xlabel("t (0 is data, 1 is noise)")
    axes.set_ylabel(f"{unit} a step")
    axes.grid(alpha=0.3, which="both")
