"""Training a classifier of noisy pictures: cross-entropy at the times and with the noise that a denoiser is trained at.

    L = E_{t, ε} −log p_φ(y | α_t x_0 + σ_t ε)

The loop is the denoiser's, and everything random in a step is a function of (seed, step).

Dhariwal, Nichol. Diffusion Models Beat GANs on Image Synthesis. NeurIPS 2021, section 4.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from neblina.bundle.classifier import ClassifierBundle, save_classifier
from neblina.core.devices import pick_device
from neblina.core.errors import SettingError
from neblina.core.launch import world_size
from neblina.data.pictures import Pictures
from neblina.nets.encoder import Encoder, EncoderConfig
from neblina.processes.schedules import make_schedule
from neblina.training.examples import draw_examples, read_batch, step_seed
from neblina.training.plain import PlainLearner
from neblina.training.recipe import Recipe, Training
from neblina.training.run import OnReport, run
from neblina.training.same import setting_of
from neblina.training.unused import EVERY, OF_TEXT, PATCHES, Unused, meaningless, refuse_unused

# settings that a denoiser's recipe or a codec's has and a classifier does not look at
_UNUSED: Unused = {
    "objective": EVERY,
    "process": ("parameterisation", "clock"),
    "network": ("fold", *PATCHES),
    "training": ("snapshots_every",),
    "sampling": EVERY,
    "codec": EVERY,
    "reconstruction": EVERY,
    "discriminator": EVERY,
    **OF_TEXT,
}


def new_classifier(recipe: Recipe, pictures: Pictures) -> ClassifierBundle:
    """The untrained classifier that a recipe describes for these pictures, weights drawn from its seed.

    Raises:
        SettingError: pictures without labels, a recipe that hides or leaves them aside or sets what a classifier does
            not have, or a network that does not fit.
    """
    if pictures.labels is None or not recipe.data.labels:
        raise SettingError("a classifier is trained on labels: give labelled pictures and leave data.labels on")
    if recipe.training.label_dropout:
        raise SettingError("a classifier is trained on every label: set training.label_dropout to 0")
    refuse_unused(recipe, _UNUSED, "a classifier")
    if recipe.training.sample_every not in (0, Training().sample_every):
        raise meaningless(["training.sample_every"], "a classifier")
    net = recipe.network
    config = EncoderConfig(
        shape=pictures.shape,
        classes=len(pictures.label_names),
        channels=net.channels,
        attention=net.attention,
        blocks=net.blocks,
        dropout=net.dropout,
        head_dim=net.head_dim,
        groups=net.groups,
        scale_shift=net.scale_shift,
    )
    schedule = make_schedule(recipe.process.schedule, **recipe.process.settings)
    torch.manual_seed(recipe.training.seed % 2**63)
    card = {"recipe": recipe.model_dump(mode="json")}
    return ClassifierBundle(Encoder(config).eval(), schedule, pictures.label_names, card)


def train_classifier(
    recipe: Recipe,
    pictures: Pictures,
    folder: Path,
    *,
    resume: bool = False,
    device: str | None = None,
    on_report: OnReport | None = None,
) -> Path:
    """Train a classifier of noisy pictures, or go on with training one.

    Args:
        recipe: what to do; objective, parameterisation, clock, sampling and snapshots mean nothing here, and are
            refused where they are not the defaults.
        pictures: the training pictures, with labels.
        folder: where the run lives: `log.jsonl`, `checkpoints/`, and at the end `model/`.
        resume: go on from the newest whole checkpoint; from the beginning if there is none.
        device: "cpu", "cuda", …; None for the best there is.
        on_report: told after every step.
    Returns:
        The classifier's folder.
    Raises:
        SettingError: a recipe that does not fit the pictures, or not the run that is there.
        DivergenceError: the loss stopped being finite; the last checkpoint stands.
        StorageError: the disk is full; the last checkpoint stands.
        Interrupted: on Ctrl-C, after finishing the step and saving.
    """
    if world_size() > 1:
        raise SettingError("a classifier is trained by one process; start it without torchrun")
    if recipe.training.precision != "fp32":
        raise SettingError(f"a classifier is trained in fp32, not {recipe.training.precision}")
    return run(
        lambda: ClassifierLearner(recipe, pictures, device=device), recipe, folder, resume=resume, on_report=on_report
    )


class ClassifierLearner(PlainLearner):
    """A classifier's run in progress."""

    def __init__(self, recipe: Recipe, pictures: Pictures, *, device: str | None = None) -> None:
        self.pictures = pictures
        self.device = pick_device(device)
        self.bundle = new_classifier(recipe, pictures)
        self.classifier = self.bundle.classifier()
        net = self.bundle.net.to(self.device).train()
        chosen = recipe.optimizer
        optimizer = torch.optim.AdamW(
            net.parameters(), lr=chosen.lr, betas=chosen.betas, weight_decay=chosen.weight_decay
        )
        super().__init__(recipe, net, optimizer)

    def loss(self, step: int) -> Tensor:
        """The mean cross-entropy."""
        torch.manual_seed(step_seed(self.recipe, step, 0))  # dropout
        process = self.classifier.process
        seen = draw_examples(self.recipe, process.schedule, step, read_batch(self.recipe, self.pictures, step))
        if seen.labels is None:
            raise SettingError("a classifier is trained on labelled pictures")
        x = process.diffuse(seen.x0.to(self.device), seen.noise.to(self.device), seen.t)
        return F.cross_entropy(self.classifier.scores(x, seen.t).float(), seen.labels.to(self.device))

    def save(self, folder: Path) -> None:
        """Write the classifier, with the averaged weights.

        Raises:
            StorageError: the disk is full or refuses.
        """
        save_classifier(replace(self.bundle, net=self.ema.net), folder)

    def setting(self) -> dict[str, Any]:
        """What the course of a run depends on beside its recipe."""
        return setting_of(self.pictures, self.bundle.label_names)
