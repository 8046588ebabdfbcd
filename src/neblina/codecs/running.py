"""Running a half of an autoencoder: inputs checked, memory bounded, in a precision that does not overflow.

Memory is bounded by `tile`: no call of the network sees more than tile² pixels, whether of one picture, of a tile of it
or of several pictures. A picture of up to tile² pixels is coded as one piece, so its numbers are the network's own.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from neblina.codecs.tiles import in_tiles
from neblina.core.errors import DivergenceError, SettingError

Net = TypeVar("Net", bound=nn.Module)
TILE = (
    1024  # Stable Diffusion's autoencoder: one piece takes what diffusers takes, tiles less (benchmarks/vae_memory.py)
)
SHARED = 4  # neighbours share a quarter of a tile or more


@dataclass(frozen=True)
class Frame:
    """What running needs to know of an autoencoder.

    Attributes:
        factor: pixels that a latent cell is wide and high.
        channels: of a latent.
        picture_channels: of a picture.
        tile: side in pixels of the largest square that is coded as one piece, None for no limit.
        upcast: float16 overflows in it, so it then runs in float32.
    """

    factor: int
    channels: int
    picture_channels: int
    tile: int | None = TILE
    upcast: bool = False

    def __post_init__(self) -> None:
        """Refuse tiles that would be nothing but borders.

        Raises:
            SettingError: naming the tile.
        """
        if self.tile is not None and self.tile < SHARED * self.factor:
            raise SettingError(
                f"tile = {self.tile} pixels is too small for an autoencoder whose latent cells are {self.factor} wide: "
                f"take {SHARED * self.factor} or more, or None"
            )

    def encode(self, net: Net, half: Callable[[Net, Tensor], Tensor], pictures: Tensor) -> Tensor:
        """half(net, pictures), shape (B, *, H / factor, W / factor), float32.

        Raises:
            SettingError: pictures of other channels, or of a size that is no multiple of the factor.
            DivergenceError: what came out is not finite.
        """
        _check(pictures, self.picture_channels, "pictures")
        height, width = pictures.shape[-2:]
        if height % self.factor or width % self.factor:
            raise SettingError(
                f"this autoencoder reads pictures whose sides are multiples of {self.factor}, and {width}x{height} is "
                "none: crop or resize them"
            )
        return self._run(net, half, pictures, "latents", reads=self.factor)

    def decode(self, net: Net, half: Callable[[Net, Tensor], Tensor], latents: Tensor) -> Tensor:
        """half(net, latents), shape (B, *, h · factor, w · factor), float32.

        Raises:
            SettingError: latents of other channels.
            DivergenceError: what came out is not finite.
        """
        _check(latents, self.channels, "latents")
        return self._run(net, half, latents, "pictures", writes=self.factor)

    def _run(
        self,
        net: Net,
        half: Callable[[Net, Tensor], Tensor],
        x: Tensor,
        made: str,
        *,
        reads: int = 1,
        writes: int = 1,
    ) -> Tensor:
        dtype = next(net.parameters()).dtype
        if self.upcast and dtype == torch.float16:
            net, dtype = copy.deepcopy(net).float(), torch.float32
        x = x.to(next(net.parameters()).device, dtype)
        cells = x.shape[-2] // reads, x.shape[-1] // reads
        limit = max(*cells, 1) if self.tile is None else self.tile // self.factor
        whole = self.tile is None or cells[0] * cells[1] <= limit**2
        several = len(x) if self.tile is None else max(limit**2 // (cells[0] * cells[1]), 1)
        pieces = []
        for some in torch.split(x, several):
            pieces.append(
                half(net, some).float()
                if whole
                else in_tiles(
                    lambda tile: half(net, tile), some, limit=limit, overlap=limit // SHARED, reads=reads, writes=writes
                )
            )
        out = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        if not bool(out.isfinite().all()):
            raise DivergenceError(_why(x, dtype, made))
        return out


def _check(x: Tensor, channels: int, what: str) -> None:
    if x.ndim != 4 or x.shape[1] != channels or not x.numel():
        raise SettingError(
            f"this autoencoder takes {what} of shape (B, {channels}, height, width), not {tuple(x.shape)}"
        )


def _why(x: Tensor, dtype: torch.dtype, made: str) -> str:
    if not bool(x.isfinite().all()):
        return f"the autoencoder was given values that are not finite in {dtype}; so are the {made} it made"
    if dtype == torch.float16:
        return (
            f"the autoencoder made {made} that are not finite: its float16 overflowed. Run it in bfloat16 or float32, "
            "or set force_upcast in its configuration"
        )
    return f"the autoencoder made {made} that are not finite, in {dtype}: its weights are damaged or not of this model"
