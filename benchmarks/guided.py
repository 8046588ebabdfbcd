"""What the benchmarks of guidance share: four small models of digits, trained where they are missing.

conditional and unconditional are the packaged recipe with and without labels, weaker a quarter of its width for a fifth
of its images, classifier the packaged recipe of a noisy classifier.
"""

from pathlib import Path
from typing import Any

from neblina.data.holding import split
from neblina.data.pictures import Pictures
from neblina.data.sources import open_pictures
from neblina.tasks.train import train_recipe
from neblina.training.recipe import load_recipe

QUIET: dict[str, Any] = {"sample_every": 0}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "conditional": ("digits", {"training": QUIET}),
    "unconditional": ("digits", {"data": {"labels": False}, "training": QUIET}),
    "weaker": ("digits", {"network": {"channels": [8, 16]}, "training": {"images": 20_000, **QUIET}}),
    "classifier": ("digits-classifier", {}),
}


def trained(name: str, folder: Path) -> Path:
    """The folder of one of the models, trained first if it is not there."""
    model = folder / name / "model"
    if not model.exists():
        recipe, overrides = MODELS[name]
        train_recipe(load_recipe(recipe, overrides), folder / name, resume=True, device="cpu")
    return model


def digits() -> tuple[Pictures, Pictures]:
    """The digits that all of them were trained on, and those that none was."""
    recipe = load_recipe("digits")
    pictures, _ = open_pictures("digits")
    return split(pictures, recipe.data.holdout, recipe.training.seed)
