"""What a picture is believed to become, saved while it is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch

from neblina.core.atomic import write_file
from neblina.data.pictures import to_uint8
from neblina.data.sheets import to_image
from neblina.samplers.drive import Step
from neblina.tasks.model import Model


@dataclass
class Preview:
    """Saves the belief about the first picture, every so many answers; the file goes when the work ends.

    Attributes:
        model: whose codec decodes it.
        place: the file.
        every: answers between two previews, 0 for none.
        answers: how many there were.
        written: whether there is a preview to take away.
    """

    model: Model
    place: Path
    every: int
    answers: int = 0
    written: bool = False

    def __call__(self, step: Step) -> None:
        """Look at an answer."""
        self.answers += 1
        if self.every < 1 or self.answers % self.every:
            return
        with torch.no_grad():
            pictures = self.model.bundle.codec.preview(step.posterior.mean[:1].float())
        write_file(self.place, to_image(to_uint8(pictures[0])).save)
        self.written = True

    def __enter__(self) -> Preview:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.written:
            self.place.unlink(missing_ok=True)
