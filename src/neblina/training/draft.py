"""Before the denoiser: a text encoder learns to draft a picture's latents from its caption.

A random text encoder tells a denoiser nothing, and the denoiser's gradient teaches it slowly: of a step's times only
those of much noise depend on words. A draft asks it directly. The latents A are cut into P × P patches, and the last
P² tokens h of the window say one each, by one linear map that is thrown away afterwards,

    L = E ‖ W h_{L − P² + p} + b − A_p ‖²,        p = 1 … P²,

so that what the denoiser attends to is where in the picture something is, and what. No noise and no U-Net: a caption
costs a ninth of what it does in a step of the denoiser (the recipe emoji).

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
from neblina.encoders.tokens import load_tokenizer
from neblina.training.checkpoint import newest_checkpoint
from neblina.training.encoded import Encoded
from neblina.training.examples import step_seed
from neblina.training.joint import windows
from neblina.training.optimizers import SHARE, new_optimizer
from neblina.training.plain import PlainLearner
from neblina.training.recipe import Recipe, Text, Training
from neblina.training.run import OnReport, run
from neblina.training.same import setting_of


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
    first, model = _stage(recipe), folder / "model"

    def build() -> Draft:
        return Draft(first, texts, captions, latents, device=device)

    if world_size() == 1:
        run(build, first, folder, resume=resume, on_report=on_report)
    else:
        checkpoint, _ = newest_checkpoint(folder / "checkpoints") if resume else (None, [])
        if checkpoint is None or checkpoint.step < first.steps or not model.exists():
            raise SettingError(
                "a text encoder drafts in one process (draft.images): start it without torchrun, stop it after that "
                "stage and go on with torchrun and --resume, or set draft.images to 0"
            )
        build().begin(checkpoint)  # which refuses another run's
    encoders = {
        name: read_text_encoder(model / name, load_tokenizer(model / words), Opening())
        for name, words in texts.tokenizers.items()
    }
    return replace(texts, encoders=encoders)


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


class Draft(PlainLearner):
    """A draft in progress: the text encoder and the map from its tokens to patches."""

    net: nn.ModuleDict

    def __init__(
        self,
        recipe: Recipe,
        texts: Texts,
        captions: list[Caption],
        latents: Encoded,
        *,
        device: str | None = None,
    ) -> None:
        self.texts, self.captions, self.latents = texts, captions, latents
        ((self.name, self.encoder),) = texts.encoders.items()
        self.device = pick_device(device)
        self.patches = recipe.draft.patches
        torch.manual_seed(recipe.training.seed % 2**63)
        told = nn.Linear(self.encoder.width, latents.latents[0].numel() // self.patches**2)
        nn.init.zeros_(told.weight)
        with torch.no_grad():  # the mean of all patches, until the words say something
            told.bias.copy_(cut(latents.latents.mean(0, keepdim=True), self.patches).mean((0, 1)))
        net = nn.ModuleDict({"encoder": self.encoder.net.requires_grad_(True), "told": told}).to(self.device).train()
        words = [value for name, value in net.named_parameters() if "token_embedding" in name]
        others = [value for name, value in net.named_parameters() if "token_embedding" not in name]
        groups: list[dict[str, Any]] = [{"params": others}, {"params": words, SHARE: recipe.draft.words}]
        super().__init__(recipe, net, new_optimizer(recipe, groups))

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

    def save(self, folder: Path) -> None:
        """Write the text encoder with the averaged weights, and its tokenizer.

        Raises:
            StorageError: the disk is full or refuses.
        """
        encoders = {self.name: replace(self.encoder, net=self.ema.net["encoder"])}
        with new_folder(folder) as aside:
            replace(self.texts, encoders=encoders).save(aside)

    def setting(self) -> dict[str, Any]:
        """What the course of a run depends on beside its recipe."""
        return {**setting_of(self.latents.pictures, ()), "latents": self.latents.digest}


def cut(latents: Tensor, patches: int) -> Tensor:
    """Latents (B, C, h, w) as P × P patches, row by row, shape (B, P², C · h/P · w/P)."""
    batch, channels, height, width = latents.shape
    cells = latents.reshape(batch, channels, patches, height // patches, patches, width // patches)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(batch, patches**2, -1)
