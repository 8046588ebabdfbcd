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


def test_the_stored_measurements_are_those_of_this_code() -> None:
    stored = {row["name"]: row for row in json.loads((DOCS / "samplers.json").read_text())}
    for row in measure_card():
        was = stored[row.name]
        for key in ("order_claimed", "evaluations_per_step", "stochastic", "requires", "grid", "source"):
            assert row.to_dict()[key] == was[key], (row.name, key)
        assert row.order_measured == pytest.approx(was["order_measured"], abs=0.02)
        for problem, errors in row.std_error.items():
            for most, error in errors.items():
                assert error == pytest.approx(was["std_error"][problem][most], rel=0.05, abs=2e-5), (row.name, problem)


def test_errors_are_shown_as_a_person_reads_them() -> None:
    assert [shown(error) for error in (None, 0.00512, 0.0213, 0.456, 27.0)] == [
        "–", "0.51 %", "2.1 %", "46 %", "> 1000 %",
    ]  # fmt: skip
