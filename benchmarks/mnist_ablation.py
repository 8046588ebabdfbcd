"""Equal-budget ablations on MNIST: schedules, labels, and how times are drawn; every one over several seeds.

    python benchmarks/mnist_ablation.py PATH_TO_MNIST --out ablation.json [--images 40000] [--seeds 3]
    python benchmarks/mnist_ablation.py --out ablation.json --report docs/images/ablation.png

The first trains, and stores each run in the JSON file as it ends; interrupted, it goes on where it was. The second
prints the tables and draws the plot. Equal budget is an equal number of training images, of one network, one batch size
and one learning rate. All configurations differ from the base (cosine schedule, v, labels with a tenth hidden, uniform
times) in one setting. All are sampled without a class, by the default sampler in 10 steps, from the averaged weights.

Quality is the Fréchet distance of generated to held-out pictures over that of real training pictures to the same
held-out ones, 2,000 a set, in the features of a small classifier fitted once, on the other half of the training
pictures.

The variance ratio is of the gradient of one example, Var[∇L/π] under the density that a run ended with over Var[∇L] of
uniform times, at that run's averaged weights: below 1 is a gain.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neblina.bundle.folder import load_bundle
from neblina.core.atomic import write_file
from neblina.core.conditions import NULL_LABEL, Condition
from neblina.data.pictures import Pictures, Subset, to_float, to_uint8
from neblina.data.sources import open_pictures
from neblina.evaluation.classifier import ClassifierFeatures, fit_classifier
from neblina.evaluation.frechet import frechet_distance
from neblina.guidance.settings import GuidanceSettings
from neblina.objectives.importance import Importance
from neblina.samplers.generate import generate
from neblina.training.build import new_objective
from neblina.training.checkpoint import list_checkpoints, load_checkpoint
from neblina.training.recipe import Recipe, build_recipe
from neblina.training.run import train

BATCH = 50  # pictures generated together
BASE = "base: cosine, labels, uniform times"
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    BASE: {},
    "linear schedule": {"process": {"schedule": "linear"}},
    "sigmoid schedule": {"process": {"schedule": "sigmoid"}},
    "no labels": {"data": {"labels": False}},
    "score-norm times": {"objective": {"times": "score-norm"}},
    "loss-second-moment times": {"objective": {"times": "loss-second-moment"}},
}
TABLES = {
    "Schedules": {BASE: "cosine", "linear schedule": "linear", "sigmoid schedule": "sigmoid"},
    "Labels, sampled without": {BASE: "trained with labels", "no labels": "trained without"},
    "Times": {BASE: "uniform", "score-norm times": "score-norm", "loss-second-moment times": "loss-second-moment"},
}


def recipe_of(configuration: str, seed: int, images: int) -> Recipe:
    """The base with one setting changed."""
    settings: dict[str, Any] = {
        "name": "ablation",
        "network": {"channels": [16, 32, 32], "attention": 7, "blocks": 1, "groups": 8},
        "optimizer": {"lr": 3e-3, "decay": "linear", "warmup": 50},
        "training": {
            "images": images,
            "batch": 32,
            "seed": seed,
            "ema": 0.99,
            "sample_every": 0,
            "checkpoint_every": 10**9,
        },
        "sampling": {"steps": 10},
        **CONFIGURATIONS[configuration],
    }
    return build_recipe(settings, "the ablation's recipe")


def pictures_of(model: Path, count: int, seed: int) -> Tensor:
    """Generated pictures without a class, uint8."""
    bundle = load_bundle(model)
    bundle.net.channels_last()
    labels = torch.full((BATCH,), NULL_LABEL) if bundle.label_names else None
    size = bundle.net.config.sample_size
    parts = [
        generate(
            bundle.denoiser(),
            (1, size, size),
            range(start, start + BATCH),
            condition=Condition(labels),
            sampler=bundle.sampling.sampler,
            steps=bundle.sampling.steps,
            guidance=GuidanceSettings(clip=bundle.sampling.clip),
            seed=1000 + seed,
        )
        for start in range(0, count, BATCH)
    ]
    return to_uint8(torch.cat(parts))


def variance_ratios(recipe: Recipe, folder: Path, training: Pictures, count: int = 400) -> dict[str, float]:
    """Var under the density that the run ended with over Var of uniform times, of one example's gradient and loss."""
    bundle = load_bundle(folder / "model")
    objective, importance = new_objective(recipe, bundle.schedule)
    assert isinstance(importance, Importance)
    importance.restore(load_checkpoint(list_checkpoints(folder / "checkpoints")[-1]).state)
    share = importance.probabilities()
    denoiser = bundle.denoiser()
    parameters = list(bundle.net.parameters())
    generator = torch.Generator().manual_seed(12345)
    chosen = torch.randperm(len(training), generator=generator)[:count]
    x0, labels = to_float(training.read(chosen.tolist())), training.labels
    assert labels is not None
    squares, losses, weights = [], [], []
    total = [torch.zeros_like(one) for one in parameters]
    weighted = [torch.zeros_like(one) for one in parameters]
    for number in range(count):
        u = torch.rand(1, dtype=torch.float64, generator=generator) * (1 - importance.lowest) + importance.lowest
        place = int((u - importance.lowest) / (1 - importance.lowest) * len(share))
        weight = 1 / (len(share) * float(share[place]))
        noise = torch.randn(x0[:1].shape, generator=generator)
        t, one = bundle.schedule.training_time(u), slice(number, number + 1)
        loss = objective(denoiser, x0[one], noise, t, Condition(labels[chosen[one]])).loss[0]
        gradient = torch.autograd.grad(loss, parameters, allow_unused=True)
        square = 0.0
        for into, also, part in zip(total, weighted, gradient, strict=True):
            if part is not None:
                into += part
                also += weight * part
                square += float(part.square().sum())
        squares.append(square)
        losses.append(float(loss.detach()))
        weights.append(weight)
    norm = sum(float(one.square().sum()) for one in total)
    mean_square = (norm - sum(squares)) / (count * (count - 1))  # unbiased for ‖E ∇L‖²
    mean_loss = statistics.mean(losses)
    uniform = statistics.mean(squares) - mean_square
    reweighted = statistics.mean(w * s for w, s in zip(weights, squares, strict=True)) - mean_square
    second = statistics.mean(w * one**2 for w, one in zip(weights, losses, strict=True))
    return {
        "gradient_variance_ratio": reweighted / uniform,
        "loss_variance_ratio": (second - mean_loss**2) / (statistics.mean(one**2 for one in losses) - mean_loss**2),
        "largest_weight": max(weights),
    }


