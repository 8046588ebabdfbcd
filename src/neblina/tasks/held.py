"""Which pictures a model is measured on: what its training did not see, and their labels as the model knows them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from neblina.core.conditions import NULL_LABEL
from neblina.core.errors import DataError, SettingError, choose
from neblina.data.order import batch_numbers
from neblina.data.pictures import Pictures, inventory
from neblina.data.sources import open_pictures
from neblina.tasks.model import Model
from neblina.tasks.token_model import TokenModel
from neblina.training.examples import divided
from neblina.training.recipe import Recipe, build_recipe


@dataclass(frozen=True)
class Held:
    """The pictures to measure on.

    Attributes:
        pictures: of the model's shape.
        words: which they are, for people.
        numbers: which of them are measured, in a random order.
        labels: of those as the model numbers them, shape (len(numbers),); its null where the pictures have none; None
            for an unconditional model.
        left_out: a sentence for each bad file that was left out.
    """

    pictures: Pictures
    words: str
    numbers: list[int]
    labels: Tensor | None
    left_out: tuple[str, ...] = ()


def open_held(
    model: Model | TokenModel, data: str | None, count: int | None, seed: int, *, skip_bad: bool = False
) -> Held:
    """The pictures to measure a model on.

    Args:
        model: what is measured.
        data: a source of pictures; None for those that the model's recipe held out of training. Of the recipe's own
            source, too, only those.
        count: pictures at most; None for all.
        seed: which pictures, if not all.
        skip_bad: leave bad files out instead of refusing the source.
    Raises:
        SettingError: a count below 1, or no pictures given where the recipe held none out.
        DataError: pictures that are not there, not those that training held some out of, of another shape, with a class
            that the model does not know, or without the labels that it needs.
    """
    source, recipe = source_of(model, data, count, "pictures were")
    channels, height, width = model.shape
    side = height if height == width else None
    pictures, left_out = open_pictures(source, resolution=side, channels=3 if channels == 3 else 1, skip_bad=skip_bad)
    if pictures.shape != model.shape:
        ours, theirs = ("x".join(map(str, shape)) for shape in (model.shape, pictures.shape))
        raise DataError(f"the model makes pictures of {ours}, and those of {source} are {theirs}")
    words = f"the pictures of {source}"
    if recipe is not None and same_source(source, recipe.data.source):
        pictures, words = _held_out(model, pictures, recipe, source)
    numbers = batch_numbers(seed, len(pictures), 0, min(count or len(pictures), len(pictures)))
    labels = _labels(model, pictures, numbers)
    if labels is not None:
        words += ", without labels" if pictures.labels is None else ", given their labels"
    words = f"{len(numbers):,} of {len(pictures):,}: {words}"
    return Held(pictures, words, numbers, labels, tuple(left_out))


def source_of(model: Model | TokenModel, data: str | None, count: int | None, what: str) -> tuple[str, Recipe | None]:
    """Where what a model is measured on comes from, and the recipe that it was trained by, where it has one.

    Raises:
        SettingError: a count below 1, or nothing given where the recipe held nothing out.
    """
    if count is not None and count < 1:
        raise SettingError(f"count is at least 1, not {count}")
    trained = model.bundle.card.get("recipe")
    recipe = None if trained is None else build_recipe(trained, "the model's recipe")
    if data is not None:
        return data, recipe
    if recipe is None or not recipe.data.holds_out:
        raise SettingError(f"no {what} held out of this model's training: say where to find some with --data")
    return recipe.data.source, recipe


def _held_out(model: Model | TokenModel, pictures: Pictures, recipe: Recipe, source: str) -> tuple[Pictures, str]:
    """What training did not see of its own source; all of it, and said, where it saw everything.

    Raises:
        DataError: the source changed since, so that what training saw can no longer be told.
    """
    if not recipe.data.holds_out:
        return pictures, f"the pictures of {source}, which the model was trained on"
    seen, held = divided(recipe, pictures)
    trained, now = model.bundle.card.get("trained_on"), inventory(seen)
    if trained is not None and trained != now:
        counts = f"{trained['count']:,} to train on then, {now['count']:,} now"
        differ = counts if trained["count"] != now["count"] else "as many, but of another shape or in other classes"
        raise DataError(
            f"{source} holds not the pictures that the model was trained on ({differ}), so which of them it never saw "
            "cannot be told. Put them back as they were, or give others with --data"
        )
    return held, f"the pictures of {source} held out of training"


def same_source(one: str, other: str) -> bool:
    """Whether two names of a source are of one."""
    return one == other or (Path(one).exists() and Path(other).exists() and Path(one).samefile(other))


def _labels(model: Model | TokenModel, pictures: Pictures, numbers: list[int]) -> Tensor | None:
    """The labels of some pictures as the model numbers its classes.

    Raises:
        DataError: a class that the model does not know, or no labels for a model that cannot go without.
    """
    names = model.bundle.label_names
    if not names:
        return None
    if pictures.labels is None:
        if model.bundle.null_label is None:
            raise DataError(
                "this model is conditioned on labels and never learned to go without: it needs labelled data"
            )
        return torch.full((len(numbers),), NULL_LABEL)
    known = [names.index(_class(name, names)) for name in pictures.label_names]
    return torch.tensor(known)[pictures.labels[numbers]]


def _class(name: str, names: Sequence[str]) -> str:
    try:
        return choose("class of this model", name, names)
    except SettingError as error:
        raise DataError(f"the pictures do not fit the model: {error}") from error
