"""Every sabotage carried out, up to the first question to the network, and what was said of it."""

import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sabotages import SABOTAGES, Sabotage, build

from neblina.core.errors import NeblinaError
from neblina.tasks.checks.check import check
from neblina.tasks.checks.findings import NOTE, Report
from neblina.tasks.making import make, open_model
from neblina.tasks.order import Order

SAID = "said"  # a note: not counted as caught
CAUGHT = ("found", "refused")


class Reached(Exception):
    """The network was asked: nothing was caught before sampling."""


@dataclass(frozen=True)
class Outcome:
    """How a sabotage ended.

    Attributes:
        how: "found" by check, "refused" by the request, "said" as a note or a warning, or "slipped".
        sentence: what was said.
    """

    how: str
    sentence: str = ""


def outcomes(place: Path) -> dict[str, Outcome]:
    """What became of every sabotage, by its name."""
    healthy = {base: build(base, place) for base in dict.fromkeys(each.base for each in SABOTAGES)}
    reports = {base: check(folder, device="cpu") for base, folder in healthy.items()}
    for base, report in reports.items():
        assert not report.problems, (base, report.problems)
    return {each.name: _carried_out(each, healthy[each.base], reports[each.base], place / "copy") for each in SABOTAGES}


def _carried_out(sabotage: Sabotage, healthy: Path, report: Report, place: Path) -> Outcome:
    shutil.rmtree(place, ignore_errors=True)
    folder = shutil.copytree(healthy, place / "model")
    subject = sabotage.harm(folder) or folder
    options = {name: _made(value, folder) for name, value in sabotage.options.items()}
    if sabotage.verb is not None:
        arguments = {name: _made(value, folder) for name, value in sabotage.ask.items()}
        return _asked(Order(sabotage.verb, str(folder), {**arguments, **options}))
    if "loras" in options:
        options["loras"] = [(options["loras"], 1.0)]
    found = check(subject, device="cpu", **options)
    if found.problems:
        return Outcome("found", found.problems[0].says.replace(str(place), "…"))
    known = {finding.says for finding in report.findings}
    notes = [finding.says for finding in found.findings if finding.level == NOTE and finding.says not in known]
    return Outcome(SAID, notes[0]) if notes else Outcome("slipped")


def _made(value: Any, folder: Path) -> Any:
    return str(value(folder)) if callable(value) else value


def _asked(order: Order) -> Outcome:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            model = open_model(order, device="cpu")
            model.bundle.net.register_forward_pre_hook(_reached)
            make(order, model)
        except NeblinaError as error:
            return Outcome("refused", str(error).replace(str(Path(order.model).parent), "…"))
        except Reached:
            pass
    spoken = [
        str(one.message).replace(str(Path(order.model).parent), "…")
        for one in said
        if issubclass(one.category, UserWarning)
    ]
    return Outcome(SAID, spoken[0]) if spoken else Outcome("slipped")


def _reached(module: torch.nn.Module, given: Any) -> None:
    raise Reached


def share(found: Mapping[str, Outcome]) -> float:
    """Of the sabotages, how many were caught before sampling."""
    return sum(one.how in CAUGHT for one in found.values()) / len(found)


_HEAD = """# What is caught before the first step

`neblina check MODEL` opens a model, one part of it or a single file, and says what it is, what is missing and what
contradicts what; a request is refused before the network is asked for the first time. What that is worth was measured
with {count} sabotages: something wrong with a small healthy model of random weights (of weights that were trained for
seconds, where the check asks the network itself), or with what is asked of one. Each is carried out up to the network's
first answer.

{caught} of {count} ({share:.1%}) are caught: found by `check`, or refused by the request. {said} more {are} said in
a note or a warning, and the work goes on. {slipped} slip through.

The table is made by `python benchmarks/checks.py` and held to by `tests/checks/test_sabotage.py`.
"""
_LISTED = """
## What is not caught

- `attention_head_dim`: with another number of heads the same weights load and nothing in them says so. Of the widths
  that were published (texts 768, 1024, 1280 and 2048 wide) the number of heads is known and another one is found; of a
  model of any other width it is not.
- A square weight that was transposed has the shape that it should have. In a trained network it shows if it is large:
  the network then no longer answers noise as any kind should, which is said as a note.
- A mask thinner than a latent cell is said in a warning and works: what is made is cut to it.

What a network predicts is told from its answers, and only of one that was trained; of random weights it is said that it
cannot be told. A value that no published model has (an activation, an embedding's shift, a table of betas) is a problem
where the network does not answer as a trained one, and a note where it does: then it is a model of its maker's own.

## All of them

| what is wrong | of | ends | what is said |
| --- | --- | --- | --- |
"""


def page(found: Mapping[str, Outcome]) -> str:
    """The page in Markdown."""
    count = {how: sum(one.how == how for one in found.values()) for how in (*CAUGHT, SAID, "slipped")}
    bases = {each.name: each.base for each in SABOTAGES}
    head = _HEAD.format(
        count=len(found),
        caught=count["found"] + count["refused"],
        share=share(found),
        said=count[SAID],
        are="is" if count[SAID] == 1 else "are",
        slipped=count["slipped"],
    )
    rows = [f"| {name} | {bases[name]} | {one.how} | {_cell(one.sentence)} |" for name, one in found.items()]
    return head + _LISTED + "\n".join(rows) + "\n"


def _cell(sentence: str) -> str:
    """A sentence in a table, cut where it is long; measured numbers, which machines round differently, left out."""
    words = " ".join(sentence.split()).replace("|", "\\|")
    return words if len(words) <= 160 else words[:159].rsplit(" ", 1)[0] + " …"
