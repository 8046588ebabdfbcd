"""Tables, a curve and a sheet of what placement.py measured."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from neblina.core.atomic import write_file

BLUE, ORANGE, GREEN, GREY = "#2a6f97", "#d97706", "#15803d", "#777777"
SERIES = (("composed", "black", BLUE), ("composed", "random", ORANGE), ("going back", "black", GREEN))
CELL, ZOOM = 112, 2  # of the sheet
_LEFT_OUT = ("0.1", "0.3", "0.4")  # shares that the sheet does not show


def report(done: dict[str, Any], pictures: Path, folder: Path) -> None:
    """Print the tables; draw composition-curve.png and composition-sheet.png."""
    rows, alone, back, reader = done["rows"], done["alone"], done["alone, going back"], done["reader"]
    real = rows.get("real", {})
    print(
        f"{done['settings']}; the reader reads {reader['digits']:.1%} of test digits at these sizes and "
        f"{reader['rubbish']:.1%} of rubbish; real digits under shuffled labels are right in "
        f"{done['shuffled']['right']:.1%}. The model alone, one digit a canvas: {alone['right']:.1%} right, Fréchet "
        f"{alone['frechet']:.2f} (real {alone['frechet_real']:.2f}); going back, {back['right']:.1%} of "
        f"{back['elements']}.\n"
    )
    print("| way | right class, right box | IoU | leakage | neglected | Fréchet | over that of real | s a picture |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, row in rows.items():
        low, high = interval(row["right"], row["elements"])
        print(
            f"| {name} | {row['right']:.1%} ({100 * low:.0f} … {100 * high:.0f}) | {row['iou']:.2f} | "
            f"{row['leakage']:.1%} | {row['neglected']:.1%} | {row['frechet']:.2f} | "
            f"{row['frechet'] / row['frechet_real']:.2f} | {row['seconds']:.2f} |"
        )
    sizes = list(next(iter(rows.values()))["sizes"])
    print(f"\n| right / neglected, by longer side of the box | {' | '.join(sizes)} |")
    print(f"| --- |{' ---: |' * len(sizes)}")
    for name, row in rows.items():
        cells = (row["sizes"].get(size) for size in sizes)
        shown = (f"{one['right']:.0%} / {one['neglected']:.0%}" if one else "" for one in cells)
        print(f"| {name} | {' | '.join(shown)} |")
    curve(rows, real, folder / "composition-curve.png")
    sheet(done["sheet"], dict(np.load(pictures)), list(rows), folder / "composition-sheet.png")


def interval(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a share of `count`, at 95 %."""
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def curve(rows: dict[str, Any], real: dict[str, Any], place: Path) -> None:
    """Placement and quality over the share of the steps that are bootstrapped."""
    from matplotlib.figure import Figure  # takes a while

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    panels = figure.subplots(1, 3)
    said = (
        ("right", "right class in the right box (%)", 100),
        ("leakage", "ink outside all boxes (%)", 100),
        ("frechet", "Fréchet distance of the boxes, over that of real", 1),
    )
    for axis, (key, title, unit) in zip(panels, said, strict=True):
        for series, colours, hue in SERIES:
            found = {}
            for name, row in rows.items():
                kind, *parts = name.split(", ")
                if kind == series and (parts[0] == colours or float(parts[1]) == 0):
                    value = row[key] / row["frechet_real"] if key == "frechet" else row[key]
                    found[100 * float(parts[1])] = (value, row["elements"])
            if not found:
                continue
            shares = sorted(found)
            values = [unit * found[share][0] for share in shares]
            axis.plot(shares, values, "o-", color=hue, ms=4, label=f"{series}, {colours}")
            if key == "right":
                bounds = [interval(found[share][0], found[share][1]) for share in shares]
                axis.fill_between(
                    shares, *zip(*((100 * a, 100 * b) for a, b in bounds), strict=True), color=hue, alpha=0.15, lw=0
                )
        for name, style in (("one prompt", ":"), ("region by region", "--"), ("region by region, scaled", "-.")):
            if name in rows:
                value = rows[name][key] / rows[name]["frechet_real"] if key == "frechet" else rows[name][key]
                axis.axhline(unit * value, color=GREY, ls=style, lw=1, label=name)
        if key == "right":
            axis.axhline(95, color="#b91c1c", lw=0.8, label="95 %")
            axis.set_ylim(0, 101)
        else:
            axis.set_ylim(bottom=0)
        axis.set_xlabel("steps that are bootstrapped (%)")
        axis.set_title(title, fontsize=9)
        axis.grid(alpha=0.3)
    panels[0].legend(fontsize=7)
    write_file(place, lambda aside: figure.savefig(aside, dpi=110))


def sheet(scenes: list[dict[str, Any]], pictures: dict[str, Any], names: list[str], place: Path) -> None:
    """A scene a column, a way a row; boxes with the classes asked for."""
    rows = [name for name in names if f"{name}/0" in pictures and name.split(", ")[-1] not in _LEFT_OUT]
    left, high = 150, CELL * ZOOM + 6
    whole = Image.new("RGB", (left + high * len(scenes), high * len(rows)), "white")
    draw = ImageDraw.Draw(whole)
    for line, name in enumerate(rows):
        for word, part in enumerate(name.split(", ")):
            draw.text((4, line * high + 12 + 14 * word), part, fill="black")
        for column, scene in enumerate(scenes):
            height, width = scene["size"]
            made = Image.fromarray(pictures[f"{name}/{column}"]).resize(
                (width * ZOOM, height * ZOOM), Image.Resampling.NEAREST
            )
            x, y = left + column * high, line * high
            whole.paste(made, (x, y))
            for label, *box in scene["elements"]:
                x0, y0, x1, y1 = (ZOOM * value for value in box)
                draw.rectangle((x + x0, y + y0, x + x1 - 1, y + y1 - 1), outline="#d97706")
                draw.text((x + x0 + 2, y + y0), str(label), fill="#60a5fa")
    whole = whole.quantize(16)
    write_file(place, lambda aside: whole.save(aside, optimize=True))
