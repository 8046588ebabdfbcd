"""Training a classifier of noisy pictures: cross-entropy at the times and with the noise that a denoiser is trained at.

    L = E_{t, ε} −log p_φ(y | α_t x_0 + σ_t ε)

The loop is the denoiser's, with one process and nothing to see on the way: everything random in a step is a function of
(seed, step), and a checkpoint holds weights, average, optimiser and the losses since the last log line.

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
from neblina.denoisers.classifier import NetworkClassifier
from neblina.nets.encoder import Encoder, EncoderConfig
from neblina.processes.schedules import make_schedule
from neblina.training.checkpoint import Checkpoint
from neblina.training.ema import Ema
from neblina.training.examples import draw_examples, read_batch, step_seed
from neblina.training.learner import Learner, Stored
from neblina.training.optimizers import diverged, pace
from neblina.training.recipe import Recipe, Training
from neblina.training.run import OnReport, run
from neblina.training.same import check_same_run, setting_of
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


class ClassifierLearner(Learner):
    """A classifier's run in progress: one process, nothing to see on the way."""

    def __init__(self, recipe: Recipe, pictures: Pictures, *, device: str | None = None) -> None:
        self.recipe = recipe
        self.pictures = pictures
        self.device = pick_device(device)
        self.bundle = new_classifier(recipe, pictures)
        self.net = self.bundle.net.to(self.device).train()
        self.ema = Ema(self.net, recipe.training.ema)
        chosen = recipe.optimizer
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), lr=chosen.lr, betas=chosen.betas, weight_decay=chosen.weight_decay
        )
        self.classifier = self.bundle.classifier()
        self.losses: list[float] = []

    def advance(self) -> None:
        """One optimiser step.

        Raises:
            DivergenceError: its gradient is not finite.
        """
        loss = _loss(self.recipe, self.pictures, self.classifier, self.step, self.device)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.optimizer.clip)
        pace(self.optimizer, self.recipe, self.step)
        self.losses.append(float(loss.detach()))
        self.step += 1
        if not bool(norm.isfinite()):
            raise diverged(self.recipe, self.step)
        self.optimizer.step()
        self.ema.update(self.net, self.step)

    def figures(self) -> dict[str, float]:
        """The mean loss of the steps since the last call."""
        mean = sum(self.losses) / len(self.losses)
        self.losses = []
        return {"loss": mean}

    def stored(self) -> Stored:
        """Its state, for a checkpoint."""
        progress = {"recipe": self.recipe.model_dump(mode="json"), "setting": self._setting(), "losses": self.losses}
        return Stored(self.net, self.ema.net, self.optimizer, progress)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to where a checkpoint was made.

        Raises:
            SettingError: it is of another run; every difference is named.
        """
        check_same_run(checkpoint, self.recipe, self._setting())
        self.net.load_state_dict(checkpoint.net)
        self.ema.net.load_state_dict(checkpoint.ema)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.step, self.losses = checkpoint.step, list(checkpoint.progress["losses"])

    def save(self, folder: Path) -> None:
        """Write the classifier, with the averaged weights.

        Raises:
            StorageError: the disk is full or refuses.
        """
        save_classifier(replace(self.bundle, net=self.ema.net), folder)

    def _setting(self) -> dict[str, Any]:
        """What else the course of a run depends on."""
        return setting_of(self.pictures, self.bundle.label_names)


def _loss(recipe: Recipe, pictures: Pictures, classifier: NetworkClassifier, step: int, place: torch.device) -> Tensor:
    """The mean cross-entropy of step number `step`, counted from 0."""
    torch.manual_seed(step_seed(recipe, step, 0))  # dropout
    seen = draw_examples(recipe, classifier.process.schedule, step, read_batch(recipe, pictures, step))
    if seen.labels is None:
        raise SettingError("a classifier is trained on labelled pictures")
    x = classifier.process.diffuse(seen.x0.to(place), seen.noise.to(place), seen.t)
    return F.cross_entropy(classifier.scores(x, seen.t).float(), seen.labels.to(place))
