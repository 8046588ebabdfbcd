"""The demo from end to end, small: every picture, the numbers, and going on after Ctrl-C."""

import json
from pathlib import Path

import pytest
from PIL import Image

from neblina.core.errors import Interrupted
from neblina.tasks.demo import run_demo, try_next
from neblina.training.recipe import load_recipe
from neblina.training.run import Report


@pytest.mark.slow
@pytest.mark.training
def test_the_demo_draws_measures_and_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    recipe = load_recipe("digits", {"training": {"images": 128 * 40, "checkpoint_every": 10}})
    steps: list[int] = []

    def stop(report: Report) -> None:
        steps.append(report.step)
        if report.step == 12:
            import signal

            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match=r"stopped after step 13 of 40; everything is saved\. Run the demo again"):
        run_demo(recipe, tmp_path, device="cpu", on_report=stop)
    shown = run_demo(recipe, tmp_path, device="cpu", on_report=stop)
    assert steps == list(range(1, 41))
    for place in shown.pictures.values():
        with Image.open(place) as picture:
            assert min(picture.size) > 200
    metrics = json.loads(shown.metrics.read_text())
    assert 0 < metrics["agreement"] <= 1
    assert metrics["agreement_real"] > 0.97
    assert metrics["frechet_ratio"] > 1
    assert json.loads((shown.model / "neblina.json").read_text())["metrics"] == metrics
    assert len(try_next(shown)) == 3
