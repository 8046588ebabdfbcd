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
from neblina.tasks.making import Order, make, open_model

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
    spoken = [str(one.message) for one in said if issubclass(one.category, UserWarning)]
    return Outcome(SAID, spoken[0]) if spoken else Outcome("slipped")


def _reached(module: torch.nn.Module, given: Any) -> None:
    raise Reached


def share(found: Mapping[str, Outcome]) -> float:
    """Of the sabotages, how many were caught before sampling."""
    return sum(one.how in CAUGHT for one in found.values()) / len(found)
