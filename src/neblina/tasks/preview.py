"""What a picture is believed to become, saved while it is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from PIL import Image
from torch import Tensor

from neblina.core.atomic import write_file
from neblina.data.pictures import to_uint8
from neblina.data.sheets import to_image
from neblina.samplers.drive import Step
from neblina.tasks.keeping import names
from neblina.tasks.model import Model


def believed(model: Model, mean: Tensor) -> Image.Image:
    """The picture that a belief, of shape (1, C, h, w), stands for, at the low cost of the codec's preview."""
    with torch.no_grad():
        pictures = model.bundle.codec.preview(mean.float())
    return to_image(to_uint8(pictures[0]))


@dataclass
class Preview:
    """Saves the belief about the first picture, every so many answers; the file goes when the work ends.

    Attributes:
        model: whose codec decodes it.
        place: the file; where one is there already, the same with -2 or on behind its name.
        every: answers between two previews, 0 for none.
        answers: how many there were.
        written: the file that is to be taken away, None before the first preview.
    """

    model: Model
    place: Path
    every: int
    answers: int = 0
    written: Path | None = None

    def __call__(self, step: Step) -> None:
        """Look at an answer."""
        self.answers += 1
        if self.every < 1 or self.answers % self.every:
            return
        if self.written is None:
            self.written = next(place for place in names(self.place) if not place.exists())
        write_file(self.written, believed(self.model, step.posterior.guess[:1]).save)

    def __enter__(self) -> Preview:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.written is not None:
            self.written.unlink(missing_ok=True)
