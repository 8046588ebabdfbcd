"""The KL-regularised autoencoder of latent diffusion: a picture's latents are a diagonal Gaussian.

Configuration and parameter names are those of diffusers' AutoencoderKL, so weights load both ways. The numbers that say
at which scale a model diffuses its latents (scaling_factor, shift_factor, latents_mean, latents_std) stand in this
configuration but are applied by the codec around the network.

Kingma, Welling. Auto-Encoding Variational Bayes. ICLR 2014.
Rombach et al. High-Resolution Image Synthesis with Latent Diffusion Models. CVPR 2022, section 3.1 and appendix G.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neblina.core.errors import SettingError
from neblina.nets.autoencoder_halves import PictureDecoder, PictureEncoder, check_halves
from neblina.nets.configuration import check_sample_size, read_config, write_config


@dataclass(frozen=True)
class AutoencoderKLConfig:
    """The configuration, field for field diffusers' AutoencoderKL's; only what each does to us is said here.

    Attributes:
        act_fn: of the residual blocks; the last activation of both halves is SiLU whatever it says.
        sample_size: the resolution it was trained at; any multiple of the factor runs.
        scaling_factor: the latents that are diffused are (z − shift_factor) · scaling_factor.
        latents_mean: (z − latents_mean) · scaling_factor / latents_std is diffused instead; both or none, a number a
            channel.
        force_upcast: half precision (float16) overflows in it.
    """

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",)
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    act_fn: str = "silu"
    latent_channels: int = 4
    norm_num_groups: int = 32
    sample_size: int | tuple[int, int] = 32
    scaling_factor: float = 0.18215
    shift_factor: float | None = None
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None
    force_upcast: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    def __post_init__(self) -> None:
        """Refuse what the network or its codec cannot honour.

        Raises:
            SettingError: naming the field.
        """
        check_halves(self)
        check_sample_size("autoencoder", self.sample_size)
        if not self.scaling_factor > 0:
            raise SettingError(f"autoencoder config: scaling_factor = {self.scaling_factor!r} is not positive")
        if (self.latents_mean is None) != (self.latents_std is None):
            raise SettingError("autoencoder config: latents_mean and latents_std come together, and one is missing")
        for name in ("latents_mean", "latents_std"):
            values = getattr(self, name)
            if values is not None and len(values) != self.latent_channels:
                raise SettingError(
                    f"autoencoder config: {name} has {len(values)} numbers for {self.latent_channels} latent_channels"
                )
        if self.latents_std is not None and not all(value > 0 for value in self.latents_std):
            raise SettingError(f"autoencoder config: latents_std = {self.latents_std!r} is not positive")
        if self.latents_mean is not None and self.shift_factor:
            raise SettingError("autoencoder config: latents_mean and shift_factor both shift the latents; give one")

    @property
    def factor(self) -> int:
        """Pixels that a latent cell is wide and high."""
        return int(2 ** (len(self.block_out_channels) - 1))

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "AutoencoderKLConfig":
        """Read a config.json; keys that begin with an underscore are its writer's own.

        Raises:
            SettingError: an unknown or unsupported field.
        """
        return read_config(cls, "AutoencoderKL", config)

    def to_dict(self) -> dict[str, Any]:
        """What goes into config.json, with the class that diffusers opens it as."""
        return write_config(self, "AutoencoderKL")


class AutoencoderKL(nn.Module):
    """Pictures to the moments of their latents, and latents to pictures, at the network's own scale."""

    def __init__(self, config: AutoencoderKLConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.latent_channels
        self.encoder = PictureEncoder(config, 2 * channels)
        self.decoder = PictureDecoder(config)
        self.quant_conv = nn.Conv2d(2 * channels, 2 * channels, 1) if config.use_quant_conv else None
        self.post_quant_conv = nn.Conv2d(channels, channels, 1) if config.use_post_quant_conv else None

    def channels_last(self) -> None:
        """Lay the weights out with the channels last: convolutions are faster so, most of all in half precision."""
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def encode(self, x: Tensor) -> Tensor:
        """Pictures (B, in_channels, H, W) to the mean and log-variance of their latents, joined by channels:
        (B, 2 latent_channels, H / factor, W / factor)."""
        moments: Tensor = self.encoder(x)
        return moments if self.quant_conv is None else self.quant_conv(moments)

    def decode(self, z: Tensor) -> Tensor:
        """Latents (B, latent_channels, h, w) to pictures (B, out_channels, h · factor, w · factor)."""
        pictures: Tensor = self.decoder(z if self.post_quant_conv is None else self.post_quant_conv(z))
        return pictures
