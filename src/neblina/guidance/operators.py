"""What was measured: linear operators y = A x_0, each sample by itself.

Super-resolution measures the mean of blocks of pixels, inpainting some of the pixels. Only products by A are needed;
those by Aᵀ are vector-Jacobian products.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from neblina.core.errors import SettingError


class Operator(Protocol):
    """A linear map of each sample."""

    def __call__(self, x: Tensor) -> Tensor:
        """A x for x of shape (B, *)."""
        ...

    def seen(self, measurement: Tensor) -> Tensor:
        """A measurement of shape (B, *) without what of it was not measured: 0 there, whatever stood in its place."""
        ...

    def measured(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a measurement of one sample of that shape.

        Raises:
            SettingError: a sample that this cannot measure.
        """
        ...


@dataclass(frozen=True)
class AveragePool:
    """The mean over blocks of pixels; its measurement is a smaller picture.

    Attributes:
        factor: side of a block.
    """

    factor: int

    def __call__(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.factor)

    def seen(self, measurement: Tensor) -> Tensor:
        return measurement

    def measured(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        *channels, height, width = shape
        if self.factor < 1 or height % self.factor or width % self.factor:
            raise SettingError(f"pictures of {height}x{width} cannot be averaged over blocks of {self.factor}")
        return (*channels, height // self.factor, width // self.factor)


@dataclass(frozen=True, eq=False)
class Mask:
    """Some of the pixels, and 0 for the others; its measurement is a picture whose other pixels are not looked at.

    Attributes:
        known: True where a pixel was measured, shape (H, W) or (C, H, W).
    """

    known: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return torch.where(self.known.to(x.device, torch.bool), x, 0.0)

    def seen(self, measurement: Tensor) -> Tensor:
        return self(measurement)

    def measured(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if tuple(self.known.shape) not in (shape, shape[1:]):
            raise SettingError(f"a mask of shape {tuple(self.known.shape)} does not fit pictures of shape {shape}")
        return shape