def run(
    configuration: str,
    seed: int,
    images: int,
    training: Pictures,
    held: Tensor,
    real: float,
    extractor: ClassifierFeatures,
) -> dict[str, Any]:
    """Train and measure one configuration under one seed."""
    recipe, folder = recipe_of(configuration, seed, images), Path(tempfile.mkdtemp())
    try:
        began = time.perf_counter()
        model = train(recipe, training, folder, device="cpu")
        trained = time.perf_counter()
        made = pictures_of(model, len(held), seed)
        distance = frechet_distance(made, held, extractor).value
        result: dict[str, Any] = {
            "configuration": configuration,
            "seed": seed,
            "images": images,
            "train_seconds": trained - began,
            "sample_seconds": time.perf_counter() - trained,
            "frechet": distance,
            "frechet_ratio": distance / real,
        }
        if recipe.objective.times != "uniform":
            result |= variance_ratios(recipe, folder, training)
        return result
    finally:
        shutil.rmtree(folder)


def measure_all(source: str, out: Path, images: int, seeds: int, count: int) -> None:
    """Every configuration under every seed that is not in the file yet."""
    training, _ = open_pictures(source)
    tested, _ = open_pictures(str(next(Path(source).glob("t10k-images*"))))
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(training), generator=generator).tolist()
    half = len(order) // 2
    held = tested.read(torch.randperm(len(tested), generator=generator)[:count].tolist())
    extractor = fit_classifier(Subset(training, tuple(order[:half])), "half of mnist")
    real = frechet_distance(training.read(order[half : half + count]), held, extractor).value
    content: dict[str, Any] = {"extractor": extractor.name, "count": count, "frechet_real": real, "runs": []}
    if out.exists():
        content["runs"] = json.loads(out.read_text())["runs"]
    print(f"{extractor.name}: real to held-out {real:.3f}", flush=True)
    for seed in range(seeds):
        for configuration in CONFIGURATIONS:
            done = any((one["configuration"], one["seed"]) == (configuration, seed) for one in content["runs"])
            if done:
                continue
            result = run(configuration, seed, images, training, held, real, extractor)
            content["runs"].append(result)
            text = json.dumps(content, indent=2)
            write_file(out, lambda aside, text=text: aside.write_text(text))  # type: ignore[misc]
            print(json.dumps(result), flush=True)


