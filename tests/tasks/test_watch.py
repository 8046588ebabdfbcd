"""The page of a run shows what the run's files say, and needs nothing but itself."""

import json
import threading
import urllib.error
import urllib.request
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

from neblina.core.errors import DataError, SettingError
from neblina.data.sheets import save_sheet
from neblina.tasks.watch import page, server, write_page


class Seen(HTMLParser):
    """What a reader gets to see of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, tag: str) -> list[dict[str, Any]]:
        return [given for name, given in self.tags if name == tag]


def run_of(folder: Path, steps: int = 60) -> Path:
    """A run half way."""
    (folder / "samples").mkdir(parents=True)
    (folder / "recipe.yaml").write_text("name: <cats> & dogs\ntraining:\n  images: 800\n  batch: 8\n")
    for step in range(20, steps + 1, 20):
        record = {"step": step, "images": 8 * step, "loss": 1 / step, "loss_by_level": [0.1, None, 0.3, 0.4, 0.5]}
        append(folder / "log.jsonl", {**record, "gradient_norm": 2.0, "lr": 1e-3})
        append(
            folder / "timing.jsonl",
            {"step": step, "seconds": 1.0, "images_per_second": 9.5, "seconds_left": 7260.0, "memory_mb": 2048.0},
        )
        save_sheet(torch.zeros(4, 3, 4, 4, dtype=torch.uint8), folder / "samples" / f"step-{step:08d}.png", columns=2)
    return folder


def append(place: Path, record: dict[str, Any]) -> None:
    with place.open("a") as stream:
        stream.write(json.dumps(record) + "\n")


def test_it_shows_how_far_the_run_is_what_it_makes_and_how_long_it_takes(tmp_path: Path) -> None:
    seen = Seen(page(run_of(tmp_path / "run")))
    for words in ("step 60 of 100", "480 images", "9.5 images/s", "2.0 GB", "still 2 h 1 min", "after step 60"):
        assert words in seen.words
    assert len(seen.all("img")) == 3 + 1  # the sheets and the curves


def test_the_curves_are_those_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, list[Any]] = {}

    def keep(figure: Figure, *given: Any, **settings: Any) -> None:
        for axes in figure.axes:
            drawn[axes.get_title()] = [line.get_xydata().tolist() for line in axes.lines]

    monkeypatch.setattr(Figure, "savefig", keep)
    page(run_of(tmp_path / "run"))
    assert drawn["loss"] == [[[160, 1 / 20], [320, 1 / 40], [480, 1 / 60]]]
    assert drawn["learning rate"] == [[[160, 1e-3], [320, 1e-3], [480, 1e-3]]]
    assert drawn["images a second"] == [[[20, 9.5], [40, 9.5], [60, 9.5]]]
    assert len(drawn["gradient norm"]) == 1
    levels = drawn["loss by level of noise"]
    assert [line[0][1] for line in levels] == pytest.approx([0.1, float("nan"), 0.3, 0.4, 0.5], nan_ok=True)


def test_it_needs_nothing_but_itself_and_says_what_was_written(tmp_path: Path) -> None:
    text = page(run_of(tmp_path / "run"))
    seen = Seen(text)
    assert "http://" not in text
    assert "https://" not in text
    assert all(one["src"].startswith("data:image/png;base64,") for one in seen.all("img"))
    assert not seen.all("script")
    assert not seen.all("link")
    assert "name: <cats> & dogs" in seen.words
    assert "<cats>" not in text


def test_it_asks_for_itself_again_until_the_run_is_over(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    assert [one["content"] for one in Seen(page(run)).all("meta") if one.get("http-equiv") == "refresh"] == ["10"]
    (run / "model").mkdir()
    seen = Seen(page(run))
    assert not [one for one in seen.all("meta") if "http-equiv" in one]
    assert "finished" in seen.words


def test_a_run_of_two_stages_has_a_section_for_each(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    run_of(run / "codec", steps=20)
    assert len(Seen(page(run)).all("section")) == 2


def test_a_run_that_has_just_begun_and_a_line_that_is_half_written_are_shown(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text("name: new\n")
    assert "begun" in Seen(page(run)).words
    whole = run_of(tmp_path / "other")
    with (whole / "log.jsonl").open("a") as stream:
        stream.write('{"step": 80, "imag')
    assert "step 60 of 100" in Seen(page(whole)).words


def test_it_is_served_anew_at_every_request(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", steps=40)
    with server(run, host="127.0.0.1", port=0) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{serving.server_address[1]}/"
        assert "step 40" in urllib.request.urlopen(place).read().decode()
        append(run / "log.jsonl", {"step": 80, "images": 640, "loss": 0.01})
        assert "step 80" in urllib.request.urlopen(place).read().decode()
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(place + "log.jsonl")
        with pytest.raises(SettingError, match="cannot be listened on"):
            server(run, host="127.0.0.1", port=serving.server_address[1])
        serving.shutdown()


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not a run's folder: it holds no recipe\.yaml"):
        page(tmp_path)


def test_the_page_is_a_file_for_whoever_has_no_browser(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    write_page(run, tmp_path / "new" / "page.html")
    assert (tmp_path / "new" / "page.html").read_text() == page(run)
