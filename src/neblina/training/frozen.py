"""A trained model's text encoder, which reads captions for the training of another model and stays as it is."""

from dataclasses import dataclass

from torch import Tensor

from neblina.bundle.codec import weights_digest
from neblina.bundle.components import Opening
from neblina.bundle.index import read_index
from neblina.bundle.sources import resolve
from neblina.bundle.texts import Texts, read_texts
from neblina.core.errors import SettingError
from neblina.encoders.families import STABLE_DIFFUSION
from neblina.encoders.text import TextEncoder
from neblina.training.joint import windows


@dataclass(frozen=True)
class Reader:
    """Reads captions as the model did that its text encoder was trained in.

    Attributes:
        texts: the text encoder, as a part of a model.
    """

    texts: Texts

    @property
    def encoder(self) -> TextEncoder:
        (encoder,) = self.texts.encoders.values()
        return encoder

    @property
    def digest(self) -> str:
        """Of its weights."""
        return weights_digest(self.encoder.net)

    def read(self, captions: list[str]) -> Tensor:
        """A vector for every token of a window, shape (B, L, D); the ends of longer captions are left out."""
        return self.encoder.read(windows(self.encoder.tokenizer, captions, self.encoder.window)).last


def open_reader(model: str) -> Reader:
    """The text encoder of a trained model.

    Args:
        model: its folder, or its name in this package.
    Raises:
        CheckpointError: it is not there, or cannot be read.
        SettingError: it has no text encoder, or others than one that is read to its last layer.
    """
    folder = resolve(model)
    index, pipeline = read_index(folder)
    texts = read_texts(folder, pipeline, index, Opening())
    if texts is None:
        raise SettingError(f"{model} reads no text: name a model that does, such as one of the recipe emoji")
    if texts.family != STABLE_DIFFUSION:
        raise SettingError(
            f"{model} is a {pipeline.name}, which reads text through more than the last layer of one encoder: name a "
            "model with Stable Diffusion's way of reading"
        )
    return Reader(texts)
