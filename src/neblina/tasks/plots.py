"""Plots: a loss curve, and rows of pictures with words."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from neblina.core.atomic import write_file


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
