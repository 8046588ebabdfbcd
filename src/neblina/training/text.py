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

from neblina.bundle.bundle import Bundle
from neblina.bundle.folder import save_bundle
from neblina.codecs.kl import KLCodec
from neblina.core.conditions import Condition
from neblina.data.captions import Caption, captions_of
from neblina.data.order import batch_numbers
from neblina.data.pictures import Pictures
from neblina.data.styles import PLAIN, Styled, unstyled
from neblina.training.build_text import new_text_model
from neblina.training.encoded import Encoded, OnRead, encoded, latent_size
from neblina.training.examples import Batch, Examples, noised, step_seed
from neblina.training.joint import parted, reading, windows
from neblina.training.recipe import Recipe
from neblina.training.run import OnReport, run
from neblina.training.trainer import Trainer

_COLUMNS = 10  # prompts on a sample sheet where the recipe names none


def train_text(
    recipe: Recipe,
    pictures: Pictures,
    folder: Path,
    *,
    codec: KLCodec,
    resume: bool = False,
    device: str | None = None,
    on_read: OnRead | None = None,
    on_report: OnReport | None = None,
) -> Path:
    """Train a denoiser of latents that reads text, or go on with training one.

    Args:
        codec: between pictures and latents.
        on_read: told how many pictures are encoded, of how many.
    Returns:
        The model's folder, which diffusers opens as a StableDiffusionPipeline.
    Raises:
        DataError: pictures without captions.
        SettingError, DivergenceError, StorageError, Interrupted: as `neblina.training.run.train`.
    """

    def build() -> Trainer:
        check_text(recipe, pictures, codec)
        latents = encoded(pictures, codec, folder / "latents", on_read)
        return TextTrainer(recipe, latents, codec, device=device)

    return run(build, recipe, folder, resume=resume, on_report=on_report)


def check_text(recipe: Recipe, pictures: Pictures, codec: KLCodec) -> None:
    """Refuse what no denoiser that reads text can be trained of, before anything that takes long.

    Args:
        codec: with weights of any kind.
    Raises:
        DataError: pictures without captions, or captions that there is nothing to learn from.
        SettingError: as `new_text_model`, or pictures that the codec does not read.
    """
    new_text_model(recipe, pictures, captions_of(unstyled(pictures)), codec, latent_size(pictures, codec))


def digest_of(captions: list[Caption]) -> str:
    """What tells captions from others."""
    return hashlib.sha256(repr(captions).encode()).hexdigest()[:32]


class TextTrainer(Trainer):
    """A run in progress of a denoiser and its text encoder."""

    def __init__(self, recipe: Recipe, latents: Encoded, codec: KLCodec, *, device: str | None = None) -> None:
        self.latents, self.codec = latents, codec
        self.captions = captions_of(unstyled(latents.pictures))
        super().__init__(recipe, latents.pictures, device=device)
        self.prompts = recipe.text.prompts or tuple(one.name for one in self.captions[:_COLUMNS])
        self.columns = len(self.prompts)

    def new_bundle(self) -> Bundle:
        """The untrained model, its network and its text encoder as one."""
        height, width = self.latents.latents.shape[-2:]
        bundle = new_text_model(self.recipe, self.pictures, self.captions, self.codec, (height, width))
        assert bundle.text is not None
        (encoder,) = bundle.text.encoders.values()
        self.tokenizer, self.window = encoder.tokenizer, encoder.window
        self.empty = windows(self.tokenizer, [""], self.window)[0]
        return bundle

    def save(self, folder: Path) -> None:
        """Write the model, with the averaged weights.

        Raises:
            StorageError: the disk is full or refuses.
        """
        save_bundle(parted(self.bundle, self.ema.net), folder)

    def shown(self, count: int) -> Condition:
        """The prompts of a sample sheet, a column each."""
        tokens = windows(self.tokenizer, list(self.prompts), self.window)
        return reading(tokens.repeat(-(-count // len(tokens)), 1)[:count], self.empty)

    def _setting(self) -> dict[str, Any]:
        return {**super()._setting(), "latents": self.latents.digest, "captions": digest_of(self.captions)}

    def _read(self, step: int) -> Batch:
        """Latents, and a caption of each as tokens."""
        share = self.recipe.training.batch // self.accelerator.num_processes
        first = step * self.recipe.training.batch + self.process * share
        numbers = batch_numbers(self.recipe.training.seed, len(self.pictures), first, share)
        generator = np.random.Generator(np.random.Philox(key=step_seed(self.recipe, step, self.process)))
        texts = [self._caption(number, generator) for number in numbers]
        return self.latents.read(numbers), windows(self.tokenizer, texts, self.window)

    def _caption(self, number: int, generator: np.random.Generator) -> str:
        style = self.pictures.style(number) if isinstance(self.pictures, Styled) else PLAIN
        caption = self.captions[number % len(self.captions)].draw(generator, style)
        return "" if generator.random() < self.recipe.training.label_dropout else caption

    def _draw(self, step: int, batch: Batch) -> Examples:
        latents, tokens = batch
        generator = torch.Generator().manual_seed(step_seed(self.recipe, step, self.process))
        seen = noised(self.recipe, self.bundle.schedule, latents, None, generator, self.importance)
        return replace(seen, text=tokens)
