"""Pictures of words by codes and by Gaussian latents: quality against evaluations, at equal parameters and equal time.

    OMP_NUM_THREADS=1 python benchmarks/discrete_text.py noto-emoji-64.zip RUNS --reader MODEL --codes CODEC \
        --latents CODEC --minutes 20 --out text.json
    OMP_NUM_THREADS=1 python benchmarks/discrete_text.py noto-emoji-64.zip RUNS --codes CODEC --sheet sheet.png
    python benchmarks/discrete_text.py --out text.json --report docs/images/discrete-text.png

Both read through the text encoder of MODEL, which is trained and stays as it is: a model of the recipe emoji-vq, and
one of the recipe emoji with a smaller U-Net and no styles. CODEC are folders of the recipes emoji-vq-codec and
emoji-codec. Each is trained for as many processor minutes, by one thread; a pilot says how many pictures that is, and
what RUNS holds already is not trained again. Names of training pictures are drawn, and a picture is made of each. It is
right where the real training picture that is nearest to it is the one asked for: squared distance of the colours of
16x16 means. Beside it the Fréchet distance to the same pictures as they are, in the features of a classifier of their
groups. The same pictures through each codec say what can be reached. Rows that OUT holds are not measured again. The
sheet holds the first of those names: the real pictures, what the codes keep of them, and what the two models make.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from discrete_data import Table
from emoji_quality import Real, open_real
from safetensors.torch import load_file, save_file
from torch import Tensor

import neblina
from neblina.bundle.codec import load_codec
from neblina.codecs.kl import KLCodec
from neblina.codecs.vq import VQCodec
from neblina.core.atomic import write_file
from neblina.data.pictures import InMemory, Pictures, Subset, to_float, to_uint8
from neblina.data.sheets import save_sheet
from neblina.evaluation.classifier import ClassifierFeatures, SmallClassifier, fit_classifier
from neblina.evaluation.frechet import frechet_distance
from neblina.training.build_tokens import tokens_of
from neblina.training.encoded import encoded
from neblina.training.frozen import Reader, open_reader
from neblina.training.learner import Learner
from neblina.training.recipe import Recipe, load_recipe
from neblina.training.text import TextTrainer, train_text
from neblina.training.text_tokens import TextTokenLearner, train_text_tokens

EVALUATIONS, FEW = (5, 10, 25, 50, 100), 25
WAYS = {"codes": ("ancestral", "purity"), "latents": ("ddim", "dpmpp_2m")}  # the second is for few evaluations
ALIKE = 0.03  # what the two may differ by in parameters
GUIDED = 3.0
PILOT = (5, 20)  # steps that warm up, and that are timed
SHOWN = 12  # names on the sheet
HUES = {"codes": "#2a6f97", "latents": "#d97706"}


@dataclass(frozen=True)
class Side:
    """One of the two that are compared.

    Attributes:
        recipe: of its model.
        learner: its training under a recipe, not begun.
        train: trains it under a recipe into a folder.
    """

    recipe: Recipe
    learner: Callable[[Recipe], Learner]
    train: Callable[[Recipe, Path], Path]


def of_codes(given: argparse.Namespace, training: Pictures, reader: Reader) -> Side:
    """VQ-Diffusion's transformer on codes."""
    codec = load_codec(given.codes)
    assert isinstance(codec, VQCodec)
    recipe = load_recipe("emoji-vq", {"training": {"sample_every": 0}})
    rows = tokens_of(training, codec)
    return Side(
        recipe,
        lambda changed: TextTokenLearner(changed, training, rows, codec, reader, device="cpu"),
        lambda changed, place: train_text_tokens(
            changed, training, rows, place, codec=codec, reader=reader, resume=True, device="cpu"
        ),
    )


def of_latents(given: argparse.Namespace, training: Pictures, reader: Reader) -> Side:
    """A U-Net on Gaussian latents."""
    codec = load_codec(given.latents)
    assert isinstance(codec, KLCodec)
    changes: dict[str, Any] = {
        "data": {"styles": [], "plain": 16},
        "text": {"encoder": given.reader},
        "latents": {"codec": given.latents, "codec_recipe": None},
        "network": {"channels": [48, 96, 96], "groups": 8},
        "training": {"sample_every": 0},
    }
    recipe = load_recipe("emoji", changes)
    latents = encoded(training, codec, given.runs / "latents" / "latents")  # where its training looks for them
    return Side(
        recipe,
        lambda changed: TextTrainer(changed, latents, codec, reader, device="cpu"),
        lambda changed, place: train_text(
            changed, training, place, codec=codec, reader=reader, resume=True, device="cpu"
        ),
    )


