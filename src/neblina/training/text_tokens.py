"""Training a model of the codes of captioned pictures: VQ-Diffusion, of words that a trained text encoder reads.

The text encoder is another model's and stays as it is. A caption is drawn anew whenever a picture is seen; a share of
them is hidden behind the empty one, which is what guidance goes away from.

Gu et al. Vector Quantized Diffusion Model for Text-to-Image Synthesis. CVPR 2022, section 4.
Ho, Salimans. Classifier-Free Diffusion Guidance. 2022, algorithm 1.
"""

from pathlib import Path

import numpy as np
import torch

from neblina.bundle.tokens import TokenBundle, unit
from neblina.core.conditions import Condition
from neblina.data.captions import captions_of, draw_captions
from neblina.data.pictures import Pictures
from neblina.data.styles import PLAIN
from neblina.data.tokens import Rows
from neblina.training.build_tokens import TokenCodec, new_text_token_model
from neblina.training.examples import step_seed
from neblina.training.frozen import Reader
from neblina.training.joint import cut_short
from neblina.training.recipe import Recipe
from neblina.training.run import OnReport, run
from neblina.training.text import COLUMNS, digest_of
from neblina.training.tokens import TokenLearner, check_alone


def train_text_tokens(
    recipe: Recipe,
    pictures: Pictures,
    rows: Rows,
    folder: Path,
    *,
    codec: TokenCodec,
    reader: Reader,
    held: tuple[Pictures, Rows] | None = None,
    resume: bool = False,
    device: str | None = None,
    on_report: OnReport | None = None,
) -> Path:
    """Train a model of codes that reads text, or go on with training one.

    Args:
        pictures: captioned.
        rows: their codes.
        codec: that made them.
        reader: of the captions.
        held: pictures kept out of training, and their codes, on which the likelihood is measured; None for none.
        folder, resume, device, on_report: as in `training.run.train`.
    Returns:
        The model's folder, of the layout of diffusers' VQDiffusionPipeline.
    Raises:
        DataError: pictures without captions.
        SettingError, DivergenceError, StorageError, Interrupted: as `training.tokens.train_tokens`.
    """
    check_alone(recipe)
    return run(
        lambda: TextTokenLearner(recipe, pictures, rows, codec, reader, held, device=device),
        recipe,
        folder,
        resume=resume,
        on_report=on_report,
    )


class TextTokenLearner(TokenLearner):
    """A run in progress of a model of codes that reads text."""

    def __init__(
        self,
        recipe: Recipe,
        pictures: Pictures,
        rows: Rows,
        codec: TokenCodec,
        reader: Reader,
        held: tuple[Pictures, Rows] | None = None,
        *,
        device: str | None = None,
    ) -> None:
        self.reader = reader
        self.captions = captions_of(pictures)
        self.of_held = self.captions if held is None else captions_of(held[0])
        super().__init__(recipe, rows, codec, None if held is None else held[1], device=device)
        reader.encoder.net.to(self.device)
        self.prompts = recipe.text.prompts or tuple(one.name for one in self.captions[:COLUMNS])
        self.columns = len(self.prompts)
        encoder = reader.encoder
        self.notes = cut_short(encoder.tokenizer, [one.name for one in self.captions], encoder.window)

    def new_bundle(self, codec: TokenCodec | None) -> TokenBundle:
        """The untrained model, and the text encoder that is trained already."""
        return new_text_token_model(self.recipe, self.rows, codec, self.reader)

    def drawn(self, numbers: list[int]) -> list[str]:
        """The captions of this step."""
        generator = np.random.Generator(np.random.Philox(key=step_seed(self.recipe, self.step, 0)))
        captions = [self.captions[number] for number in numbers]
        return draw_captions(captions, [PLAIN] * len(captions), self.recipe.training.label_dropout, generator)

    def condition(self, numbers: list[int], generator: torch.Generator) -> Condition:
        """The captions of this step, read."""
        return self._read(self.drawn(numbers))

    def said(self, numbers: list[int]) -> Condition:
        """The names of pictures."""
        return self._read([self.of_held[number].name for number in numbers])

    def shown(self, count: int) -> Condition:
        """The prompts of a sample sheet, a column each, and what guidance goes away from."""
        prompts = [self.prompts[number % self.columns] for number in range(count)]
        return Condition(text=self._read(prompts).text, unsaid=self._read([""] * count))

    def _read(self, texts: list[str]) -> Condition:
        return Condition(text=unit(self.reader.read(texts)))

    def _setting(self) -> dict[str, object]:
        own = {"captions": digest_of(self.captions), "the text encoder": self.reader.digest}
        return {**super()._setting(), **own}
