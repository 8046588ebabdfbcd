"""A codec without weights: the pixels of a square of f x f become the f² channels of one cell.

It moves numbers and changes none, so that the model's density is that of pictures, and the noise it removes is noise
of pixels; a network sees cells a factor f² fewer, and costs about that much less.

Shi et al. Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network.
CVPR 2016, section 2 (the periodic shuffling).
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from neblina.core.errors import SettingError


@dataclass(frozen=True)
class Fold:
    """The codec of a model that diffuses pictures with their pixels folded into channels.

    Attributes:
        picture_channels: of a picture.
        factor: pixels that a cell is wide and high, 2 or more.
    """

    picture_channels: int
    factor: int

    def __post_init__(self) -> None:
        """Refuse what folds nothing.

        Raises:
            SettingError: naming the factor.
        """
        if self.factor < 2:
            raise SettingError(f"a fold takes 2 pixels a side or more together, not {self.factor}")

    @property
    def channels(self) -> int:
        """Of a cell."""
        return self.picture_channels * self.factor**2

    def encode(self, pictures: Tensor, noise: Tensor | None = None) -> Tensor:
        """As `Codec.encode`; there is no distribution to draw from, so noise changes nothing."""
        return self.fold(pictures.float())

    def decode(self, latents: Tensor) -> Tensor:
        """As `Codec.decode`; the inverse of encoding, to the last bit."""
        return F.pixel_shuffle(latents.float(), self.factor)

    def preview(self, latents: Tensor) -> Tensor:
        """As `Codec.preview`: the pictures themselves."""
        return self.decode(latents)

    def fold(self, pictures: Tensor) -> Tensor:
        """Pictures of any dtype, shape (*, C, H, W), to (*, C · f², H / f, W / f).

        Raises:
            SettingError: a side that is no multiple of f.
        """
        height, width = pictures.shape[-2:]
        if height % self.factor or width % self.factor:
            raise SettingError(
                f"pictures of {width}x{height} cannot be folded {self.factor} by {self.factor}: take sides that are "
                f"multiples of {self.factor}"
            )
        return F.pixel_unshuffle(pictures, self.factor)
