"""The samplers' card: the page in the documentation is what the code does today."""

import json
from pathlib import Path

import pytest

from neblina.evaluation.card import measure_card
from neblina.samplers import samplers
from neblina.tasks.card import PEERS, card_page, shown

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_the_one_of_the_stored_measurements() -> None:
    """Made by `neblina samplers --card --out docs`."""
    rows, peers = (json.loads((DOCS / name).read_text()) for name in ("samplers.json", PEERS))
    assert card_page(rows, peers) == (DOCS / "samplers.md").read_text()
    assert {row["name"] for row in rows} == {entry.name for _, entry in samplers.items()}


@pytest.mark.slow
def test_the_stored_measurements_are_those_of_this_code() -> None:
    stored = {row["name"]: row for row in json.loads((DOCS / "samplers.json").read_text())}
    for row in measure_card():
        was = stored[row.name]
        for key in ("order_claimed", "evaluations_per_step", "stochastic", "requires", "grid", "source"):
            assert row.to_dict()[key] == was[key], (row.name, key)
        assert close(row.order_measured, was["order_measured"], 0.02), row.name
        for problem, errors in row.std_error.items():
            for most, error in errors.items():
                assert close(error, was["std_error"][problem][most], 2e-5), (row.name, problem, most)


def close(one: float | None, other: float | None, absolute: float) -> bool:
    if one is None or other is None:
        return one is other
    return one == pytest.approx(other, rel=0.05, abs=absolute)


def test_errors_are_shown_as_a_person_reads_them() -> None:
    assert [shown(error) for error in (None, 0.00512, 0.0213, 0.456, 27.0)] == [
        "–", "0.51 %", "2.1 %", "46 %", "> 1000 %",
    ]  # fmt: skip
