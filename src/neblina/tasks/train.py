"""Train a recipe, a denoiser, a classifier or a codec: open its pictures, train, plot the loss."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from neblina.bundle.files import CARD, read_json
from neblina.core.launch import is_main_process
from neblina.data.files import OnRead
from neblina.data.pictures import Pictures, split
from neblina.data.sources import open_pictures
from neblina.tasks.plots import plot_loss
from neblina.training.classifier import train_classifier
from neblina.training.codec import train_codec
from neblina.training.journal import read_log
from neblina.training.recipe import Recipe
from neblina.training.run import OnReport, Report, train


def train_recipe(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    device: str | None = None,
    skip_bad: bool = False,
    on_read: OnRead | None = None,
    on_report: OnReport | None = None,
) -> Path:
    """Train, and return the model's folder; arguments and errors of `neblina.training.run.train`.

    Raises:
        DataError: pictures that cannot be used, before anything is trained.
    """
    pictures, bad = open_recipe_pictures(recipe, skip_bad=skip_bad, on_read=on_read)
    for sentence in bad:
        if on_report is not None:
            on_report(Report(0, recipe.steps, 0, note=f"{sentence} Left out."))
    training, held = split(pictures, recipe.data.holdout, recipe.training.seed)
    trained: dict[str, Callable[..., Path]] = {
        "denoiser": train,
        "classifier": train_classifier,
        "codec": partial(train_codec, held=held),
    }
    model = trained[recipe.kind](recipe, training, folder, resume=resume, device=device, on_report=on_report)
    if is_main_process():
        plot_loss(read_log(folder / "log.jsonl"), folder / "loss.png")
    return model


def codec_figures(folder: Path) -> str:
    """What a trained codec was measured at, in a line.

    Raises:
        CheckpointError: the folder's card is missing or damaged.
    """
    measured = read_json(folder / CARD)["measured"]
    whose = "held-out" if measured["held_out"] else "training"
    line = f"{measured['pictures']} {whose} pictures: PSNR {measured['psnr']:.2f} dB, SSIM {measured['ssim']:.4f}"
    if measured["perplexity"] is None:
        return line
    return f"{line}; codes used {measured['codebook_usage']:.0%}, perplexity {measured['perplexity']:.1f}"


def open_recipe_pictures(
    recipe: Recipe, *, skip_bad: bool = False, on_read: OnRead | None = None
) -> tuple[Pictures, list[str]]:
    """All pictures of a recipe, held-out ones included, and a sentence for each bad file that was left out."""
    data = recipe.data
    return open_pictures(
        data.source, resolution=data.resolution, channels=data.channels, skip_bad=skip_bad, on_read=on_read
    )
