"""The two halves of a convolutional autoencoder: pictures to a small grid of features, and back.

The U-Net's blocks without the time and without the maps kept on the way. Shared by the autoencoders whose latents are
Gaussian and whose latents are codes; parameter names are those of diffusers.

Rombach et al. High-Resolution Image Synthesis with Latent Diffusion Models. CVPR 2022, appendix G.
Esser, Rombach, Ommer. Taming Transformers for High-Resolution Image Synthesis. CVPR 2021, table 7.
"""

from typing import Protocol

from torch import Tensor, nn

from neblina.core.errors import SettingError, choose
from neblina.nets.blocks import BlockStyle, Downsample, Level, Middle, Upsample, activate, activations

DOWN = {"DownEncoderBlock2D": False, "AttnDownEncoderBlock2D": True}  # name: does it attend?
UP = {"UpDecoderBlock2D": False, "AttnUpDecoderBlock2D": True}
EPS = 1e-6


class Halves(Protocol):
    """What both halves are built from: the fields that the autoencoders' configurations share."""

    @property
    def in_channels(self) -> int: ...
    @property
    def out_channels(self) -> int: ...
    @property
    def down_block_types(self) -> tuple[str, ...]: ...
    @property
    def up_block_types(self) -> tuple[str, ...]: ...
    @property
    def block_out_channels(self) -> tuple[int, ...]: ...
    @property
    def layers_per_block(self) -> int: ...
    @property
    def act_fn(self) -> str: ...
    @property
    def latent_channels(self) -> int: ...
    @property
    def norm_num_groups(self) -> int: ...
    @property
    def mid_block_add_attention(self) -> bool: ...


def check_halves(config: Halves) -> None:
    """Refuse halves that cannot be built.

    Raises:
        SettingError: naming the field.
    """
    for name in config.down_block_types:
        choose("down_block_types entry an autoencoder has", name, DOWN)
    for name in config.up_block_types:
        choose("up_block_types entry an autoencoder has", name, UP)
    choose("activation (act_fn)", config.act_fn.lower(), activations)
    levels = len(config.block_out_channels)
    if not len(config.down_block_types) == len(config.up_block_types) == levels:
        raise SettingError(
            f"autoencoder config: {levels} block_out_channels, {len(config.down_block_types)} down_block_types and "
            f"{len(config.up_block_types)} up_block_types; there must be one of each a level"
        )
    for channels in config.block_out_channels:
        if channels % config.norm_num_groups:
            raise SettingError(
                f"autoencoder config: block_out_channels {channels} cannot be split into norm_num_groups "
                f"{config.norm_num_groups}"
            )


class EncoderLevel(Level):
    """Residual blocks at one resolution, then half of it."""

    def __init__(self, channels: list[tuple[int, int]], style: BlockStyle, *, attend: bool, halve: bool) -> None:
        super().__init__(channels, style, attend=attend)
        self.downsamplers = nn.ModuleList([Downsample(channels[-1][1], 0)]) if halve else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H/2, W/2)."""
        for number in range(len(self.resnets)):
            x = self.block(number, x)
        return x if self.downsamplers is None else self.downsamplers[0](x)


class DecoderLevel(Level):
    """Residual blocks at one resolution, then twice it."""

    def __init__(self, channels: list[tuple[int, int]], style: BlockStyle, *, attend: bool, double: bool) -> None:
        super().__init__(channels, style, attend=attend)
        self.upsamplers = nn.ModuleList([Upsample(channels[-1][1])]) if double else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', 2 H, 2 W)."""
        for number in range(len(self.resnets)):
            x = self.block(number, x)
        return x if self.upsamplers is None else self.upsamplers[0](x)


class PictureEncoder(nn.Module):
    """Pictures (B, in_channels, H, W) to features (B, channels, H / factor, W / factor)."""

    def __init__(self, config: Halves, channels: int) -> None:
        super().__init__()
        style, widths = _style(config), config.block_out_channels
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        for number, (width, kind) in enumerate(zip(widths, config.down_block_types, strict=True)):
            pairs = _pairs(widths[max(number - 1, 0)], width, config.layers_per_block)
            self.down_blocks.append(EncoderLevel(pairs, style, attend=DOWN[kind], halve=number < len(widths) - 1))
        self.mid_block = _middle(config, style)
        self.conv_norm_out = nn.GroupNorm(style.groups, widths[-1], EPS)
        self.conv_act = nn.SiLU()
        self.conv_out = nn.Conv2d(widths[-1], channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x in [−1, 1]."""
        x = self.conv_in(x)
        for level in self.down_blocks:
            x = level(x)
        x = self.conv_norm_out(self.mid_block(x))
        features: Tensor = self.conv_out(activate(self.conv_act, x))
        return features


class PictureDecoder(nn.Module):
    """Latents (B, latent_channels, h, w) to pictures (B, out_channels, h · factor, w · factor)."""

    def __init__(self, config: Halves) -> None:
        super().__init__()
        style, widths = _style(config), config.block_out_channels[::-1]
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = _middle(config, style)
        self.up_blocks = nn.ModuleList()
        for number, (width, kind) in enumerate(zip(widths, config.up_block_types, strict=True)):
            pairs = _pairs(widths[max(number - 1, 0)], width, config.layers_per_block + 1)
            self.up_blocks.append(DecoderLevel(pairs, style, attend=UP[kind], double=number < len(widths) - 1))
        self.conv_norm_out = nn.GroupNorm(style.groups, widths[-1], EPS)
        self.conv_act = nn.SiLU()
        self.conv_out = nn.Conv2d(widths[-1], config.out_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """z at the decoder's own scale."""
        x = self.mid_block(self.conv_in(z))
        for level in self.up_blocks:
            x = level(x)
        x = self.conv_norm_out(x)
        pictures: Tensor = self.conv_out(activate(self.conv_act, x))
        return pictures


def _style(config: Halves) -> BlockStyle:
    return BlockStyle(
        time_channels=None,
        groups=config.norm_num_groups,
        eps=EPS,
        activation=config.act_fn.lower(),
        dropout=0.0,
        scale_shift=False,
        head_dim=None,
    )


def _middle(config: Halves, style: BlockStyle) -> Middle:
    width = config.block_out_channels[-1]
    return Middle(width, style, attend=config.mid_block_add_attention, groups=style.groups)


def _pairs(given: int, made: int, layers: int) -> list[tuple[int, int]]:
    return [(given if layer == 0 else made, made) for layer in range(layers)]
