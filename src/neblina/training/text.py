"""Training a denoiser of latents that reads text, its text encoder with it, on latents that were encoded once.

Each picture is seen under a caption that is drawn anew; a share of them is hidden behind the empty one, which is what
guidance goes away from. Everything else is the training of any denoiser.

Rombach et al. High-Resolution Image Synthesis with Latent Diffusion Models. CVPR 2022, section 3.3.
Ho, Salimans. Classifier-Free Diffusion Guidance. 2022, algorithm 1.
"""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neblina.bundle.bundle import Bundle
from neblina.bundle.folder import save_bundle
from neblina.bundle.texts import Texts
from neblina.codecs.kl import KLCodec
from neblina.core.conditions import Condition
from neblina.data.captions import Caption, captions_of, draw_captions
from neblina.data.order import batch_numbers
from neblina.data.pictures import Pictures
from neblina.data.styles import style_of, unstyled
from neblina.training.build_text import new_text_model
from neblina.training.draft import drafted
from neblina.training.encoded import Encoded, OnRead, encoded, latent_size
from neblina.training.examples import Batch, Examples, noised, step_seed
from neblina.training.frozen import Reader
from neblina.training.joint import JointNetwork, cut_short, parted, reading, windows
from neblina.training.optimizers import SHARE
from neblina.training.recipe import Recipe
from neblina.training.run import OnReport, run
from neblina.training.trainer import Trainer

COLUMNS = 10  # prompts on a sample sheet where the recipe names none


def train_text(
    recipe: Recipe,
    pictures: Pictures,
    folder: Path,
    *,
    codec: KLCodec,
    reader: Reader | None = None,
    resume: bool = False,
    device: str | None = None,
    on_read: OnRead | None = None,
    on_report: OnReport | None = None,
) -> Path:
    """Train a denoiser of latents that reads text, or go on with training one.

    Args:
        codec: between pictures and latents.
        reader: of the captions, which stays as it is; None for a text encoder that is trained too.
        on_read: told how many pictures are encoded, of how many.
    Returns:
        The model's folder, which diffusers opens as a StableDiffusionPipeline.
    Raises:
        DataError: pictures without captions.
        SettingError, DivergenceError, StorageError, Interrupted: as `neblina.training.run.train`.
    """

    def build() -> Trainer:
        check_text(recipe, pictures, codec, reader)
        latents = encoded(pictures, codec, folder / "latents", on_read)
        texts = None
        if recipe.draft.images:
            captions = captions_of(unstyled(pictures))
            new = new_text_model(recipe, pictures, captions, codec, latent_size(pictures, codec)).text
            assert new is not None
            place = folder / "draft"
            texts = drafted(recipe, new, captions, latents, place, resume=resume, device=device, on_report=on_report)
        return TextTrainer(recipe, latents, codec, reader, texts, device=device)

    return run(build, recipe, folder, resume=resume, on_report=on_report)


def check_text(recipe: Recipe, pictures: Pictures, codec: KLCodec, reader: Reader | None) -> None:
    """Refuse what no denoiser that reads text can be trained of, before anything that takes long.

    Args:
        codec: with weights of any kind.
        reader: as of `train_text`.
    Raises:
        DataError: pictures without captions, or captions that there is nothing to learn from.
        SettingError: as `new_text_model`, or pictures that the codec does not read.
    """
    new_text_model(recipe, pictures, captions_of(unstyled(pictures)), codec, latent_size(pictures, codec), reader)


def digest_of(captions: list[Caption]) -> str:
    """What tells captions from others."""
    return hashlib.sha256(repr(captions).encode()).hexdigest()[:32]


class TextTrainer(Trainer):
    """A run in progress of a denoiser and its text encoder, or of a denoiser alone where that is another model's."""

    def __init__(
        self,
        recipe: Recipe,
        latents: Encoded,
        codec: KLCodec,
        reader: Reader | None = None,
        texts: Texts | None = None,
        *,
        device: str | None = None,
    ) -> None:
        self.latents, self.codec, self.reader, self.texts = latents, codec, reader, texts
        self.captions = captions_of(unstyled(latents.pictures))
        super().__init__(recipe, latents.pictures, device=device)
        self.prompts = recipe.text.prompts or tuple(one.name for one in self.captions[:COLUMNS])
        self.columns = len(self.prompts)
        self.notes = cut_short(self.tokenizer, [one.name for one in self.captions], self.window)

    def new_bundle(self) -> Bundle:
        """The untrained model, its network and its text encoder as one where both are trained."""
        height, width = self.latents.latents.shape[-2:]
        size = (height, width)
        bundle = new_text_model(
            self.recipe, self.pictures, self.captions, self.codec, size, self.reader, drafted=self.texts
        )
        assert bundle.text is not None
        (encoder,) = bundle.text.encoders.values()
        self.tokenizer, self.window = encoder.tokenizer, encoder.window
        self.empty = self.read([""])[0]
        return bundle

    def trained(self) -> list[dict[str, Any]]:
        """The network, and its text encoder at a learning rate of its own."""
        joint = self.bundle.net
        if not isinstance(joint, JointNetwork):
            return super().trained()
        own = {"params": list(joint.encoder.parameters()), SHARE: self.recipe.text.pace}
        return [{"params": list(joint.net.parameters())}, own]

    def read(self, texts: list[str]) -> Tensor:
        """What the network that is trained reads of texts: tokens, or the vectors of an encoder that is not trained."""
        return windows(self.tokenizer, texts, self.window) if self.reader is None else self.reader.read(texts)

    def save(self, folder: Path) -> None:
        """Write the model, with the averaged weights.

        Raises:
            StorageError: the disk is full or refuses.
        """
        own = replace(self.bundle, net=self.ema.net)
        save_bundle(own if self.reader is not None else parted(self.bundle, self.ema.net), folder)

    def shown(self, count: int) -> Condition:
        """The prompts of a sample sheet, a column each."""
        texts = self.read([self.prompts[number % self.columns] for number in range(count)])
        return reading(texts, self.empty)

    def _setting(self) -> dict[str, Any]:
        own = {} if self.reader is None else {"the text encoder": self.reader.digest}
        return {**super()._setting(), "latents": self.latents.digest, "captions": digest_of(self.captions), **own}

    def _read(self, step: int) -> Batch:
        """Latents, and a caption of each as it is read."""
        share = self.recipe.training.batch // self.accelerator.num_processes
        first = step * self.recipe.training.batch + self.process * share
        numbers = batch_numbers(self.recipe.training.seed, len(self.pictures), first, share)
        generator = np.random.Generator(np.random.Philox(key=step_seed(self.recipe, step, self.process)))
        captions = [self.captions[number % len(self.captions)] for number in numbers]
        styles = [style_of(self.pictures, number) for number in numbers]
        texts = draw_captions(captions, styles, self.recipe.training.label_dropout, generator)
        return self.latents.read(numbers), self.read(texts)

    def _draw(self, step: int, batch: Batch) -> Examples:
        latents, text = batch
        generator = torch.Generator().manual_seed(step_seed(self.recipe, step, self.process))
        seen = noised(self.recipe, self.bundle.schedule, latents, None, generator, self.importance)
        return replace(seen, text=text)
