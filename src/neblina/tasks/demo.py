"""The first thing to see: train on handwritten digits, draw what happens, measure what came out."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from neblina.bundle.folder import save_bundle
from neblina.core.atomic import write_file
from neblina.core.errors import Interrupted
from neblina.core.noise import normal
from neblina.data.order import batch_numbers
from neblina.data.pictures import Pictures, to_float, to_uint8
from neblina.data.sheets import save_sheet
from neblina.processes.gaussian import GaussianProcess
from neblina.processes.schedules import make_schedule
from neblina.samplers.drive import Step
from neblina.tasks.loading import load
from neblina.tasks.measure import Measured, measure
from neblina.tasks.model import Model
from neblina.tasks.plots import Row, plot_rows
from neblina.tasks.train import open_recipe_pictures, train_recipe
from neblina.training.examples import divided, draw_examples, read_batch
from neblina.training.recipe import Recipe
from neblina.training.run import OnReport

OnStage = Callable[[str], None]
WORDS = (  # what the model of this package draws first
    "grinning face",
    "woman astronaut: dark skin tone",
    "flag: Japan",
    "pizza",
    "red heart",
    "man: light skin tone",
    "red apple, pencil sketch",
    "flag: France, mosaic",
)
SCENE = "snacks"
SEED = 0


@dataclass(frozen=True)
class Shown:
    """What the demo made.

    Attributes:
        model: the model's folder.
        pictures: what each picture shows, and where it is.
        metrics: where the numbers are.
        measured: the numbers.
    """

    model: Path
    pictures: dict[str, Path]
    metrics: Path
    measured: Measured


def first_pictures(out: Path, *, device: str | None = None) -> dict[str, Path]:
    """Pictures of words and of a scene by the model of this package, before anything is trained: what each shows, and
    where it is."""
    model = load(device=device)
    words, scene = out / "words.png", out / "scene.png"
    save_sheet(to_uint8(model.generate(list(WORDS), seed=SEED)), words, columns=4, scale=2)
    save_sheet(model.compose(SCENE, seed=SEED), scene, columns=1, scale=2)
    return {"of words, by the model of this package": words, "a scene, each in its place and style": scene}


def run_demo(
    recipe: Recipe,
    out: Path,
    *,
    device: str | None = None,
    on_report: OnReport | None = None,
    on_stage: OnStage | None = None,
) -> Shown:
    """Train (or go on with training), draw and measure into `out`.

    Args:
        recipe: class-conditional, with some pictures held out.
        out: where the pictures, `metrics.json`, `model/` and the run go.
        device: "cpu", "cuda", …; None for the best there is.
        on_report: told after every training step.
        on_stage: told what is being done now.
    """
    stage = on_stage or (lambda words: None)
    stage("training")
    try:
        trained = train_recipe(recipe, out / "run", resume=True, device=device, on_report=on_report)
    except Interrupted as stop:
        raise Interrupted(f"{stop.done}. Run the demo again to go on") from stop
    model = load(trained, device=device)
    pictures, _ = open_recipe_pictures(recipe)
    training, held = divided(recipe, pictures)

    stage("drawing")
    made = {
        "one column a digit": _digits(model, out / "digits.png"),
        "from data to noise, linear and cosine": _forward(training, out / "forward.png"),
        "from noise to data, as a film strip": _reverse(model, out / "reverse.png"),
        "one batch as training sees it": _epochs(recipe, training, out / "epochs.png"),
        "one shot against many steps": _one_shot(model, out / "one_shot.png"),
        "the loss": out / "loss.png",
    }
    loss = (out / "run" / "loss.png").read_bytes()
    write_file(out / "loss.png", lambda aside: aside.write_bytes(loss))

    stage("measuring")
    measured = measure(model, training, held, data_name=recipe.name)
    text = json.dumps(measured.to_dict(), indent=2) + "\n"
    write_file(out / "metrics.json", lambda aside: aside.write_text(text))
    final = out / "model"
    save_bundle(replace(model.bundle, card={**model.bundle.card, "metrics": measured.to_dict()}), final)
    return Shown(final, made, out / "metrics.json", measured)


def _digits(model: Model, place: Path) -> Path:
    pictures = model.generate(labels=list(range(10)), n=100, seed=0, batch=100)
    save_sheet(to_uint8(pictures), place, columns=10)
    return place


def _forward(pictures: Pictures, place: Path) -> Path:
    """One digit at eleven times under two schedules, with the same noise."""
    x0 = to_float(pictures.read([0])).expand(11, -1, -1, -1)
    noise = normal(0, 0, 0, x0.shape[1:]).expand_as(x0)
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    rows = [
        Row(
            name,
            to_uint8(GaussianProcess(make_schedule(name)).diffuse(x0, noise, t)),
            [f"t = {float(one):.1f}" for one in t],
        )
        for name in ("linear", "cosine")
    ]
    plot_rows(
        rows,
        place,
        title="The forward process: the linear schedule drowns the digit earlier than the cosine one",
    )
    return place


def _reverse(model: Model, place: Path) -> Path:
    """x_t on the way from noise to data, one row a digit."""
    labels, shown = [0, 3, 5, 8], 11
    frames: list[tuple[float, Tensor]] = []

    def keep(step: Step) -> None:
        frames.append((float(step.query.t[0]), step.query.x.cpu()))

    last = model.generate(labels=labels, seed=0, on_step=keep)
    frames.append((0.0, last))
    chosen = [frames[round(number * (len(frames) - 1) / (shown - 1))] for number in range(shown)]
    rows = [
        Row(
            f"“{label}”",
            to_uint8(torch.stack([x[number] for _, x in chosen])),
            [f"t = {t:.3f}" for t, _ in chosen],
        )
        for number, label in enumerate(labels)
    ]
    plot_rows(rows, place, title="The reverse process: from noise to a digit, with the default sampler and grid")
    return place


def _epochs(recipe: Recipe, pictures: Pictures, place: Path) -> Path:
    """The same pictures in different epochs, exactly as the training run met them."""
    shown = list(range(8))
    last = recipe.steps * recipe.training.batch // len(pictures) - 1
    rows = [Row("clean", pictures.read(shown), [""] * len(shown))]
    for epoch in sorted({0, 1, 2, last}):
        met = [_met(recipe, pictures, epoch, number) for number in shown]
        rows.append(
            Row(
                f"epoch {epoch + 1}",
                to_uint8(torch.stack([x for x, _ in met])),
                [f"t = {t:.2f}" for _, t in met],
            )
        )
    plot_rows(rows, place, title="One batch as training sees it: a new time and new noise in every epoch")
    return place


def _met(recipe: Recipe, pictures: Pictures, epoch: int, number: int) -> tuple[Tensor, float]:
    """The noisy picture and the time at which training met picture `number` in an epoch."""
    training, size = recipe.training, len(pictures)
    place = batch_numbers(training.seed, size, epoch * size, size).index(number)
    step, row = divmod(epoch * size + place, training.batch)
    schedule = make_schedule(recipe.process.schedule, **recipe.process.settings)
    seen = draw_examples(recipe, schedule, step, read_batch(recipe, pictures, step))
    return GaussianProcess(schedule).diffuse(seen.x0, seen.noise, seen.t)[row], float(seen.t[row])


def _one_shot(model: Model, place: Path) -> Path:
    """The belief x̂_0 asked once at t = 1, ½ and ¼, beside the digit that sampling in steps arrives at."""
    labels = list(range(10))
    seen: list[Step] = []
    final = model.generate(labels=labels, seed=0, sampler="ddpm", grid="uniform", steps=100, on_step=seen.append)
    beliefs = {round(float(step.query.t[0]), 3): step.posterior.guess.cpu() for step in seen}
    rows = [
        Row(f"x̂₀ from {words}", to_uint8(beliefs[t])) for t, words in ((1.0, "t = 1"), (0.5, "t = ½"), (0.25, "t = ¼"))
    ]
    rows.append(Row(f"{len(seen)} steps", to_uint8(final), [str(label) for label in labels]))
    plot_rows(rows, place, title="One shot against many steps: a single guess is a mean over digits, steps decide")
    return place


def try_next(shown: Shown) -> Sequence[str]:
    """Three commands that go on from here, less the name of the program."""
    return (
        f"generate {shown.model} --label 7 -n 16",
        f"generate {shown.model} --label 3 -n 8 --sampler ddpm --steps 100",
        "train digits --process.schedule linear --out runs/linear",
    )
