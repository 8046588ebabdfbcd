"""The vector-quantised autoencoder: a picture's latents are the nearest entries of a learned codebook.

Configuration and parameter names are those of diffusers' VQModel, so weights load both ways. As there, encoding stops
before the codebook (a latent-diffusion model diffuses the continuous latents) and decoding begins with it.

van den Oord, Vinyals, Kavukcuoglu. Neural Discrete Representation Learning. NeurIPS 2017, eq. 1 and 2.
Esser, Rombach, Ommer. Taming Transformers for High-Resolution Image Synthesis. CVPR 2021.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neblina.core.errors import SettingError
from neblina.nets.autoencoder_halves import PictureDecoder, PictureEncoder, check_halves
from neblina.nets.configuration import check_sample_size, read_config, write_config

ROWS = 4096  # latents that are compared with the codebook at once, so that the distances take little memory


@dataclass(frozen=True)
class VQConfig:
    """The configuration, field for field diffusers' VQModel's; only what each does to us is said here.

    Attributes:
        act_fn: of the residual blocks; the last activation of both halves is SiLU whatever it says.
        sample_size: the resolution it was trained at; any multiple of the factor runs.
        num_vq_embeddings: entries of the codebook.
        vq_embed_dim: their width, None for latent_channels.
        scaling_factor: latents times this are diffused.
        norm_type: "group"; "spatial", a decoder whose normalisations read the codes, is refused.
        lookup_from_codebook: what is decoded without quantising are numbers of codes, not latents.
        force_upcast: half precision (float16) overflows in it.
    """

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",)
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    act_fn: str = "silu"
    latent_channels: int = 3
    sample_size: int | tuple[int, int] = 32
    num_vq_embeddings: int = 256
    norm_num_groups: int = 32
    vq_embed_dim: int | None = None
    scaling_factor: float = 0.18215
    norm_type: str = "group"
    mid_block_add_attention: bool = True
    lookup_from_codebook: bool = False
    force_upcast: bool = False

    def __post_init__(self) -> None:
        """Refuse what the network or its codec cannot honour.

        Raises:
            SettingError: naming the field.
        """
        check_halves(self)
        check_sample_size("autoencoder", self.sample_size)
        if self.norm_type != "group":
            raise SettingError(f"autoencoder config: norm_type = {self.norm_type!r} is not supported, only 'group' is")
        if not self.scaling_factor > 0:
            raise SettingError(f"autoencoder config: scaling_factor = {self.scaling_factor!r} is not positive")
        if self.num_vq_embeddings < 1:
            raise SettingError(f"autoencoder config: num_vq_embeddings = {self.num_vq_embeddings} is no codebook")

    @property
    def factor(self) -> int:
        """Pixels that a latent cell is wide and high."""
        return int(2 ** (len(self.block_out_channels) - 1))

    @property
    def code_channels(self) -> int:
        """Width of a code, and so of the latents that are diffused."""
        return self.latent_channels if self.vq_embed_dim is None else self.vq_embed_dim

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "VQConfig":
        """Read a config.json; keys that begin with an underscore are its writer's own.

        Raises:
            SettingError: an unknown or unsupported field.
        """
        return read_config(cls, "VQModel", config)

    def to_dict(self) -> dict[str, Any]:
        """What goes into config.json, with the class that diffusers opens it as."""
        return write_config(self, "VQModel")


class Codebook(nn.Module):
    """Codes by number."""

    def __init__(self, entries: int, channels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(entries, channels)
        nn.init.uniform_(self.embedding.weight, -1 / entries, 1 / entries)

    def nearest(self, z: Tensor) -> Tensor:
        """Numbers of the codes nearest to latents (B, C, h, w), shape (B, h, w)."""
        rows = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
        found = [torch.cdist(some, self.embedding.weight).argmin(1) for some in torch.split(rows, ROWS)]
        return torch.cat(found).reshape(z.shape[0], *z.shape[2:])

    def look_up(self, codes: Tensor) -> Tensor:
        """Codes of numbers (B, h, w), shape (B, C, h, w)."""
        found: Tensor = self.embedding(codes)
        return found.permute(0, 3, 1, 2).contiguous()


class VQAutoencoder(nn.Module):
    """Pictures to latents, latents to codes, codes to pictures, at the network's own scale."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = PictureEncoder(config, config.latent_channels)
        self.quant_conv = nn.Conv2d(config.latent_channels, config.code_channels, 1)
        self.quantize = Codebook(config.num_vq_embeddings, config.code_channels)
        self.post_quant_conv = nn.Conv2d(config.code_channels, config.latent_channels, 1)
        self.decoder = PictureDecoder(config)

    def channels_last(self) -> None:
        """Lay the weights out with the channels last: convolutions are faster so, most of all in half precision."""
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def encode(self, x: Tensor) -> Tensor:
        """Pictures (B, in_channels, H, W) to latents (B, code_channels, H / factor, W / factor), not quantised."""
        latents: Tensor = self.quant_conv(self.encoder(x))
        return latents

    def decode(self, z: Tensor) -> Tensor:
        """Latents (B, code_channels, h, w), taken to their nearest codes, to pictures (B, out_channels, h · factor,
        w · factor). The gradient passes as if they had not been."""
        return self.decode_codes(z + (self.quantize.look_up(self.quantize.nearest(z)) - z).detach())

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Latents as they are, diffusers' force_not_quantize, to pictures."""
        pictures: Tensor = self.decoder(self.post_quant_conv(codes))
        return pictures
