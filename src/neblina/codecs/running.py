"""What the codecs around a network share: running a half of it, inputs checked, memory bounded, without an overflow.

Memory is bounded by `tile`: no call of the network sees more than tile² pixels, whether of one picture, of a tile of it
or of several pictures. A picture of up to tile² pixels is coded as one piece, so its numbers are the network's own.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neblina.codecs.tiles import in_tiles
from neblina.core.errors import DivergenceError, SettingError

Net = TypeVar("Net", bound=nn.Module)
Half = Callable[[Net, Tensor], Tensor]
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
        overflows: whether its configuration says that float16 does in it (force_upcast).
    """

    factor: int
    channels: int
    picture_channels: int
    overflows: bool = False


@dataclass(frozen=True)
class NetworkCodec(ABC, Generic[Net]):
    """A codec around a network.

    Attributes:
        net: the network. Its weights stay as they are while the codec lives: a copy of them may be kept.
        tile: side in pixels of the largest square that is coded as one piece; what is larger is coded in tiles.
            None: never.
        upcasts: float16 that its configuration says to overflow runs in float32; otherwise, as in diffusers' pipelines
            of Stable Diffusion 1 and 2, it runs in float16, and in float32 only where that did overflow.
    """

    net: Net
    tile: int | None = TILE
    upcasts: bool = True

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

    @property
    @abstractmethod
    def frame(self) -> Frame:
        """How the network is run."""

    @property
    def factor(self) -> int:
        """Pixels that a latent cell is wide and high."""
        return self.frame.factor

    @property
    def channels(self) -> int:
        """Of a latent."""
        return self.frame.channels

    @property
    def picture_channels(self) -> int:
        """Of a picture."""
        return self.frame.picture_channels

    @abstractmethod
    def encode(self, pictures: Tensor, noise: Tensor | None = None) -> Tensor:
        """As `Codec.encode`."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """As `Codec.decode`."""

    def preview(self, latents: Tensor) -> Tensor:
        """As `Codec.preview`: half the resolution, a quarter of the cost."""
        return self.decode(F.avg_pool2d(latents.float(), 2, ceil_mode=True))

    def reading(self, half: Half[Net], pictures: Tensor) -> Tensor:
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
        return self._run(half, pictures, "latents", reads=self.factor)

    def writing(self, half: Half[Net], latents: Tensor) -> Tensor:
        """half(net, latents), shape (B, *, h · factor, w · factor), float32.

        Raises:
            SettingError: latents of other channels.
            DivergenceError: what came out is not finite.
        """
        _check(latents, self.channels, "latents")
        return self._run(half, latents, "pictures", writes=self.factor)

    @cached_property
    def _wide(self) -> Net:
        """The network in float32, copied once."""
        return copy.deepcopy(self.net).float()

    def _run(self, half: Half[Net], x: Tensor, made: str, *, reads: int = 1, writes: int = 1) -> Tensor:
        dtype = next(self.net.parameters()).dtype
        overflows = self.frame.overflows and dtype == torch.float16
        if not (overflows and self.upcasts):
            out = self._pieces(self.net, half, x, reads, writes)
            if bool(out.isfinite().all()):
                return out
        if overflows:
            dtype, out = torch.float32, self._pieces(self._wide, half, x, reads, writes)
            if bool(out.isfinite().all()):
                return out
        raise DivergenceError(_why(x.to(dtype), dtype, made))

    def _pieces(self, net: Net, half: Half[Net], x: Tensor, reads: int, writes: int) -> Tensor:
        first = next(net.parameters())
        x = x.to(first.device, first.dtype)
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
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


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
