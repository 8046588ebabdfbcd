"""What a latent-diffusion model is wrapped in: an encoder to its latents and a decoder back to pictures."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Codec(Protocol):
    """Between pictures and latents, both at the scale that the model diffuses.

    Attributes:
        factor: pixels that a latent cell is wide and high.
        channels: of a latent.
        picture_channels: of a picture.
    """

    @property
    def factor(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def picture_channels(self) -> int: ...

    def encode(self, pictures: Tensor, noise: Tensor | None = None) -> Tensor:
        """Pictures in [−1, 1], shape (B, picture_channels, H, W), H and W multiples of `factor`, to latents,
        float32 of shape (B, channels, H / factor, W / factor).

        Args:
            noise: standard normal of the latents' shape, to draw from a codec that says a distribution; None takes its
                mode.
        """
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Latents, shape (B, channels, h, w), to pictures, float32 of shape (B, picture_channels, h · factor,
        w · factor), in [−1, 1] up to the decoder's own overshoot."""
        ...

    def preview(self, latents: Tensor) -> Tensor:
        """What the latents will look like, at a low cost: pictures as of `decode`, of any resolution."""
        ...


@dataclass(frozen=True)
class Pixels:
    """The codec of a model that diffuses pictures themselves."""

    channels: int = 3
    factor: int = 1

    @property
    def picture_channels(self) -> int:
        return self.channels

    def encode(self, pictures: Tensor, noise: Tensor | None = None) -> Tensor:
        """The pictures as they are."""
        return pictures.float()

    def decode(self, latents: Tensor) -> Tensor:
        """The pictures as they are."""
        return latents.float()

    def preview(self, latents: Tensor) -> Tensor:
        """The pictures as they are."""
        return latents.float()
