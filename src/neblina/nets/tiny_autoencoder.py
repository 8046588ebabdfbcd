"""The tiny autoencoder (TAESD): plain convolutions, distilled to code the same latents as a large one.

Configuration and parameter names are those of diffusers' AutoencoderTiny, so weights load both ways. Inside, pictures
lie in [0, 1] and latents are squashed to (−3, 3) by 3 tanh(z / 3) before they are decoded.

Boer Bohan. TAESD: Tiny AutoEncoder for Stable Diffusion. github.com/madebyollin/taesd, 2023.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from neblina.core.errors import SettingError, choose
from neblina.nets.blocks import activations
from neblina.nets.configuration import read_config, write_config

UPSAMPLINGS = ("nearest", "nearest-exact", "bilinear", "bicubic", "area")
REACH = 3.0  # latents are decoded from within ± this


@dataclass(frozen=True)
class AutoencoderTinyConfig:
    """The configuration, field for field diffusers' AutoencoderTiny's; only what each does to us is said here.

    Attributes:
        encoder_block_out_channels: width of every stage; all equal, since no layer of it changes the width.
        act_fn: between convolutions; the activation after a block's sum is ReLU whatever it says.
        upsample_fn: how the decoder enlarges.
        upsampling_scaling_factor: by how much it does between two stages.
        num_encoder_blocks: residual blocks of every stage; each but the first begins by halving.
        latent_magnitude, latent_shift: latents are stored as bytes of z / (2 latent_magnitude) + latent_shift.
        force_upcast: not read: diffusers sets it to false when it opens such an autoencoder, and so does this.
        scaling_factor, shift_factor: (z − shift_factor) · scaling_factor is diffused.
        block_out_channels: diffusers' copy of decoder_block_out_channels, None for that.
    """

    in_channels: int = 3
    out_channels: int = 3
    encoder_block_out_channels: tuple[int, ...] = (64, 64, 64, 64)
    decoder_block_out_channels: tuple[int, ...] = (64, 64, 64, 64)
    act_fn: str = "relu"
    upsample_fn: str = "nearest"
    latent_channels: int = 4
    upsampling_scaling_factor: int = 2
    num_encoder_blocks: tuple[int, ...] = (1, 3, 3, 3)
    num_decoder_blocks: tuple[int, ...] = (3, 3, 3, 1)
    latent_magnitude: float = 3
    latent_shift: float = 0.5
    force_upcast: bool = False
    scaling_factor: float = 1.0
    shift_factor: float = 0.0
    block_out_channels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what the network or its codec cannot honour.

        Raises:
            SettingError: naming the field.
        """
        choose("activation (act_fn)", self.act_fn.lower(), activations)
        choose("upsample_fn", self.upsample_fn, UPSAMPLINGS)
        for half in ("encoder", "decoder"):
            widths, blocks = getattr(self, f"{half}_block_out_channels"), getattr(self, f"num_{half}_blocks")
            if len(widths) != len(blocks) or not widths:
                raise SettingError(
                    f"autoencoder config: {len(widths)} {half}_block_out_channels and {len(blocks)} num_{half}_blocks; "
                    "there must be one of each a stage"
                )
            if len(set(widths)) > 1:
                raise SettingError(
                    f"autoencoder config: {half}_block_out_channels = {widths!r} differ, and nothing between the "
                    "stages changes the width"
                )
        if self.block_out_channels not in (None, self.decoder_block_out_channels):
            raise SettingError(
                f"autoencoder config: block_out_channels = {self.block_out_channels!r} is not the copy of "
                f"decoder_block_out_channels {self.decoder_block_out_channels!r} that it should be"
            )
        for name in ("upsampling_scaling_factor", "latent_magnitude", "scaling_factor"):
            if not getattr(self, name) > 0:
                raise SettingError(f"autoencoder config: {name} = {getattr(self, name)!r} is not positive")

    @property
    def factor(self) -> int:
        """Pixels that a latent cell is wide and high when they are encoded."""
        return int(2 ** (len(self.num_encoder_blocks) - 1))

    @property
    def enlargement(self) -> int:
        """Pixels that a latent cell is wide and high when it is decoded."""
        return int(self.upsampling_scaling_factor ** (len(self.num_decoder_blocks) - 1))

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "AutoencoderTinyConfig":
        """Read a config.json; keys that begin with an underscore are its writer's own.

        Raises:
            SettingError: an unknown or unsupported field.
        """
        return read_config(cls, "AutoencoderTiny", config)

    def to_dict(self) -> dict[str, Any]:
        """What goes into config.json, with the class that diffusers opens it as."""
        return write_config(replace(self, block_out_channels=self.decoder_block_out_channels), "AutoencoderTiny")


