"""Variants of the digits recipe after the same number of images, measured as the demo is.

python benchmarks/digits_ablation.py [--images 60000]
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from peers import machine

from neblina.data.holding import split
from neblina.data.sources import open_pictures
from neblina.tasks.loading import load
from neblina.tasks.measure import measure
from neblina.training.recipe import load_recipe
from neblina.training.run import train

VARIANTS: dict[str, dict[str, Any]] = {
    "the recipe": {},
    "lr 2e-3": {"optimizer": {"lr": 2e-3}},
    "eps": {"process": {"parameterisation": "eps"}},
    "linear schedule": {"process": {"schedule": "linear"}},
    "flow": {"process": {"schedule": "flow", "parameterisation": "flow"}},
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=60_000)
    given = parser.parse_args()
    pictures, _ = open_pictures("digits")
    print(f"{machine()}\n{given.images:,} images\n")
    print("| variant | seconds | read as asked | Fréchet ratio |\n| --- | ---: | ---: | ---: |")
    for name, overrides in VARIANTS.items():
        settings = {**overrides, "training": {"images": given.images, "sample_every": 0}}
        recipe = load_recipe("digits", settings)
        training, held = split(pictures, recipe.data.holdout, recipe.training.seed)
        folder = Path(tempfile.mkdtemp())
        began = time.perf_counter()
        model = load(train(recipe, training, folder, device="cpu"))
        seconds = time.perf_counter() - began
        result = measure(model, training, held, data_name="digits")
        print(f"| {name} | {seconds:.0f} | {result.agreement:.1%} | {result.frechet_ratio:.2f} |", flush=True)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
