"""A discriminator of patches: a convolutional network that scores every patch of a picture as real or made.

4x4 convolutions, all but the last two of stride 2. Walking back from a score, a convolution of stride 1 sees r + 3
places of what it is given and one of stride 2 sees 2 r + 2, so that a score sees 7, 16, 34, 70, ... pixels a side after
0, 1, 2, 3, ... halvings, beside the means that normalisation takes. It normalises groups of a picture's channels rather
than over the batch: what it says of a picture does not depend on the others.

Isola et al. Image-to-Image Translation with Conditional Adversarial Networks. CVPR 2017, section 3.2.2.
"""

from dataclasses import dataclass
from math import gcd

import torch
from torch import Tensor, nn

GROUPS = 8  # or fewer, where the channels are no multiple of it
SLOPE = 0.2


@dataclass(frozen=True)
class PatchConfig:
    """Shape of the network.

    Attributes:
        in_channels: of a picture.
        channels: feature maps of the first layer; twice as many after each halving, at most eight times.
        layers: halvings.
    """

    in_channels: int = 3
    channels: int = 64
    layers: int = 3

    @property
    def patch(self) -> int:
        """Pixels a side of what a score sees."""
        side = 7  # two convolutions of stride 1
        for _ in range(self.layers):
            side = 2 * side + 2
        return side


class PatchDiscriminator(nn.Module):
    """Pictures (B, in_channels, H, W) in [−1, 1] to scores of their patches, shape (B, 1, h, w)."""

    def __init__(self, config: PatchConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.channels * min(2**level, 8) for level in range(config.layers + 1)]
        layers: list[nn.Module] = []
        given = config.in_channels
        for number, width in enumerate(widths):
            stride = 2 if number < config.layers else 1
            layers.append(nn.Conv2d(given, width, 4, stride, padding=1))
            if number > 0:
                layers.append(nn.GroupNorm(gcd(GROUPS, width), width))
            layers.append(nn.LeakyReLU(SLOPE))
            given = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(given, 1, 4, padding=1))

    def channels_last(self) -> None:
        """Lay the weights out with the channels last: convolutions are faster so."""
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """x in [−1, 1]."""
        scores: Tensor = self.layers(x)
        return scores