class TinyBlock(nn.Module):
    """relu(x + conv(act(conv(act(conv(x))))))."""

    def __init__(self, channels: int, activation: str) -> None:
        super().__init__()
        act = activations[activation]()
        self.conv = nn.Sequential(
            _conv(channels, channels), act, _conv(channels, channels), act, _conv(channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """x of shape (B, channels, H, W)."""
        out: Tensor = nn.functional.relu(self.conv(x) + x)
        return out


class TinyHalf(nn.Module):
    """Layers one after the other."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Through all of them."""
        out: Tensor = self.layers(x)
        return out


class AutoencoderTiny(nn.Module):
    """Pictures to latents and latents to pictures, at the network's own scale."""

    def __init__(self, config: AutoencoderTinyConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = TinyHalf(_encoder(config))
        self.decoder = TinyHalf(_decoder(config))

    def channels_last(self) -> None:
        """Lay the weights out with the channels last: convolutions are faster so, most of all in half precision."""
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def encode(self, x: Tensor) -> Tensor:
        """Pictures (B, in_channels, H, W) in [−1, 1] to latents (B, latent_channels, H / factor, W / factor)."""
        latents: Tensor = self.encoder((x + 1) / 2)
        return latents

    def decode(self, z: Tensor) -> Tensor:
        """Latents (B, latent_channels, h, w) to pictures (B, out_channels, h · enlargement, w · enlargement) in
        [−1, 1], up to the decoder's overshoot."""
        pictures: Tensor = self.decoder((z / REACH).tanh() * REACH)
        return pictures * 2 - 1

    def to_unit(self, z: Tensor) -> Tensor:
        """Latents to [0, 1], as they are stored in a picture's bytes; what lies outside is clamped."""
        return (z / (2 * self.config.latent_magnitude) + self.config.latent_shift).clamp(0, 1)

    def from_unit(self, stored: Tensor) -> Tensor:
        """Latents of what `to_unit` made of them."""
        return (stored - self.config.latent_shift) * (2 * self.config.latent_magnitude)


def _conv(given: int, made: int, *, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(given, made, 3, padding=1, stride=stride, bias=bias)


def _encoder(config: AutoencoderTinyConfig) -> list[nn.Module]:
    width, act = config.encoder_block_out_channels[0], config.act_fn.lower()
    layers: list[nn.Module] = []
    for stage, blocks in enumerate(config.num_encoder_blocks):
        first = stage == 0
        layers.append(_conv(config.in_channels, width) if first else _conv(width, width, stride=2, bias=False))
        layers += [TinyBlock(width, act) for _ in range(blocks)]
    return [*layers, _conv(width, config.latent_channels)]


def _decoder(config: AutoencoderTinyConfig) -> list[nn.Module]:
    width, act = config.decoder_block_out_channels[0], config.act_fn.lower()
    layers: list[nn.Module] = [_conv(config.latent_channels, width), activations[act]()]
    for stage, blocks in enumerate(config.num_decoder_blocks):
        layers += [TinyBlock(width, act) for _ in range(blocks)]
        if stage < len(config.num_decoder_blocks) - 1:
            layers.append(nn.Upsample(scale_factor=config.upsampling_scaling_factor, mode=config.upsample_fn))
            layers.append(_conv(width, width, bias=False))
    return [*layers, _conv(width, config.out_channels)]