def steps_in(side: Side, seconds: float) -> tuple[int, int]:
    """How many optimiser steps fit into processor seconds, and how many parameters the network has."""
    learner, (warm, timed) = side.learner(side.recipe), PILOT
    for _ in range(warm):
        learner.advance()
    began = time.process_time()
    for _ in range(timed):
        learner.advance()
    size = sum(parameter.numel() for parameter in learner.stored().net.parameters())
    return max(1, round(seconds * timed / (time.process_time() - began))), size


def trained(name: str, side: Side, place: Path, minutes: float) -> None:
    """Train what is not there yet, and write down what it took."""
    if (place / "cost.json").exists():
        return
    steps, size = steps_in(side, 60 * minutes)
    training = side.recipe.training.model_copy(update={"images": steps * side.recipe.training.batch})
    warmup = side.recipe.optimizer.model_copy(update={"warmup": min(side.recipe.optimizer.warmup, steps // 10)})
    began = time.process_time()
    side.train(side.recipe.model_copy(update={"training": training, "optimizer": warmup}), place)
    spent = (time.process_time() - began) / 60
    cost = {"parameters": size, "steps": steps, "pictures": training.images, "minutes": spent}
    write_file(place / "cost.json", lambda aside: aside.write_text(json.dumps(cost)))
    print(name, cost, flush=True)


def grouped(pictures: Pictures) -> InMemory:
    """The pictures with their groups as classes."""
    assert pictures.records is not None
    said = [str(record["group"]) for record in pictures.records]
    groups = tuple(sorted(set(said)))
    return InMemory(pictures.read(range(len(pictures))), torch.tensor([groups.index(one) for one in said]), groups)


def groups_of(training: Pictures, cache: Path, images: int) -> ClassifierFeatures:
    """A classifier of the pictures' groups: from its file, or fitted and written there."""
    place = cache / "groups.safetensors"
    if not place.exists():
        fitted = fit_classifier(grouped(training), "emoji", images=images)
        cache.mkdir(parents=True, exist_ok=True)
        save_file({key: value.contiguous() for key, value in fitted.net.state_dict().items()}, place)
    net = SmallClassifier(3, len(grouped(training).label_names))
    net.load_state_dict(load_file(place))
    return ClassifierFeatures("small-classifier-64@emoji", net.eval().requires_grad_(False))


def made(name: str, place: Path, sampler: str, evaluations: int, prompts: list[str]) -> Tensor:
    """A picture a prompt, uint8."""
    settings: dict[str, Any] = {"sampler": sampler, "steps": evaluations, "guidance": GUIDED, "batch": 50}
    if name == "codes":
        return to_uint8(neblina.load_tokens(place / "model", device="cpu").generate(prompts, **settings))
    return to_uint8(neblina.load(place / "model", device="cpu").generate(prompts, **settings))


def through(codec: str, pictures: Tensor) -> Tensor:
    """Pictures, encoded and decoded."""
    opened = load_codec(codec)
    if isinstance(opened, VQCodec):
        return torch.cat([to_uint8(opened.decode_codes(opened.codes(to_float(some)))) for some in pictures.split(50)])
    return torch.cat([to_uint8(opened.decode(opened.encode(to_float(some)))) for some in pictures.split(50)])


def rows(given: argparse.Namespace, prompts: list[str], real: Tensor) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """All that is measured, by name."""
    for name in WAYS:
        yield f"{name}, real through the codec", partial(through, getattr(given, name), real)
    for count in EVALUATIONS:
        for name, (sampler, quick) in WAYS.items():
            for one in (sampler, quick) if count <= FEW else (sampler,):
                yield f"{name}, {one}, {count}", partial(made, name, given.runs / name, one, count, prompts)


def drawn(given: argparse.Namespace, real: Real) -> list[int]:
    """The training pictures whose names are asked for."""
    chosen = np.random.default_rng(0).choice(real.training, given.pictures, replace=False)
    return [int(one) for one in chosen]


@torch.no_grad()
def sheet(given: argparse.Namespace, real: Real) -> None:
    """Draw the first pictures, each in a column: real, through the codec of codes, and made by both in FEW steps."""
    chosen = drawn(given, real)[:SHOWN]
    prompts, pictures = [real.said(number)["text"] for number in chosen], real.pictures.read(chosen)
    made_of = [made(name, given.runs / name, WAYS[name][0], FEW, prompts) for name in WAYS]
    save_sheet(torch.cat([pictures, through(given.codes, pictures), *made_of]), given.sheet, columns=SHOWN)


@torch.no_grad()
def measured(table: Table, given: argparse.Namespace, real: Real, reader: ClassifierFeatures) -> None:
    """Fill the table."""
    chosen = drawn(given, real)
    pictures = real.pictures.read(chosen)
    known = torch.tensor(real.training)
    for name, make in rows(given, [real.said(number)["text"] for number in chosen], pictures):
        if not table.missing([name]):
            continue
        began = time.process_time()
        found = make()
        seconds = (time.process_time() - began) / len(chosen)
        near = known[real.nearest(found, real.features[known])].tolist()
        right = [real.same(one, other) for one, other in zip(chosen, near, strict=True)]
        table.put(
            name,
            {
                "right": sum(right) / len(right),
                "frechet": frechet_distance(found, pictures, reader).value,
                "seconds": seconds,
                "pictures": len(chosen),
            },
        )


def report(table: Table, place: Path) -> None:
    """Print the table; draw the curves."""
    from matplotlib.figure import Figure  # takes a while

    print("| way | evaluations | nearest is the one asked for | Fréchet distance | processor s a picture |")
    print("| --- | ---: | ---: | ---: | ---: |")
    curves: dict[tuple[str, str], dict[int, tuple[float, float]]] = {}
    for name, row in table.rows.items():
        kind, way, *count = name.split(", ")
        print(
            f"| {kind}, {way} | {''.join(count)} | {row['right']:.0%} | {row['frechet']:.2f} | {row['seconds']:.3f} |"
        )
        curves.setdefault((kind, way), {})[int(count[0]) if count else 0] = (100 * row["right"], row["frechet"])
    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    for number, (axes, title) in enumerate(
        zip(panels, ("nearest real picture is the one asked for (%)", "Fréchet distance"), strict=True)
    ):
        for (kind, way), curve in curves.items():
            if 0 in curve:
                axes.axhline(curve[0][number], color=HUES[kind], ls=":", lw=1, label=f"{kind}: {way}")
                continue
            style = "o-" if way == WAYS[kind][0] else "o--"
            counts = sorted(curve)
            values = [curve[count][number] for count in counts]
            axes.plot(counts, values, style, color=HUES[kind], markersize=3, lw=1.2, label=f"{kind}: {way}")
        axes.set_xscale("log")
        axes.set_xticks(EVALUATIONS, labels=[str(count) for count in EVALUATIONS])
        axes.minorticks_off()
        axes.set_xlabel("evaluations")
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize=7)
    write_file(place, lambda aside: figure.savefig(aside, dpi=110, format="png"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("archive", nargs="?")
    parser.add_argument("runs", type=Path, nargs="?")
    parser.add_argument("--reader", help="model whose text encoder reads the captions")
    parser.add_argument("--codes", help="codec of codes")
    parser.add_argument("--latents", help="codec of Gaussian latents")
    parser.add_argument("--minutes", type=float, default=20, help="processor minutes of each training")
    parser.add_argument("--pictures", type=int, default=200, help="names that a picture is made of")
    parser.add_argument("--fit", type=int, default=20_000, help="pictures that the classifier of groups is fitted on")
    parser.add_argument("--out", type=Path, default=Path("discrete-text.json"))
    parser.add_argument("--sheet", type=Path, help="where a sheet of pictures goes; measures nothing")
    parser.add_argument("--report", type=Path, help="where the curves go; measures nothing")
    given = parser.parse_args()
    table = Table(given.out)
    if given.report:
        report(table, given.report)
        return
    torch.set_num_threads(1)
    real = open_real(given.archive, load_recipe("emoji-vq"))
    if given.sheet:
        sheet(given, real)
        return
    training, reader = Subset(real.pictures, tuple(real.training)), open_reader(given.reader)
    for name, side in (("codes", of_codes), ("latents", of_latents)):
        if not (given.runs / name / "cost.json").exists():
            trained(name, side(given, training, reader), given.runs / name, given.minutes)
    one, other = (json.loads((given.runs / name / "cost.json").read_text())["parameters"] for name in WAYS)
    if abs(one / other - 1) > ALIKE:
        raise SystemExit(f"{one:,} and {other:,} parameters are further apart than {ALIKE:.0%}")
    measured(table, given, real, groups_of(training, given.runs, given.fit))


if __name__ == "__main__":
    main()
