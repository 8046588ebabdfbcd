"""A picture cut into patches, each a token of what is in it and where it is, and put together again.

A place is told by sines and cosines of its column and of its row, stored nowhere. On a grid of another size than the
one it was trained on, places are stretched to that one's range, so that a network meets no position that it never saw.

Dosovitskiy et al. An Image is Worth 16x16 Words. ICLR 2021, section 3.1 (patches as tokens).
Peebles, Xie. Scalable Diffusion Models with Transformers. ICCV 2023, section 3.2 (the positions, and the way back).
"""

import torch
from torch import Tensor, nn

from neblina.core.errors import SettingError


class PatchTokens(nn.Module):
    """A picture cut into patches: one token each, of what is in it and where it is."""

    def __init__(self, channels: int, width: int, patch: int, side: int, scale: float = 1.0) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)
        self.side, self.scale = side, scale

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, patches, width), row by row."""
        patches = self.proj(x)
        rows, columns = patches.shape[-2:]
        places = positions(
            rows, columns, side=self.side, scale=self.scale, width=patches.shape[1], device=patches.device
        )
        tokens: Tensor = (patches.flatten(2).transpose(1, 2) + places).to(patches.dtype)
        return tokens


def positions(rows: int, columns: int, *, side: int, width: int, device: torch.device, scale: float = 1.0) -> Tensor:
    """Sines and cosines of each place's column, then of its row, at width / 4 frequencies from 1 to 1/10,000.

    Args:
        rows, columns: places of the grid; both are stretched to the range 0 … side / scale.
        side: of the grid it was trained on.
        width: numbers for each place.
        scale: how many times as fine the grid is as one whose places are 1 apart.
    Returns:
        shape (rows · columns, width), float32.
    """
    precise = torch.float32 if device.type == "mps" else torch.float64
    frequency = 10000 ** -(torch.arange(width // 4, dtype=precise, device=device) / (width // 4))

    def line(places: int) -> Tensor:
        place = torch.arange(places, dtype=torch.float32, device=device) / (places / side) / scale
        angle = place.to(precise)[:, None] * frequency
        return torch.cat([angle.sin(), angle.cos()], dim=1).float()

    across, down = line(columns).expand(rows, -1, -1), line(rows)[:, None].expand(-1, columns, -1)
    return torch.cat([across, down], dim=2).flatten(0, 1)


def assembled(patches: Tensor, rows: int, columns: int, patch: int) -> Tensor:
    """Patches of shape (B, rows · columns, patch · patch · C), row by row, as (B, C, rows · patch, columns · patch)."""
    grid = patches.reshape(len(patches), rows, columns, patch, patch, -1)
    return grid.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), -1, rows * patch, columns * patch)


def check_cut(height: int, width: int, patch: int) -> None:
    """Refuse a size that cannot be cut into patches.

    Raises:
        SettingError: naming the size.
    """
    if height % patch or width % patch or height < patch or width < patch:
        raise SettingError(f"{height}x{width} cannot be cut into patches of {patch}: take multiples of {patch}")
