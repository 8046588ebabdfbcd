"""Is the right digit in the right box: composed scenes, scored, over the share of bootstrapping and against baselines.

    python benchmarks/placement_data.py PATH_TO_MNIST scattered
    neblina train scattered --data.source scattered
    OMP_NUM_THREADS=1 python benchmarks/placement.py PATH_TO_MNIST runs/scattered/model --out placement.json
    python benchmarks/placement.py --out placement.json --report docs/images

The first two make the model; its training canvases hold one digit each. The third composes 2 to 4 digits on canvases
of 56x56 to 112x112 and stores every row in the JSON file as it ends; interrupted, it goes on where it was. The fourth
prints the tables and draws the curve and the sheet. What is scored is said in placement_scoring.py, what it is compared
with in placement_ways.py. Rows that go back are composed with a sampler that walks the steps in which things are placed
several times.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from placement_data import BLANK, SIDE, Digits, Grey, read_digits
from placement_report import report
from placement_scoring import CLASSES, Asked, Element, Scored, random_scenes, reader_of, reading_matter, scored, seen
from placement_ways import Way, Ways, quick, real

from neblina.core.atomic import write_file
from neblina.evaluation.classifier import ClassifierFeatures
from neblina.evaluation.frechet import frechet_distance
from neblina.tasks.loading import load

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6)
RANDOM = 8  # colours, as compose takes when nothing is said
BACK = {"sampler": "restart_ancestral", "guidance": 5.0}  # the guidance was chosen on single elements of other scenes
SIZE_CLASSES = (36, 40, 44, 49)  # of a box's longer side


def summary(results: Sequence[Scored]) -> dict[str, Any]:
    """Means over elements, and over pictures; and over the elements of each size of box."""
    found = [one for result in results for one in result.elements]
    sizes = {}
    for low, high in pairwise(SIZE_CLASSES):
        some = [one for one in found if low <= one.element.longer < high]
        if some:
            sizes[f"{low}-{high - 1}"] = {
                "elements": len(some),
                "right": float(np.mean([one.right for one in some])),
                "neglected": float(np.mean([one.neglected for one in some])),
                "iou": float(np.mean([one.iou for one in some])),
            }
    return {
        "scenes": len(results),
        "elements": len(found),
        "right": float(np.mean([one.right for one in found])),
        "iou": float(np.mean([one.iou for one in found])),
        "leakage": float(np.mean([result.leakage for result in results])),
        "neglected": float(np.mean([one.neglected for one in found])),
        "sizes": sizes,
    }


def crops(scenes: Sequence[Asked], pictures: Sequence[Grey]) -> torch.Tensor:
    """What all boxes hold, as the reader sees it: uint8, shape (elements, 1, 28, 28)."""
    shown = [seen(made, one.box) for scene, made in zip(scenes, pictures, strict=True) for one in scene.elements]
    return torch.from_numpy(np.stack(shown))[:, None]


def measured(
    way: Way, scenes: Sequence[Asked], test: Digits, training: Digits, reader: ClassifierFeatures
) -> tuple[dict[str, Any], list[Grey]]:
    """A row, and the pictures; distances are to test digits in the same boxes, as is that of training digits."""
    began = time.perf_counter()
    pictures = way(scenes)
    seconds = time.perf_counter() - began
    held = crops(scenes, real(scenes, test, 1))
    row = summary(scored(scenes, pictures, reader))
    row["seconds"] = seconds / len(scenes)
    row["frechet"] = frechet_distance(crops(scenes, pictures), held, reader).value
    row["frechet_real"] = frechet_distance(crops(scenes, real(scenes, training, 2)), held, reader).value
    return row, pictures


def reading(reader: ClassifierFeatures, test: Digits) -> dict[str, float]:
    """How well the reader reads test digits at the sizes used, and rubbish of them."""
    matter = reading_matter(test, seed=2)
    assert matter.labels is not None
    right, digit = reader.classify(matter.pixels) == matter.labels, matter.labels != BLANK
    return {"digits": float(right[digit].float().mean()), "rubbish": float(right[~digit].float().mean())}


def alone(ways: Ways, count: int, test: Digits, training: Digits, reader: ClassifierFeatures) -> dict[str, Any]:
    """The model on what it was trained on, one digit a canvas: what composing cannot be expected to exceed."""
    labels = [number % 10 for number in range(count)]
    scenes = [Asked((SIDE, SIDE), (Element(label, (0, 0, SIDE, SIDE)),)) for label in labels]
    return measured(lambda given: ways.alone(labels), scenes, test, training, reader)[0]


def shuffled(scenes: Sequence[Asked], random: np.random.Generator) -> list[Asked]:
    """The same boxes with other labels, drawn from those of all boxes."""
    labels = iter(random.permutation([one.label for scene in scenes for one in scene.elements]).tolist())
    return [Asked(one.size, tuple(Element(next(labels), each.box) for each in one.elements)) for one in scenes]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("mnist", type=Path, nargs="?")
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, default=Path("placement.json"))
    parser.add_argument("--cache", type=Path, default=Path("placement-reader"), help="folder of the fitted reader")
    parser.add_argument("--report", type=Path, help="folder of pictures; measures nothing")
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--alone", type=int, default=200, help="canvases of one digit")
    parser.add_argument("--sheet", type=int, default=7, help="scenes on the sheet")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--guidance-behind", type=float, help="of the background; that of the elements if not given")
    parser.add_argument("--sampler")
    parser.add_argument("--only", nargs="*", help="rows, by how their names begin")
    given = parser.parse_args()
    if given.report:
        report(json.loads(given.out.read_text()), given.out.with_suffix(".npz"), given.report)
        return
    torch.set_num_threads(1)
    training, test = read_digits(given.mnist), read_digits(given.mnist, held_out=True)
    reader = reader_of(given.cache, training)
    settings: dict[str, Any] = {"steps": given.steps, "guidance": given.guidance}
    if given.sampler:
        settings["sampler"] = given.sampler
    behind = {} if given.guidance_behind is None else {"guidance": given.guidance_behind}
    ways = Ways(quick(load(given.model, device="cpu")), settings, behind)
    back = replace(ways, settings={**settings, **BACK})
    scenes = random_scenes(given.scenes, seed=0)
    every: dict[str, Way] = {
        "real": lambda some: real(some, training, 3),
        "one prompt": ways.one_prompt,
        "region by region": partial(ways.region_by_region, scaled=False),
        "region by region, scaled": partial(ways.region_by_region, scaled=True),
    }
    for colours, name in ((["black"], "black"), (RANDOM, "random")):
        for share in SHARES if name == "black" else SHARES[1:]:
            every[f"composed, {name}, {share:g}"] = partial(ways.composed, share=share, colours=colours)
    for share in SHARES:
        every[f"going back, black, {share:g}"] = partial(back.composed, share=share, colours=["black"])
    done: dict[str, Any] = json.loads(given.out.read_text()) if given.out.exists() else {}
    done["settings"], done["classes"] = {**settings, "behind": behind, "scenes": given.scenes}, CLASSES
    if "reader" not in done:
        done["reader"] = reading(reader, test)
        pictures = real(scenes, test, 4)
        done["shuffled"] = summary(scored(shuffled(scenes, np.random.default_rng(0)), pictures, reader))
    for name, its in (("alone", ways), ("alone, going back", back)):
        if name not in done:
            done[name] = alone(its, given.alone, test, training, reader)
            print(f"{name}: {done[name]['right']:.1%}", flush=True)
    kept = dict(np.load(given.out.with_suffix(".npz"))) if given.out.with_suffix(".npz").exists() else {}
    done.setdefault("rows", {})
    done["sheet"] = [
        {"size": scene.size, "elements": [[one.label, *one.box] for one in scene.elements]}
        for scene in scenes[: given.sheet]
    ]
    for name, way in every.items():
        if name in done["rows"] or (given.only and not name.startswith(tuple(given.only))):
            continue
        row, pictures = measured(way, scenes, test, training, reader)
        done["rows"][name] = row
        kept |= {f"{name}/{number}": picture for number, picture in enumerate(pictures[: given.sheet])}
        write_file(given.out, lambda aside: aside.write_text(json.dumps(done, indent=1)))
        np.savez_compressed(given.out.with_suffix(".npz"), **kept)
        print(
            f"{name}: right {row['right']:.1%} iou {row['iou']:.3f} leakage {row['leakage']:.1%} neglected "
            f"{row['neglected']:.1%} frechet {row['frechet']:.2f} (real {row['frechet_real']:.2f}) "
            f"{row['seconds']:.2f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
