"""Before the denoiser: a text encoder learns to draft a picture's latents from its caption.

A random text encoder tells a denoiser nothing, and the denoiser's gradient teaches it slowly: of a step's times only
those of much noise depend on words. A draft asks it directly. The latents A are cut into P × P patches, and the last
P² tokens h of the window say one each, by one linear map that is thrown away afterwards,

    L = E ‖ W h_{L − P² + p} + b − A_p ‖²,        p = 1 … P²,

so that what the denoiser attends to is where in the picture something is, and what. No noise and no U-Net: a caption
costs a sixth of what a step of the denoiser costs.

The regression of Desai, Johnson. VirTex: Learning Visual Representations from Textual Annotations. CVPR 2021, turned
around: the captions are given, and the picture is told.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neblina.bundle.components import Opening
from neblina.bundle.texts import Texts, read_text_encoder
from neblina.core.atomic import new_folder
from neblina.core.devices import pick_device
from neblina.core.errors import SettingError
from neblina.core.launch import world_size
from neblina.data.captions import Caption, draw_captions
from neblina.data.order import batch_numbers
from neblina.data.styles import style_of
from neblina.encoders.text import TextEncoder
from neblina.encoders.tokens import load_tokenizer
from neblina.training.checkpoint import Checkpoint
from neblina.training.ema import Ema
from neblina.training.encoded import Encoded
from neblina.training.examples import step_seed
from neblina.training.joint import windows
from neblina.training.learner import Learner, Stored
from neblina.training.optimizers import SHARE, diverged, new_optimizer, pace
from neblina.training.recipe import Recipe, Text, Training
from neblina.training.run import OnReport, run
from neblina.training.same import check_same_run, setting_of

_PARTS = ("text_encoder", "tokenizer")


def check_draft(recipe: Recipe, size: tuple[int, int]) -> None:
    """Refuse a draft that does not fit.

    Args:
        size: (height, width) of the latents.
    Raises:
        SettingError: patches that do not divide the latents, or a window too short to say them all.
    """
    patches = recipe.draft.patches
    if any(side % patches for side in size):
        raise SettingError(f"draft.patches {patches} does not divide latents of {size[1]}x{size[0]}: choose a divisor")
    if recipe.text.window <= patches**2:
        raise SettingError(
            f"a draft of {patches}x{patches} patches takes {patches**2} tokens, and text.window has "
            f"{recipe.text.window}: raise it, or lower draft.patches"
        )


def drafted(
    recipe: Recipe,
    texts: Texts,
    captions: list[Caption],
    latents: Encoded,
    folder: Path,
    *,
    resume: bool,
    device: str | None,
    on_report: OnReport | None,
) -> Texts:
    """The text encoder after its draft, trained in `folder` where it was not yet.

    Raises:
        SettingError: several processes, or another run in the folder.
        DivergenceError, StorageError, Interrupted: as `neblina.training.run.train`.
    """
    if world_size() > 1:
        raise SettingError(
            "a text encoder drafts in one process (draft.images): start it without torchrun, stop it after that stage "
            "and go on with torchrun and --resume, or set draft.images to 0"
        )
    first = _stage(recipe)
    (encoder,) = texts.encoders.values()
    learner = run(
        lambda: Draft(first, encoder, captions, latents, device=device),
        first,
        folder,
        resume=resume,
        on_report=on_report,
    )
    name, words = _PARTS
    tokenizer = load_tokenizer(learner / words)
    return replace(texts, encoders={name: read_text_encoder(learner / name, tokenizer, Opening())})


def _stage(recipe: Recipe) -> Recipe:
    """The recipe of the draft: what it depends on, so that a change of the denoiser leaves it as it is."""
    own, training = recipe.draft, recipe.training
    return Recipe(
        name=f"{recipe.name}-draft",
        data=recipe.data,
        latents=recipe.latents,
        text=recipe.text.model_copy(update={"pace": Text().pace, "prompts": ()}),
        draft=own,
        optimizer=recipe.optimizer.model_copy(update={"lr": own.lr}),
        training=Training(
            images=own.images,
            batch=own.batch,
            seed=training.seed,
            ema=training.ema,
            log_every=training.log_every,
            sample_every=0,
            checkpoint_every=training.checkpoint_every,
            keep=training.keep,
        ),
    )


class Draft(Learner):
    """A draft in progress: the text encoder and the map from its tokens to patches."""

    def __init__(
        self,
        recipe: Recipe,
        encoder: TextEncoder,
        captions: list[Caption],
        latents: Encoded,
        *,
        device: str | None = None,
    ) -> None:
        self.recipe, self.encoder, self.captions, self.latents = recipe, encoder, captions, latents
        self.device = pick_device(device)
        self.patches = recipe.draft.patches
        torch.manual_seed(recipe.training.seed % 2**63)
        size = latents.latents[0].numel() // self.patches**2
        told = nn.Linear(encoder.width, size)
        nn.init.zeros_(told.weight)
        with torch.no_grad():  # the mean picture, until the words say something
            told.bias.copy_(cut(latents.latents.mean(0, keepdim=True), self.patches).mean((0, 1)))
        self.net = nn.ModuleDict({"encoder": encoder.net.requires_grad_(True), "told": told}).to(self.device).train()
        self.ema = Ema(self.net, recipe.training.ema)
        words = [value for name, value in self.net.named_parameters() if "token_embedding" in name]
        others = [value for name, value in self.net.named_parameters() if "token_embedding" not in name]
        groups: list[dict[str, Any]] = [{"params": others}, {"params": words, SHARE: recipe.draft.words}]
        self.optimizer = new_optimizer(recipe, groups)
        self.losses: list[float] = []

    def said(self, net: nn.ModuleDict, texts: list[str]) -> Tensor:
        """The patches that texts are drafted as, shape (B, P², C·h·w / P²)."""
        tokens = windows(self.encoder.tokenizer, texts, self.encoder.window).to(self.device)
        vectors = self.encoder.architecture.read(net["encoder"], tokens).last
        patches: Tensor = net["told"](vectors[:, -(self.patches**2) :])
        return patches

    def loss(self, step: int) -> Tensor:
        """The mean squared error of step number `step`, counted from 0."""
        training, pictures = self.recipe.training, self.latents.pictures
        numbers = batch_numbers(training.seed, len(pictures), step * training.batch, training.batch)
        generator = np.random.Generator(np.random.Philox(key=step_seed(self.recipe, step, 0)))
        captions = [self.captions[number % len(self.captions)] for number in numbers]
        texts = draw_captions(captions, [style_of(pictures, number) for number in numbers], 0.0, generator)
        wanted = cut(self.latents.read(numbers), self.patches).to(self.device)
        return (self.said(self.net, texts) - wanted).square().mean()

    def advance(self) -> None:
        """One optimiser step.

        Raises:
            DivergenceError: its gradient is not finite.
        """
        loss = self.loss(self.step)
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
        """Write the text encoder with the averaged weights, and its tokenizer.

        Raises:
            StorageError: the disk is full or refuses.
        """
        name, words = _PARTS
        with new_folder(folder) as aside:
            replace(self.encoder, net=self.ema.net["encoder"]).save(aside / name, aside / words)

    def _setting(self) -> dict[str, Any]:
        """What else the course of a run depends on."""
        return {**setting_of(self.latents.pictures, ()), "latents": self.latents.digest}


def cut(latents: Tensor, patches: int) -> Tensor:
    """Latents (B, C, h, w) as P × P patches, row by row, shape (B, P², C · h/P · w/P)."""
    batch, channels, height, width = latents.shape
    cells = latents.reshape(batch, channels, patches, height // patches, patches, width // patches)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(batch, patches**2, -1)
