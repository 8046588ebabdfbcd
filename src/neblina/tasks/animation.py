"""How a picture came out of the noise, as a moving picture: what it was believed to become after every answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from torch import Tensor

from neblina.core.atomic import write_file
from neblina.core.errors import SettingError
from neblina.data.sheets import enlarged, to_image
from neblina.samplers.drive import Step
from neblina.tasks.keeping import names
from neblina.tasks.model import Model
from neblina.tasks.preview import believed

FORMATS = (".gif", ".webp")
_SIDE = 512  # pixels: smaller pictures are enlarged to this, larger ones scaled down to it
_MOST = 100  # frames
_LASTS = 5000  # milliseconds that all frames together are seen, but for the last
_RATE = 40, 200  # milliseconds that one frame is seen, at least and at most
_END = 2000  # and the last one


@dataclass
class Animation:
    """Keeps the beliefs about the first picture, at most 100 of them, evenly over its steps.

    Attributes:
        model: whose codec decodes them.
        frames: what was kept so far.
    """

    model: Model
    frames: list[Image.Image] = field(default_factory=list)
    _stride: int = 1
    _walks: int = 0
    _answers: int = 0

    def __call__(self, step: Step) -> None:
        """Look at an answer."""
        self._walks += step.evaluation == 1  # pictures that are made after the first ones have walks of their own
        mean = self._first(step)
        if self._walks > 1 or mean is None:
            return
        if self._answers % self._stride == 0:
            self.frames.append(_frame(believed(self.model, mean)))
        self._answers += 1
        if len(self.frames) > _MOST:
            self.frames, self._stride = self.frames[::2], 2 * self._stride

    def _first(self, step: Step) -> Tensor | None:
        """The belief about the first picture, shape (1, C, h, w), if it was asked about."""
        rows = step.query.rows
        if rows is None:
            return step.posterior.guess[:1]
        place = (rows == 0).nonzero().flatten()[:1]
        return step.posterior.guess[place.to(step.posterior.guess.device)] if len(place) else None

    def save(self, place: Path, last: Tensor) -> Path:
        """Write the frames, and `last`, the picture itself as uint8 of shape (C, H, W), longer than all others.

        Args:
            place: ends in .gif or .webp; where a file is there already, the same with -2 or on behind its name.
        Returns:
            Where it is: the whole file or none.
        Raises:
            SettingError: another suffix.
            StorageError: the disk is full or refuses.
        """
        if place.suffix.lower() not in FORMATS:
            raise SettingError(f"{place} does not end in {' or '.join(FORMATS)}, the formats of an animation")
        end = _frame(to_image(last))
        frames = [frame.resize(end.size, Image.Resampling.BILINEAR) for frame in self.frames] + [end]
        shown = min(max(_LASTS // len(frames), _RATE[0]), _RATE[1])
        first, rest, times = frames[0], frames[1:], [shown] * (len(frames) - 1) + [_END]
        free = next(one for one in names(place) if not one.exists())
        write_file(free, lambda aside: first.save(aside, save_all=True, append_images=rest, duration=times, loop=0))
        return free


def _frame(image: Image.Image) -> Image.Image:
    """A picture about as large as all frames are."""
    large = enlarged(image, _SIDE)
    large.thumbnail((_SIDE, _SIDE))
    return large
