"""A training run as one page of HTML with everything in it: pictures, curves, figures, and how long it still takes.

The page is made anew from the run's files whenever it is asked for, so it can be watched while it trains, by as many as
like, and from a copy of the folder.
"""

import base64
import html
import io
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from PIL import Image

from neblina.core.atomic import write_file
from neblina.core.errors import DataError, SettingError, StorageError
from neblina.tasks.plots import plot_run
from neblina.training.journal import read_log

RECIPE = "recipe.yaml"
REFRESH = 10  # seconds after which the page asks for itself again
_STRIP, _THUMB = 8, 180  # earlier sheets that are shown, and how wide


@dataclass(frozen=True)
class Stage:
    """One training of a run, which may stand on another.

    Attributes:
        folder: where it lives.
        recipe: what it is done by, as it is written.
        log, timing: their records.
        sheets: its sample sheets, the oldest first.
        steps: of the whole training, None where nobody says.
        done: whether its model is there.
    """

    folder: Path
    recipe: str
    log: list[dict[str, Any]]
    timing: list[dict[str, Any]]
    sheets: list[Path]
    steps: int | None
    done: bool


def stages_of(run: Path) -> list[Stage]:
    """The trainings of a run's folder, the first one first.

    Raises:
        DataError: it is no run's folder.
    """
    folders = [place for place in (run / "codec", run) if (place / RECIPE).is_file()]
    if not folders:
        raise DataError(
            f"{run} is not a run's folder: it holds no {RECIPE}. A run lives where `neblina train` was told with "
            "--out, or in runs/NAME"
        )
    return [_stage(folder) for folder in folders]


def page(run: Path) -> str:
    """The page of a run.

    Raises:
        DataError: it is no run's folder.
    """
    stages = stages_of(run)
    running = not all(stage.done for stage in stages)
    refresh = f'<meta http-equiv="refresh" content="{REFRESH}">' if running else ""
    body = "\n".join(_section(stage) for stage in reversed(stages))
    title = html.escape(run.resolve().name)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{refresh}<title>{title}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n<h1>{title}</h1>\n{body}\n</body></html>\n"
    )


def server(run: Path, *, host: str, port: int) -> ThreadingHTTPServer:
    """A server of the run's page; `serve_forever` serves it.

    Args:
        port: 0 for any that is free.
    Raises:
        DataError: no run's folder.
        SettingError: a port that cannot be had.
    """
    stages_of(run)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.split("?")[0] != "/":
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            content = page(run).encode()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *words: Any) -> None:
            return

    try:
        return ThreadingHTTPServer((host, port), Handler)
    except (OSError, OverflowError) as error:
        raise SettingError(f"{host}:{port} cannot be listened on: {error}. Choose another --port, or 0") from error


def write_page(run: Path, place: Path) -> None:
    """The page as a file.

    Raises:
        DataError: no run's folder.
        StorageError: the disk is full or refuses.
    """
    text = page(run)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{place} could not be written: {error}") from error
    write_file(place, lambda aside: aside.write_text(text, "utf-8"))


def _stage(folder: Path) -> Stage:
    import yaml

    text = (folder / RECIPE).read_text("utf-8")
    training = (yaml.safe_load(text) or {}).get("training", {})
    images, batch = training.get("images"), training.get("batch")
    steps = -(-images // batch) if images and batch else None
    sheets = sorted((folder / "samples").glob("step-*.png"))
    log, timing = (read_log(folder / name) for name in ("log.jsonl", "timing.jsonl"))
    return Stage(folder, text, log, timing, sheets, steps, (folder / "model").is_dir())


def _section(stage: Stage) -> str:
    name = html.escape(stage.folder.resolve().name)
    parts = [f"<section><h2>{name}</h2>", _progress(stage)]
    if stage.sheets:
        newest = stage.sheets[-1]
        parts.append(f'<figure><img class="newest" src="{_inlined(newest)}" alt="samples">')
        parts.append(f"<figcaption>after step {_step(newest):,}</figcaption></figure>")
        earlier = stage.sheets[:-1][-_STRIP:]
        thumbs = (f'<img src="{_inlined(one, _THUMB)}" alt="" title="step {_step(one):,}">' for one in earlier)
        parts.append(f'<div class="strip">{"".join(thumbs)}</div>' if earlier else "")
    if stage.log:
        parts.append(_curves(stage))
    parts.append(f"<details><summary>recipe</summary><pre>{html.escape(stage.recipe)}</pre></details></section>")
    return "\n".join(parts)


def _progress(stage: Stage) -> str:
    step = int(stage.log[-1]["step"]) if stage.log else 0
    last = stage.timing[-1] if stage.timing else {}
    words = [f"step {step:,}" + (f" of {stage.steps:,}" if stage.steps else "")]
    if stage.log:
        words.append(f"{stage.log[-1]['images']:,} images")
        words.append(f"loss {stage.log[-1]['loss']:.4f}")
    if "images_per_second" in last:
        words.append(f"{last['images_per_second']:,.1f} images/s")
    if last.get("memory_mb"):
        words.append(f"{last['memory_mb'] / 1024:.1f} GB of memory at most")
    left = last.get("seconds_left")
    words.append("finished" if stage.done else "still " + _duration(left) if left is not None else "begun")
    share = min(1.0, step / stage.steps) if stage.steps else 0.0
    bar = f'<div class="bar"><div style="width:{100 * share:.1f}%"></div></div>'
    return f"<p>{' · '.join(html.escape(word) for word in words)}</p>{bar}"


def _curves(stage: Stage) -> str:
    """The plots of what the log says."""
    stream = io.BytesIO()
    plot_run(stage.log, stage.timing, stream)
    return f'<img class="curves" src="{_data(stream.getvalue())}" alt="curves">'


def _step(sheet: Path) -> int:
    return int(sheet.stem.removeprefix("step-"))


def _inlined(place: Path, width: int | None = None) -> str:
    """A picture as a data URI, narrower than it is where a width is given."""
    content = place.read_bytes()
    if width is not None:
        with Image.open(io.BytesIO(content)) as picture:
            small = picture.convert("RGB")
            small.thumbnail((width, width))
        stream = io.BytesIO()
        small.save(stream, "PNG")
        content = stream.getvalue()
    return _data(content)


def _data(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min" if minutes else "seconds"


_STYLE = """
body { font: 15px system-ui, sans-serif; margin: 2rem auto; max-width: 1100px; padding: 0 1rem; color: #222; }
h2 { margin: 2rem 0 0; } p { margin: .4rem 0; color: #555; }
.bar { background: #e6e6e6; height: 6px; border-radius: 3px; } .bar div { background: #2a6f97; height: 6px; }
figure { margin: 1rem 0; } .newest { max-width: 100%; min-width: 50%; image-rendering: pixelated; }
figcaption { color: #777; font-size: 13px; } .strip img { margin-right: 6px; }
.curves { max-width: 100%; margin: 1rem 0; } pre { background: #f6f6f6; padding: 1rem; overflow: auto; }
"""
