"""The samplers' correctness card as a page: a table and a plot of error against evaluations."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neblina.core.atomic import write_file
from neblina.evaluation.card import EVALUATIONS, PROBLEMS, Row

PEERS = "samplers-diffusers.json"


def write_card(folder: Path, rows: Sequence[Row]) -> Path:
    """Write `samplers.json`, `samplers.md` and `images/samplers.png` of all samplers into a folder.

    If the folder holds `samplers-diffusers.json` (benchmarks/diffusers_card.py), its numbers stand beside ours.

    Returns:
        The page.
    Raises:
        StorageError: the disk is full or refuses.
    """
    measured = [row.to_dict() for row in rows]
    peers: list[dict[str, Any]] = []
    if (folder / PEERS).exists():
        peers = json.loads((folder / PEERS).read_text())
    (folder / "images").mkdir(parents=True, exist_ok=True)
    text = json.dumps(measured, indent=1, ensure_ascii=False) + "\n"
    write_file(folder / "samplers.json", lambda aside: aside.write_text(text))
    _plot(measured, peers, folder / "images" / "samplers.png")
    page = card_page(measured, peers)
    write_file(folder / "samplers.md", lambda aside: aside.write_text(page))
    return folder / "samplers.md"


def card_page(rows: Sequence[dict[str, Any]], peers: Sequence[dict[str, Any]]) -> str:
    """The page in Markdown, from the rows as JSON has them."""
    lines = [_HEAD, *_table(rows, claims=True)]
    if biased := [row for row in rows if row["bias"]]:
        lines += ["", "Biased, however many steps:", ""]
        lines += [f"- `{row['name']}`: {row['bias']}." for row in biased]
    if needy := [row for row in rows if row["requires"]]:
        lines += ["", "Requires:", ""]
        lines += [f"- `{row['name']}`: {row['requires']}." for row in needy]
    lines += ["", "Sources:", ""]
    lines += [f"- `{row['name']}`{_also(row)}: {row['source']}." for row in rows]
    if peers:
        lines += [_PEERS, *_table(peers, claims=False)]
    return "\n".join([*lines, _TAIL])


def _also(row: dict[str, Any]) -> str:
    return f" (also {', '.join(row['also'])})" if row["also"] else ""


def _table(rows: Sequence[dict[str, Any]], *, claims: bool) -> list[str]:
    head = ["sampler"]
    if claims:
        head += ["order claimed", "measured", "calls a step", "noise", "grid"]
    head += [f"{problem}, %" for problem in PROBLEMS]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for row in rows:
        cells = [f"`{row['name']}`"]
        if claims:
            measured, calls = row["order_measured"], row["evaluations_per_step"]
            cells += [
                str(row["order_claimed"]) if row["order_claimed"] else "–",
                "–" if measured is None else f"{measured:.2f}",
                "own" if calls is None else f"{calls:g}",
                "yes" if row["stochastic"] else "",
                row["grid"],
            ]
        for problem in PROBLEMS:
            errors = [row["std_error"][problem][str(most)] for most in EVALUATIONS]
            cells.append(" · ".join(shown(error).removesuffix(" %") for error in errors))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def shown(error: float | None) -> str:
    """An error in per cent, as a person reads it."""
    if error is None:
        return "–"
    if error >= 10:
        return "> 1000 %"
    return f"{100 * error:.0f} %" if error >= 0.1 else f"{100 * error:.2g} %"


_HEAD = """# Samplers

Every registered sampler, against problems with an exact answer: `N(0, s²)` under DDPM's linear schedule (1000 steps),
with the exact denoiser. The numbers are the relative error of the sampled standard deviation in per cent, after
**5 · 10 · 20 · 50 network evaluations** on the sampler's one default grid; those of linear samplers are exact laws,
without any sampling. The order is measured between two noise levels (σ/α from 3 to 0.1) on steps that halve. Samplers
that choose their own steps follow a tolerance: here the smallest that stays within the evaluations. Made by

    neblina samplers --card --out docs

and checked in the tests (`tests/tasks/test_card.py`).

![error against evaluations](images/samplers.png)
"""

_PEERS = """
## diffusers' schedulers at their defaults

The same problems and the same exact denoiser (as eps), `SomeScheduler(beta_schedule="linear")` with nothing else said,
`set_timesteps` with as many steps as stay within the evaluations. Deterministic ones exactly, stochastic ones by 2^17
samples. Made by

    python benchmarks/diffusers_card.py --out docs/samplers-diffusers.json
"""

_TAIL = """
## A loop that is not a sampler

Articles teach "add noise, predict, remove the noise, add a little less noise again". The mean of the belief is
narrower than the data, and fresh noise does not give the difference back: `renoise` keeps losing about 30 % of the
spread however many steps it takes. The correct loop keeps the direction of the noise that is there, and is as short:

```python
for t, s in pairwise(times):
    belief = denoise(x, t)
    x = alpha(s) * belief + sigma(s) * (x - alpha(t) * belief) / sigma(t)
```
"""


def _plot(rows: Sequence[dict[str, Any]], peers: Sequence[dict[str, Any]], place: Path) -> None:
    """Error on the middle problem against evaluations, like samplers together; diffusers' last, if there are any."""
    from matplotlib.figure import Figure  # takes a while

    panels: dict[str, list[dict[str, Any]]] = {
        "one call a step": [row for row in rows if row["evaluations_per_step"] == 1 and not row["stochastic"]],
        "more calls a step, or steps of their own": [
            row for row in rows if row["evaluations_per_step"] != 1 and not row["stochastic"]
        ],
        "noise on the way": [row for row in rows if row["stochastic"]],
    }
    if peers:
        panels["diffusers at its defaults"] = list(peers)
    columns = 2
    figure = Figure(figsize=(13, 4.6 * -(-len(panels) // columns)), layout="constrained")
    problem = list(PROBLEMS)[1]
    axes = figure.subplots(-(-len(panels) // columns), columns, squeeze=False, sharex=True, sharey=True).flatten()
    for axis, (title, shown_rows) in zip(axes, panels.items(), strict=False):
        errors = {row["name"]: row["std_error"][problem] for row in shown_rows}
        last = str(EVALUATIONS[-1])
        for number, name in enumerate(sorted(errors, key=lambda name: errors[name][last] or 1e9)):
            points = [(most, errors[name][str(most)]) for most in EVALUATIONS]
            known = [(most, max(error, 1e-5)) for most, error in points if error is not None]
            axis.plot(
                [most for most, _ in known],
                [error for _, error in known],
                marker="o",
                ms=3.5,
                lw=1.6,
                ls=("-", "--", ":")[number // 10],
                color=f"C{number % 10}",
                label=name.removesuffix("Scheduler").removesuffix("Discrete"),
            )
        axis.axhline(0.02, color="0.4", lw=0.8, zorder=0)
        axis.set(xscale="log", yscale="log", ylim=(1e-4, 12), xlim=(4.6, 54))
        axis.set_title(title, fontsize=11, loc="left")
        axis.set_xticks(EVALUATIONS, [str(most) for most in EVALUATIONS])
        axis.minorticks_off()
        axis.grid(alpha=0.25)
        axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.supxlabel("network evaluations", fontsize=10)
    figure.supylabel(f"relative error of the standard deviation, {problem}; the line is 2 %", fontsize=10)
    write_file(place, lambda aside: figure.savefig(aside, dpi=100))
