"""The codec of a model whose tokens are pixels: token k of K stands for the grey 2 k / (K − 1) − 1.

Austin et al. Structured Denoising Diffusion Models in Discrete State-Spaces. NeurIPS 2021, section 6 (256 levels).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from neblina.core.errors import SettingError


@dataclass(frozen=True)
class Levels:
    """Between grey pictures and tokens, a pixel each.

    Attributes:
        count: K, how many levels of grey there are: 2 is black and white.
    """

    count: int

    def __post_init__(self) -> None:
        """Refuse what tells nothing apart.

        Raises:
            SettingError: naming the count.
        """
        if not 2 <= self.count <= 256:
            raise SettingError(f"a pixel has 2 to 256 levels of grey, not {self.count}")

    def codes(self, pictures: Tensor) -> Tensor:
        """The nearest level of every pixel, int64 of shape (B, H, W), of pictures in [−1, 1], (B, 1, H, W)."""
        return ((pictures[:, 0] + 1) / 2 * (self.count - 1)).round().clamp(0, self.count - 1).to(torch.int64)

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Pictures in [−1, 1], float32 of shape (B, 1, H, W)."""
        return (codes.float() / (self.count - 1) * 2 - 1)[:, None]
