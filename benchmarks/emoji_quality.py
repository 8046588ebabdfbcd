"""What a model of the recipe `emoji` can do: names, keywords, people it never saw in a tone, styles, styles in places.

    python benchmarks/emoji_quality.py MODEL noto-emoji-64.zip --out docs/images

A picture is known by the real picture that is nearest to it, among all of the archive, held-out ones included: squared
distance of the colours of 16x16 means (768 numbers). For styles the archive is rendered in each of them. Pictures that
are equal under several names count for each of them. 25 steps, the model's own guidance; intervals are Wilson's, 95 %.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from placement_report import interval
from torch import Tensor

import neblina
from neblina.bundle.files import CARD, read_json, write_card
from neblina.core.atomic import write_file
from neblina.data.holding import split
from neblina.data.pictures import Pictures, Subset, to_float, to_uint8
from neblina.data.sheets import save_sheet
from neblina.data.sources import open_pictures
from neblina.data.styles import PLAIN, render, styles
from neblina.evaluation.codec import measure_codec
from neblina.tasks.model import Model
from neblina.training.recipe import Recipe, build_recipe

SIDE = 16  # of the means that pictures are compared by
BATCH = 50
ROWS = (  # what is told of what was measured, and where its chance stands
    ("names", "a name: the picture that was asked for is the nearest", "names, chance"),
    ("names without a tone", "… of those without a tone of skin", "names, chance"),
    ("names with a tone", "… of those with one", "names, chance"),
    ("keywords", "three keywords: the nearest picture has two of them", "keywords, chance"),
    ("unseen, tone", "people held out: the tone is right", "tone"),
    ("unseen, person", "… the person is right", "person"),
    ("unseen, both", "… both are", "both"),
    ("styles", "a style's words are obeyed", "styles, chance"),
    ("styles and picture", "… and it is the picture that was asked for", None),
    ("styles in places", "… in each of two places of one scene", "styles, chance"),
)


@dataclass(frozen=True)
class Real:
    """The archive, and what was held out of training."""

    pictures: Pictures
    features: Tensor
    training: list[int]
    held: list[int]

    def nearest(self, made: Tensor, among: Tensor | None = None) -> list[int]:
        """The number of the real picture nearest to each of some."""
        given = self.features if among is None else among
        found: list[int] = torch.cdist(features(made), given).argmin(1).tolist()
        return found

    def said(self, number: int) -> dict[str, Any]:
        assert self.pictures.records is not None
        return dict(self.pictures.records[number])

    def same(self, one: int, other: int) -> bool:
        """Whether two numbers are of one picture."""
        return one == other or bool((self.features[one] == self.features[other]).all())


def features(pictures: Tensor) -> Tensor:
    """uint8 pictures as vectors."""
    side = pictures.shape[-1] // SIDE
    return F.avg_pool2d(pictures.float() / 255, side).flatten(1)


def share(right: Sequence[bool]) -> dict[str, Any]:
    """A share with its interval."""
    low, high = interval(sum(right) / len(right), len(right))
    return {"share": sum(right) / len(right), "interval": [low, high], "of": len(right)}


def made(model: Model, prompts: Sequence[str], seed: int = 0, **settings: Any) -> Tensor:
    """One picture a prompt, uint8."""
    parts = []
    for start in range(0, len(prompts), BATCH):
        some = list(prompts[start : start + BATCH])
        parts.append(to_uint8(model.generate(some, seed=seed + start, steps=25, batch=BATCH, **settings)))
    return torch.cat(parts)


def open_real(archive: str, recipe: Recipe) -> Real:
    """The archive, divided as the recipe does."""
    pictures, _ = open_pictures(archive, resolution=recipe.data.resolution, channels=3)
    assert recipe.data.apart is not None
    training, held = split(
        pictures,
        recipe.data.holdout,
        recipe.training.seed,
        apart=recipe.data.apart.fields,
        count=recipe.data.apart.count,
    )
    numbers = [list(part.numbers) for part in (training, held)]  # type: ignore[attr-defined]
    return Real(pictures, features(pictures.read(range(len(pictures)))), *numbers)


def names(model: Model, real: Real, count: int, generator: np.random.Generator) -> tuple[dict[str, Any], Tensor]:
    """Whether the picture asked for by its name is the one that comes, of all and of those without a tone."""
    chosen = generator.choice(real.training, count, replace=False).tolist()
    pictures = made(model, [real.said(number)["text"] for number in chosen])
    near = real.nearest(pictures)
    right = [real.same(one, other) for one, other in zip(chosen, near, strict=True)]
    plain = [one for one, number in zip(right, chosen, strict=True) if not real.said(number)["skin_tones"]]
    toned = [one for one, number in zip(right, chosen, strict=True) if real.said(number)["skin_tones"]]
    sheet = torch.stack(
        [one for pair in zip(real.pictures.read(chosen[:60]), pictures[:60], strict=True) for one in pair]
    )
    return {
        "names": share(right),
        "names without a tone": share(plain),
        "names with a tone": share(toned),
        "names, chance": 1 / len(real.pictures),
    }, sheet


def keywords(model: Model, real: Real, count: int, generator: np.random.Generator) -> dict[str, Any]:
    """Whether the picture nearest to one of three keywords has at least two of them, and whether a random one has."""
    able = [number for number in real.training if len(set(real.said(number)["keywords"])) >= 3]
    chosen = generator.choice(able, count, replace=False).tolist()
    words = [generator.choice(real.said(number)["keywords"], 3, replace=False).tolist() for number in chosen]
    near = real.nearest(made(model, [", ".join(each) for each in words]))
    others = generator.choice(real.training, (count, 50)).tolist()

    def fits(number: int, asked: list[str]) -> bool:
        return len(set(asked) & set(real.said(number)["keywords"])) >= 2

    right = [fits(number, asked) for number, asked in zip(near, words, strict=True)]
    chance = float(np.mean([fits(n, asked) for some, asked in zip(others, words, strict=True) for n in some]))
    return {"keywords": share(right), "keywords, chance": chance}


def unseen(model: Model, real: Real) -> tuple[dict[str, Any], Tensor]:
    """People in a tone that training never showed together: which of the two is right."""
    chosen = [number for number in real.held if len(real.said(number)["skin_tones"]) == 1]
    pictures = made(model, [real.said(number)["text"] for number in chosen])
    near = real.nearest(pictures)
    asked, found = ([real.said(number) for number in each] for each in (chosen, near))
    tone = [a["skin_tones"] == b["skin_tones"] for a, b in zip(asked, found, strict=True)]
    person = [a["base_text"] == b["base_text"] for a, b in zip(asked, found, strict=True)]
    both = [a and b for a, b in zip(tone, person, strict=True)]
    people = {real.said(number)["base_text"] for number in range(len(real.pictures)) if real.said(number)["skin_tones"]}
    shown = [one for pair in zip(real.pictures.read(chosen[:60]), pictures[:60], strict=True) for one in pair]
    return {
        "unseen, tone": share(tone),
        "unseen, person": share(person),
        "unseen, both": share(both),
        "unseen, chance": {"tone": 1 / 5, "person": 1 / len(people), "both": 1 / (5 * len(people))},
    }, torch.stack(shown)


def in_styles(model: Model, real: Real, count: int, generator: np.random.Generator) -> tuple[dict[str, Any], Tensor]:
    """Whether the style asked for comes, and with it the picture; and the same of two places of one scene."""
    able = [number for number in real.training if not real.said(number)["skin_tones"]]
    chosen = generator.choice(able, count, replace=False).tolist()
    kinds = [PLAIN, *styles]
    rendered = torch.cat(
        [features(render(real.pictures.read(chosen), kind)) for kind in kinds]  # of the pictures that are asked for
    )
    asked = [kinds[1 + number % (len(kinds) - 1)] for number in range(count)]
    prompts = [f"{real.said(number)['text']}, {style}" for number, style in zip(chosen, asked, strict=True)]
    pictures = made(model, prompts)
    found = [divmod(near, count) for near in real.nearest(pictures, rendered)]
    right = [kinds[kind] == style for (kind, _), style in zip(found, asked, strict=True)]
    whole = [ok and place == number for number, (ok, (_, place)) in enumerate(zip(right, found, strict=True))]
    halves, scenes = [], []
    for number in range(0, min(count, 40), 2):
        scene = {
            "size": [128, 64],
            "background": "",
            "elements": [
                {"prompt": prompts[number], "box": [0, 0, 64, 64]},
                {"prompt": prompts[number + 1], "box": [64, 0, 128, 64]},
            ],
            "bootstrap": {"share": 0.2, "colours": ["white"]},
        }
        picture = to_uint8(to_float(model.compose(scene, seed=number)))
        scenes.append(picture[0])
        for side in range(2):
            (near,) = real.nearest(picture[..., 64 * side : 64 * side + 64], rendered)
            halves.append(kinds[near // count] == asked[number + side])
    return {
        "styles": share(right),
        "styles and picture": share(whole),
        "styles in places": share(halves),
        "styles, chance": 1 / len(kinds),
    }, torch.stack(scenes)


def table(measured: dict[str, Any]) -> str:
    """What was measured, as Markdown."""
    chances = {**measured, **measured.get("unseen, chance", {})}
    lines = ["| what | measured (95 %) | of | by chance |", "| --- | ---: | ---: | ---: |"]
    if "codec" in measured:
        kept = measured["codec"]
        what = f"{kept['psnr']:.2f} dB, SSIM {kept['ssim']:.3f}"
        lines.append(f"| the codec on held-out pictures: PSNR | {what} | {kept['pictures']} | |")
    for name, words, chance in ROWS:
        if name in measured:
            found = measured[name]
            low, high = (100 * end for end in found["interval"])
            by_chance = "" if chance is None else f"{100 * chances[chance]:.3g} %"
            shown = f"{100 * found['share']:.1f} % ({low:.0f} … {high:.0f})"
            lines.append(f"| {words} | {shown} | {found['of']} | {by_chance} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("archive")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--guidance", type=float, help="in place of the model's own")
    parser.add_argument("--only", nargs="*", default=["codec", "names", "keywords", "unseen", "styles"])
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--json", type=Path, default=Path("emoji-quality.json"))
    parser.add_argument("--card", action="store_true", help="write the figures into the model's neblina.json too")
    given = parser.parse_args()
    model = neblina.load(given.model, device="cpu")
    if given.guidance is not None:
        sampling = replace(model.bundle.sampling, guidance=given.guidance)
        model = replace(model, bundle=replace(model.bundle, sampling=sampling))
    recipe = build_recipe(model.bundle.card["recipe"], "the model's recipe")
    real = open_real(given.archive, recipe)
    generator = np.random.default_rng(0)
    measured: dict[str, Any] = {}
    given.out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    for part in given.only:
        if part == "codec":
            held = Subset(real.pictures, tuple(real.held))
            kept = measure_codec(model.bundle.codec, held, len(held))
            measured["codec"] = {"pictures": kept.pictures, "psnr": kept.psnr, "ssim": kept.ssim}
        elif part == "keywords":
            measured |= keywords(model, real, given.count, generator)
        else:
            found, sheet = {
                "names": lambda: names(model, real, given.count, generator),
                "unseen": lambda: unseen(model, real),
                "styles": lambda: in_styles(model, real, given.count, generator),
            }[part]()
            measured |= found
            columns = 4 if part == "styles" else 12
            save_sheet(sheet, given.out / f"emoji-{part}.png", columns=columns, scale=1)
        print(part, f"{time.perf_counter() - began:.0f} s", json.dumps(measured, indent=1), flush=True)
    text = json.dumps(measured, indent=2) + "\n"
    write_file(given.json, lambda aside: aside.write_text(text))
    print(table(measured))
    if given.card:
        write_card(Path(given.model), {**read_json(Path(given.model) / CARD), "metrics": measured})


if __name__ == "__main__":
    main()
