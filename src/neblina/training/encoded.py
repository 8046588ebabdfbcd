"""Latents of a training set, encoded once and kept on disk under the digest of all that they are a function of.

The name of the file is the digest of the codec's weights and scale, of every picture and of the styles, so that
latents of another codec or of other pictures are never met: they are encoded anew, and what stood there is removed.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from neblina.bundle.codec import weights_digest
from neblina.codecs.kl import KLCodec
from neblina.core.atomic import write_file
from neblina.core.errors import SettingError
from neblina.core.launch import is_main_process
from neblina.core.tensors import save_tensors
from neblina.data.pictures import Pictures, to_float
from neblina.data.styles import Styled

_AT_ONCE = 64  # pictures that are encoded together
OnRead = Callable[[int, int], None]


@dataclass(frozen=True)
class Encoded:
    """The latents of a training set.

    Attributes:
        latents: of each picture as it is, and then in each style, at the scale that is diffused: the Gaussians' means,
            float32 of shape (N · (1 + styles), C, h, w).
        pictures: the set.
        digest: of all that they are a function of.
    """

    latents: Tensor
    pictures: Pictures
    digest: str

    def read(self, numbers: Sequence[int]) -> Tensor:
        """The latents of the pictures of these numbers, shape (B, C, h, w)."""
        return torch.from_numpy(self.latents.numpy()[[self._row(number) for number in numbers]])

    def _row(self, number: int) -> int:
        return self.pictures.row(number) if isinstance(self.pictures, Styled) else number


def encoded(pictures: Pictures, codec: KLCodec, folder: Path, on_read: OnRead | None = None) -> Encoded:
    """The latents of all pictures, read where they are kept, else encoded and kept.

    Args:
        folder: where they are kept.
        on_read: told how many are encoded, of how many.
    Raises:
        SettingError: pictures that the codec does not read.
        StorageError: the disk is full or refuses.
    """
    size = latent_size(pictures, codec)
    distinct = pictures.distinct if isinstance(pictures, Styled) else range(len(pictures))
    digest = _digest(pictures, distinct, codec)
    place = folder / f"{digest}.safetensors"
    kept = _kept(place, (len(distinct), codec.channels, *size))
    if kept is None:
        parts = []
        for start in range(0, len(distinct), _AT_ONCE):
            some = pictures.read(distinct[start : start + _AT_ONCE])
            with torch.no_grad():
                parts.append(codec.encode(to_float(some)).float().cpu())
            if on_read is not None:
                on_read(min(start + _AT_ONCE, len(distinct)), len(distinct))
        kept = torch.cat(parts)
        if is_main_process():
            _keep(kept, place)
    return Encoded(kept, pictures, digest)


def latent_size(pictures: Pictures, codec: KLCodec) -> tuple[int, int]:
    """(height, width) of the latents of some pictures.

    Raises:
        SettingError: pictures that the codec does not read.
    """
    channels, height, width = pictures.shape
    if channels != codec.picture_channels:
        raise SettingError(
            f"the codec reads pictures of {codec.picture_channels} channels, these have {channels}: train one of these "
            "pictures, or set data.channels"
        )
    if height % codec.factor or width % codec.factor:
        raise SettingError(
            f"a latent cell of the codec is {codec.factor} pixels wide, and pictures of {width}x{height} are no "
            f"multiple of that: set data.resolution to one, such as {max(1, width // codec.factor) * codec.factor}"
        )
    return height // codec.factor, width // codec.factor


def _keep(latents: Tensor, place: Path) -> None:
    """Write them, and remove what lies beside them: latents that no run of this codec meets, and what a kill left."""
    write_file(place, lambda aside: save_tensors({"latents": latents}, aside))
    for other in place.parent.glob("*.safetensors"):
        if other != place:
            other.unlink()


def _digest(pictures: Pictures, distinct: Sequence[int], codec: KLCodec) -> str:
    found = hashlib.sha256(f"{weights_digest(codec.net)} {codec.net.config.to_dict()} {pictures.shape}".encode())
    for start in range(0, len(distinct), _AT_ONCE):
        found.update(pictures.read(distinct[start : start + _AT_ONCE]).numpy().tobytes())
    return found.hexdigest()[:32]


def _kept(place: Path, shape: tuple[int, ...]) -> Tensor | None:
    """What is kept there; None where nothing whole is."""
    try:
        latents = load_file(place)["latents"]
    except (OSError, SafetensorError, KeyError):
        return None
    return latents if latents.shape == shape and bool(latents.isfinite().all()) else None
