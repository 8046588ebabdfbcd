"""Measure a model on pictures that it never saw: the numbers, a JSON file of them, and something to look at."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from neblina.core.atomic import write_file
from neblina.core.errors import SettingError
from neblina.core.launch import is_main_process, join_processes, world_size
from neblina.evaluation.likelihood import How
from neblina.evaluation.shares import OnProgress
from neblina.tasks.held import Held, open_held
from neblina.tasks.held_rows import HeldRows, open_held_rows
from neblina.tasks.loading import load
from neblina.tasks.metrics import Result, metrics, token_metrics
from neblina.tasks.model import Model
from neblina.tasks.token_making import asks_for_tokens
from neblina.tasks.token_model import TokenModel, load_tokens


@dataclass(frozen=True)
class Evaluated:
    """What was measured.

    Attributes:
        results: by metric.
        words: on which pictures.
        report: the JSON file.
        pictures: a picture of each metric's numbers.
        stopped: how far it came if it was stopped, None if it was not.
        left_out: a sentence for each bad file that was left out.
    """

    results: dict[str, Result]
    words: str
    report: Path
    pictures: dict[str, Path]
    stopped: str | None
    left_out: tuple[str, ...]


def evaluate(
    model: Model | TokenModel,
    names: Sequence[str],
    out: Path,
    *,
    data: str | None = None,
    count: int | None = None,
    how: How | None = None,
    skip_bad: bool = False,
    on_progress: OnProgress | None = None,
) -> Evaluated:
    """Measure a model by the metrics of these names, and write `metrics.json` and a picture a metric into `out`.

    Args:
        model: what to measure.
        names: of metrics.
        out: a folder.
        data: a source of pictures; None for those that the model's recipe held out of training.
        count: pictures at most, chosen at random; None for all.
        how: how to measure.
        skip_bad: leave bad files out instead of refusing the source.
        on_progress: told how many of this process's pictures a metric has done, and of how many.
    Raises:
        SettingError: an unknown metric, a setting out of range, or a model that cannot be measured so.
        DataError: pictures that are not there or do not fit the model.
        Interrupted: stopped before anything was measured.
    """
    how = how or How()
    if not names:
        raise SettingError(f"say what to measure: --metrics {' '.join(metrics)}")
    held: Held | HeldRows
    measured: dict[str, Callable[[], Result]]
    if isinstance(model, TokenModel):
        of_tokens = {name: token_metrics[name] for name in names}
        held = rows = open_held_rows(model, data, count, how.seed, skip_bad=skip_bad)
        measured = {name: partial(one, model, rows, how, on_progress) for name, one in of_tokens.items()}
    else:
        of_pictures = {name: metrics[name] for name in names}
        held = some = open_held(model, data, count, how.seed, skip_bad=skip_bad)
        measured = {name: partial(one, model, some, how, on_progress) for name, one in of_pictures.items()}
    results: dict[str, Result] = {}
    stopped = None
    for name, measure in measured.items():
        results[name] = measure()
        stopped = results[name].stopped
        if stopped is not None:
            break
    report, pictures = out / "metrics.json", {name: out / f"{name}.png" for name in results}
    if is_main_process():
        content = {"pictures": held.words, "seed": how.seed} | {name: one.to_dict() for name, one in results.items()}
        text = json.dumps(content, indent=2) + "\n"
        write_file(report, lambda aside: aside.write_text(text))
        for name, place in pictures.items():
            results[name].plot(place)
    return Evaluated(results, held.words, report, pictures, stopped, held.left_out)


def load_for_evaluation(folder: str | Path, device: str | None) -> Model | TokenModel:
    """Open a model where this process computes: under torchrun with GPUs, each on its own.

    Raises:
        CheckpointError, SettingError: as `neblina.load`.
    """
    if world_size() > 1 and device != "cpu":
        from accelerate import PartialState  # takes a while

        join_processes(cpu=False)
        device = str(PartialState().device)
    return load_tokens(folder, device=device) if asks_for_tokens(str(folder)) else load(folder, device=device)
