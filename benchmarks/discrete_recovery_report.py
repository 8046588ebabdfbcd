"""Tables, a curve and a sheet of what discrete_recovery.py measured."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from neblina.core.atomic import write_file

SHARES = (0.05, 0.1, 0.2, 0.4, 0.6)
FREE = {"top": slice(0, 3), "bottom": slice(4, 7)}  # rows of tokens
STYLES = {
    "corrupted": ("#777777", ":"),
    "mask-and-replace, as they are": ("#2a6f97", "-"),
    "mask-and-replace, doubt": ("#2a6f97", "--"),
    "absorbing, masked at random": ("#d97706", "-"),
    "autoregressive": ("#222222", "-"),
}
SHOWN_SHARES = (0.2, 0.4)
ZOOM, LEFT = 2, 210  # of the sheet


def report(rows: dict[str, Any], pictures: dict[str, Any], folder: Path) -> None:
    """Print the tables; draw discrete-recovery.png and discrete-recovery-sheet.png."""
    original = rows["original"]
    print(f"{original['pictures']} pictures, {original['read']:.1%} of which are read right through the codec\n")
    titles = {"tokens": "tokens that are right", "read": "read as its digit", "repaired": "wrong ones put right"}
    titles["left alone"] = "right ones left alone"
    for key, title in titles.items():
        print(f"| {title}, by r | " + " | ".join(f"{share:.0%}" for share in SHARES) + " |")
        print("| --- |" + " ---: |" * len(SHARES))
        for name in STYLES:
            cells = (rows.get(f"{name}, {share:g}", {}).get(key) for share in SHARES)
            print(f"| {name} | " + " | ".join("" if one is None else f"{one:.1%}" for one in cells) + " |")
        print()
    print("| free rows | by | free tokens as they were | read as its digit |")
    print("| --- | --- | ---: | ---: |")
    for name, row in rows.items():
        if " free, " in name:
            half, way = name.split(" free, ")
            print(f"| {half} | {way} | {row['tokens']:.1%} | {row['read']:.1%} |")
    curve(rows, folder / "discrete-recovery.png")
    sheet(pictures, folder / "discrete-recovery-sheet.png")


def curve(rows: dict[str, Any], place: Path) -> None:
    """Recovery over r."""
    from matplotlib.figure import Figure  # takes a while

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, (key, title) in zip(
        panels, (("tokens", "tokens that are right (%)"), ("read", "read as its digit (%)")), strict=True
    ):
        for name, (hue, style) in STYLES.items():
            there = [share for share in SHARES if f"{name}, {share:g}" in rows]
            values = [100 * rows[f"{name}, {share:g}"][key] for share in there]
            axes.plot([100 * share for share in there], values, "o", ls=style, color=hue, ms=3, label=name)
        axes.axhline(100 * rows["original"][key], color="#bbbbbb", lw=0.8)
        axes.set_xlabel("tokens that are replaced (%)")
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize=7)
    write_file(place, lambda aside: figure.savefig(aside, dpi=110, format="png"))


def sheet(pictures: dict[str, Any], place: Path) -> None:
    """A digit a column, a way a row."""
    lines = ["original", *(f"{name}, {share:g}" for share in SHOWN_SHARES for name in STYLES)]
    lines += [name for name in pictures if " free, " in name]
    lines = [name for name in lines if name in pictures]
    count, high, wide = pictures["original"].shape
    whole = Image.new("L", (LEFT + count * (ZOOM * wide + 2), len(lines) * (ZOOM * high + 2)), 255)
    draw = ImageDraw.Draw(whole)
    for line, name in enumerate(lines):
        y = line * (ZOOM * high + 2)
        draw.text((4, y + ZOOM * high // 2 - 6), name, fill=0)
        for column, made in enumerate(np.asarray(pictures[name])):
            cell = Image.fromarray(made).resize((ZOOM * wide, ZOOM * high), Image.Resampling.NEAREST)
            whole.paste(cell, (LEFT + column * (ZOOM * wide + 2), y))
    whole = whole.quantize(16)
    write_file(place, lambda aside: whole.save(aside, format="PNG", optimize=True))
