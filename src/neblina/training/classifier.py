"""Training a classifier of noisy pictures: cross-entropy at the times and with the noise that a denoiser is trained at.

    L = E_{t, ε} −log p_φ(y | α_t x_0 + σ_t ε)

The loop is smaller than a denoiser's: one process, no previews. It stops and goes on as that one does: everything
random in a step is a function of (seed, step), and a checkpoint holds weights, average, optimiser and the losses since
the last log line.

Dhariwal, Nichol. Diffusion Models Beat GANs on Image Synthesis. NeurIPS 2021, section 4.
"""

from collections.abc import Callable
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
from neblina.training.checkpoint import drop_after, newest_checkpoint, save_checkpoint
from neblina.training.ema import Ema
from neblina.training.examples import draw_examples, read_batch, step_seed
from neblina.training.journal import open_journal
from neblina.training.recipe import Objective, Recipe, Sampling
from neblina.training.run import OnReport, Report, interrupted, interruptible
from neblina.training.same import check_same_run, refuse_second_run, setting_of
from neblina.training.trainer import diverged, learning_rate

# settings that a denoiser's recipe has and a classifier does not look at
_UNUSED = {
    "objective": tuple(Objective.model_fields),
    "process": ("parameterisation", "clock"),
    "training": ("snapshots_every",),
    "sampling": tuple(Sampling.model_fields),
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
    _check_unused(recipe)
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
    training, steps, checkpoints = recipe.training, recipe.steps, folder / "checkpoints"
    if training.precision != "fp32":
        raise SettingError(f"a classifier is trained in fp32, not {training.precision}")
    refuse_second_run(folder, checkpoints, resume=resume)
    tell: Callable[[Report], None] = on_report or (lambda report: None)
    place = pick_device(device)
    bundle = new_classifier(recipe, pictures)
    net = bundle.net.to(place).train()
    ema = Ema(net, training.ema)
    chosen = recipe.optimizer
    optimizer = torch.optim.AdamW(net.parameters(), lr=chosen.lr, betas=chosen.betas, weight_decay=chosen.weight_decay)
    classifier = bundle.classifier()
    setting = setting_of(pictures, bundle.label_names)
    first, losses = _restored(recipe, setting, checkpoints, net, ema, optimizer, tell) if resume else (0, [])
    drop_after(checkpoints, first)
    journal = open_journal(folder, recipe, first)
    with interruptible() as stop:
        for step in range(first, steps):
            loss = _loss(recipe, pictures, classifier, step, place)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            norm = torch.nn.utils.clip_grad_norm_(net.parameters(), chosen.clip)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, step)
            losses.append(float(loss.detach()))
            if not bool(norm.isfinite()):
                raise diverged(recipe, step + 1)
            optimizer.step()
            done = step + 1
            ema.update(net, done)
            report = Report(done, steps, done * training.batch)
            if done % training.log_every == 0 or done == steps:
                mean = sum(losses) / len(losses)
                journal.write({"step": done, "images": report.images, "loss": mean}, {"step": done})
                report, losses = Report(done, steps, report.images, loss=mean), []
            stopping = stop.is_set() and done < steps
            if done % training.checkpoint_every == 0 or done == steps or stopping:
                save_checkpoint(
                    checkpoints,
                    done,
                    net=net,
                    ema=ema.net,
                    optimizer=optimizer,
                    state={},
                    progress={"recipe": recipe.model_dump(mode="json"), "setting": setting, "losses": losses},
                    keep=training.keep,
                )
            tell(report)
            if stopping:
                raise interrupted(done, steps)
    model = folder / "model"
    save_classifier(ClassifierBundle(ema.net, bundle.schedule, bundle.label_names, bundle.card), model)
    return model


def _check_unused(recipe: Recipe) -> None:
    """Refuse settings that would change nothing.

    Raises:
        SettingError: naming all of them.
    """
    plain = Recipe()
    given = [
        f"{section}.{name}"
        for section, names in _UNUSED.items()
        for name in names
        if getattr(getattr(recipe, section), name) != getattr(getattr(plain, section), name)
    ]
    if recipe.training.sample_every not in (0, plain.training.sample_every):
        given.append("training.sample_every")
    if given:
        means = "means" if len(given) == 1 else "mean"
        raise SettingError(f"{', '.join(given)} {means} nothing to a classifier; leave it out of its recipe")


def _restored(
    recipe: Recipe,
    setting: dict[str, Any],
    checkpoints: Path,
    net: Encoder,
    ema: Ema[Encoder],
    optimizer: torch.optim.Optimizer,
    tell: Callable[[Report], None],
) -> tuple[int, list[float]]:
    """Go back to the newest whole checkpoint, if there is one: the steps done, and the losses not yet logged."""
    checkpoint, passed = newest_checkpoint(checkpoints)
    for sentence in passed:
        tell(Report(0, recipe.steps, 0, note=f"{sentence}; going on from the one before, which is whole"))
    if checkpoint is None:
        return 0, []
    check_same_run(checkpoint, recipe, setting)
    net.load_state_dict(checkpoint.net)
    ema.net.load_state_dict(checkpoint.ema)
    optimizer.load_state_dict(checkpoint.optimizer)
    return checkpoint.step, list(checkpoint.progress["losses"])


def _loss(recipe: Recipe, pictures: Pictures, classifier: NetworkClassifier, step: int, place: torch.device) -> Tensor:
    """The mean cross-entropy of step number `step`, counted from 0."""
    torch.manual_seed(step_seed(recipe, step, 0))  # dropout
    seen = draw_examples(recipe, classifier.process.schedule, step, read_batch(recipe, pictures, step))
    if seen.labels is None:
        raise SettingError("a classifier is trained on labelled pictures")
    x = classifier.process.diffuse(seen.x0.to(place), seen.noise.to(place), seen.t)
    return F.cross_entropy(classifier.scores(x, seen.t).float(), seen.labels.to(place))