def report(out: Path, picture: Path) -> None:
    """Print the tables and draw the plot."""
    content = json.loads(out.read_text())
    runs: dict[str, list[dict[str, Any]]] = {}
    for one in content["runs"]:
        runs.setdefault(one["configuration"], []).append(one)
    first = content["runs"][0]
    print(
        f"{first['images']:,} training images a run; {content['count']:,} pictures a set; features "
        f"{content['extractor']}, in which real pictures have a distance of {content['frechet_real']:.3f}.\n"
    )
    for title, rows in TABLES.items():
        times = title == "Times"
        print(f"### {title}\n")
        extra = " gradient variance ratio | loss variance ratio |" if times else ""
        print(f"| | Fréchet over real's: mean | each seed | spread |{extra}")
        print("| --- | ---: | --- | ---: |" + (" ---: | ---: |" if times else ""))
        for configuration, name in rows.items():
            some = runs.get(configuration, [])
            values = [one["frechet_ratio"] for one in some]
            if not values:
                continue
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            each = ", ".join(f"{value:.1f}" for value in values)
            line = f"| {name} | **{statistics.mean(values):.1f}** | {each} | {spread:.1f} |"
            if times:
                for key in ("gradient_variance_ratio", "loss_variance_ratio"):
                    known = [one[key] for one in some if key in one]
                    line += f" {', '.join(f'{value:.2f}' for value in known)} |" if known else " 1 |"
            print(line)
        print()
    draw(runs, picture)


def draw(runs: dict[str, list[dict[str, Any]]], place: Path) -> None:
    """One column a comparison, one dot a seed, a bar at the mean."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axes, (title, rows) in zip(figure.subplots(1, len(TABLES), sharey=True), TABLES.items(), strict=True):
        for place_, configuration in enumerate(rows):
            values = [one["frechet_ratio"] for one in runs.get(configuration, [])]
            if values:
                axes.plot([place_] * len(values), values, "o", color="#2a6f97", alpha=0.6)
                axes.plot([place_ - 0.25, place_ + 0.25], [statistics.mean(values)] * 2, color="#d1495b", lw=2)
        axes.set_xticks(range(len(rows)), ["\n".join(textwrap.wrap(name, 13)) for name in rows.values()], fontsize=8)
        axes.set_xlim(-0.6, len(rows) - 0.4)
        axes.set_title(title, fontsize=10)
        axes.grid(axis="y", alpha=0.3)
    figure.axes[0].set_ylabel("Fréchet distance over real's")
    figure.axes[0].set_ylim(bottom=0)
    write_file(place, lambda aside: figure.savefig(aside, dpi=120))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("source", nargs="?")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=40_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--report", type=Path)
    given = parser.parse_args()
    if given.source is not None:
        torch.set_num_threads(1)
        measure_all(given.source, given.out, given.images, given.seeds, given.count)
    if given.report is not None:
        report(given.out, given.report)


if __name__ == "__main__":
    main()
