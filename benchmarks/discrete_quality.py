"""Quality against evaluations: diffusion of tokens, the released stride rule, and an autoregressive transformer.

    OMP_NUM_THREADS=1 python benchmarks/discrete_quality.py PATH_TO_MNIST RUNS --out quality.json
    python benchmarks/discrete_quality.py --out quality.json --report docs/images/discrete-quality.png

RUNS holds what was trained on the same tokens with the same budget: mask-and-replace and absorbing (`neblina train
mnist-tokens`, with --tokens.kernel) and ar (discrete_train_ar.py). The score is the Fréchet distance of as many made
pictures, classes in turn, to pictures of the test set, in the features of a classifier of real digits; beside it the
share that the classifier reads as the class asked for, and processor seconds a picture, decoding left out. Real
pictures that were held out, and the same through the codec, say what can be reached. Rows that OUT holds are not
measured again.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import torch
from discrete_data import AT_ONCE, CLASSES, KINDS, Models, Table, balanced, open_models, reader_of, real_pictures
from discrete_strides import EVALUATIONS, STEPS, stride
from torch import Tensor

from neblina.core.atomic import write_file
from neblina.core.conditions import Condition
from neblina.core.noise import SampleNoise
from neblina.core.plan import conditional
from neblina.evaluation.classifier import ClassifierFeatures
from neblina.evaluation.frechet import frechet_distance
from neblina.samplers.autoregressive import generate_in_order
from neblina.samplers.drive import sample

GUIDED = 1.5  # the recipe's
Way = Callable[[int], Tensor]  # tokens of so many pictures, classes in turn


def diffused(models: Models, kind: str, sampler: str, evaluations: int, guidance: float, count: int) -> Tensor:
    """By a sampler of the library."""
    return models.diffusion[kind].tokens(
        labels=list(range(CLASSES)), n=count, sampler=sampler, steps=evaluations, guidance=guidance, batch=AT_ONCE
    )


def by_released_rule(models: Models, evaluations: int, count: int) -> Tensor:
    """Mask-and-replace by the stride of the released code."""
    bundle, parts = models.diffusion["mask-and-replace"].bundle, []
    denoiser = bundle.denoiser()
    for numbers in torch.arange(count).split(AT_ONCE):
        noise = SampleNoise(0, numbers.tolist())
        x = denoiser.process.prior((len(numbers), *bundle.shape), noise)
        walk = stride(denoiser.process, x, evaluations, released=True, noise=noise)
        parts.append(sample(walk, conditional(denoiser, Condition(numbers % CLASSES))))
    return torch.cat(parts)


def written(models: Models, guidance: float, count: int) -> Tensor:
    """One token after the other."""
    parts = [
        generate_in_order(
            models.writer, numbers.tolist(), labels=numbers % CLASSES, null_label=CLASSES, guidance=guidance
        )
        for numbers in torch.arange(count).split(AT_ONCE)
    ]
    high, wide = models.diffusion[KINDS[0]].bundle.shape
    return torch.cat(parts).reshape(count, high, wide)


def ways(models: Models) -> dict[str, Way]:
    """All that is measured, the quickest to tell something first; of a hundred steps the released rule is the law."""
    every: dict[str, Way] = {f"autoregressive, {weight:g}": partial(written, models, weight) for weight in (1, GUIDED)}

    def add(kind: str, sampler: str, count: int, weight: float = 1.0) -> None:
        every[f"{kind}, {sampler}, {count}, {weight:g}"] = partial(diffused, models, kind, sampler, count, weight)

    for count in sorted(EVALUATIONS):
        for kind in KINDS:
            add(kind, "ancestral", count)
        if count < STEPS:
            every[f"mask-and-replace, released rule, {count}, 1"] = partial(by_released_rule, models, count)
        if count == 25:
            for kind in KINDS:
                add(kind, "ancestral", count, GUIDED)
        if count <= 10:
            for kind, sampler in product(KINDS, ("purity", "confidence")):
                add(kind, sampler, count)
    return every


def scored(pictures: Tensor, labels: Tensor, reference: Tensor, reader: ClassifierFeatures) -> dict[str, float]:
    return {
        "frechet": frechet_distance(pictures, reference, reader).value,
        "right": float((reader.classify(pictures) == labels).double().mean()),
        "pictures": len(pictures),
    }


def measured(table: Table, mnist: Path, runs: Path, cache: Path, count: int, only: list[str] | None) -> None:
    """Fill the table."""
    training, held, test = real_pictures(mnist)
    reader, models = reader_of(cache, training), open_models(runs)
    torch.set_grad_enabled(False)
    reference, labels = balanced(test, count)
    if table.missing(["real"]):
        pictures = balanced(held, count)[0]
        table.put("real", scored(pictures, labels, reference, reader))
        through = models.decoded(models.encoded(pictures))
        table.put("real, through the codec", scored(through, labels, reference, reader))
    every = ways(models)
    for name in table.missing(list(every)):
        if only and not name.startswith(tuple(only)):
            continue
        began = time.process_time()
        tokens = every[name](count)
        seconds = (time.process_time() - began) / count
        table.put(name, {**scored(models.decoded(tokens), labels, reference, reader), "seconds": seconds})


def report(table: Table, place: Path) -> None:
    """Print the table; draw the curves."""
    from matplotlib.figure import Figure  # takes a while

    rows = table.rows
    print("| way | evaluations | guidance | Fréchet distance | read as asked | processor s a picture |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    curves: dict[str, dict[int, tuple[float, float]]] = {}
    for name, row in rows.items():
        way, count, weight = "", "", ""
        match name.split(", "):
            case [kind, sampler, count, weight]:
                way = f"{kind}, {sampler}"
                label = way if weight == "1" else f"{way}, guidance {weight}"
                curves.setdefault(label, {})[int(count)] = (row["frechet"], row["right"])
            case ["autoregressive", weight]:
                way, count = "autoregressive, cached", "49 tokens"
            case _:
                way = name
        seconds = f"{row['seconds']:.4f}" if "seconds" in row else ""
        print(f"| {way} | {count} | {weight} | {row['frechet']:.2f} | {row['right']:.1%} | {seconds} |")
    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    for number, (axes, title) in enumerate(zip(panels, ("Fréchet distance", "read as asked (%)"), strict=True)):
        for label, curve in curves.items():
            counts = sorted(curve)
            hue = "#d1495b" if "released" in label else "#2a6f97" if label.startswith("mask") else "#d97706"
            style = (
                ":" if "purity" in label else "-." if "confidence" in label else "--" if "guidance" in label else "-"
            )
            values = [(1, 100)[number] * curve[count][number] for count in counts]
            axes.plot(counts, values, "o", ls=style, color=hue, markersize=3, linewidth=1.2, label=label)
        for name, style in (
            ("autoregressive, 1", "-"),
            ("autoregressive, 1.5", "--"),
            ("real, through the codec", ":"),
        ):
            if name in rows:
                value = (1, 100)[number] * rows[name][("frechet", "right")[number]]
                axes.axhline(
                    value,
                    color="#777777",
                    ls=style,
                    lw=1,
                    label=name.replace(", 1.5", ", guidance 1.5").removesuffix(", 1"),
                )
        axes.set_xscale("log")
        axes.set_xticks(sorted(EVALUATIONS), labels=[str(count) for count in sorted(EVALUATIONS)])
        axes.minorticks_off()
        axes.set_xlabel("evaluations")
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
    panels[0].set_yscale("log")
    panels[1].legend(fontsize=6)
    write_file(place, lambda aside: figure.savefig(aside, dpi=110, format="png"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("mnist", type=Path, nargs="?")
    parser.add_argument("runs", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, default=Path("discrete-quality.json"))
    parser.add_argument("--cache", type=Path, default=Path("discrete-reader"), help="folder of the fitted reader")
    parser.add_argument("--report", type=Path, help="where the curve goes; measures nothing")
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--only", nargs="*", help="rows, by how their names begin")
    given = parser.parse_args()
    table = Table(given.out)
    if given.report:
        report(table, given.report)
        return
    torch.set_num_threads(1)
    measured(table, given.mnist, given.runs, given.cache, given.pictures, given.only)


if __name__ == "__main__":
    main()
