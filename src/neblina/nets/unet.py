"""The DDPM U-Net: an encoder of residual levels, a middle, and a decoder that reads every feature map on its way.

Configuration and parameter names are those of diffusers' UNet2DModel, so weights load both ways. Every field of its
configuration is honoured or refused by name: many change the output without changing a single key.

Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. NeurIPS 2020, appendix B.
Ronneberger, Fischer, Brox. U-Net. MICCAI 2015.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from neblina.core.conditions import Wants
from neblina.core.errors import SettingError, choose
from neblina.nets.blocks import BlockStyle, DownLevel, Middle, UpLevel, activations
from neblina.nets.configuration import check_sample_size, read_config, write_config
from neblina.nets.embeddings import LearnedSteps, RandomFourier, Sinusoidal, TimeMLP
from neblina.nets.label_embeddings import LABELS, Room
from neblina.nets.levels import DOWN, RESIDUAL, UP
from neblina.nets.network import Network

_LABELS = ("timestep", "identity")


@dataclass(frozen=True)
class UNetConfig:
    """The configuration, field for field diffusers' UNet2DModel's; only what each does to us is said here.

    Attributes:
        sample_size: the resolution it is meant for; any that can be halved as often as there are levels runs.
        center_input_sample: the input is 2 x − 1.
        time_embedding_type: positional, fourier (which also divides the output by the time) or learned.
        downsample_padding: of the halving convolutions; 0 adds a row and a column of zeros at the far side.
        downsample_type, upsample_type: how levels that attend change their resolution: "conv", or inside a residual
            block, "resnet". Without attention the type of block says it.
        attention_head_dim: channels of a head, None for one head.
        attn_norm_num_groups: groups before the middle's attention; None is norm_num_groups, or no normalisation
            where resnet_time_scale_shift is "scale_shift".
        class_embed_type: None for a table of num_class_embeds rows; "timestep" for labels that are embedded like the
            time; "identity" for labels that are embeddings.
        num_class_embeds: rows of the class embedding, the null class included; None for an unconditional network.
    """

    sample_size: int | tuple[int, int] | None = None
    in_channels: int = 3
    out_channels: int = 3
    center_input_sample: bool = False
    time_embedding_type: str = "positional"
    time_embedding_dim: int | None = None
    freq_shift: int = 0
    flip_sin_to_cos: bool = True
    down_block_types: tuple[str, ...] = (
        "DownBlock2D",
        "AttnDownBlock2D",
        "AttnDownBlock2D",
        "AttnDownBlock2D",
    )
    mid_block_type: str | None = "UNetMidBlock2D"
    up_block_types: tuple[str, ...] = ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D")
    block_out_channels: tuple[int, ...] = (224, 448, 672, 896)
    layers_per_block: int = 2
    mid_block_scale_factor: float = 1
    downsample_padding: int = 1
    downsample_type: str = "conv"
    upsample_type: str = "conv"
    dropout: float = 0.0
    act_fn: str = "silu"
    attention_head_dim: int | None = 8
    norm_num_groups: int = 32
    attn_norm_num_groups: int | None = None
    norm_eps: float = 1e-5
    resnet_time_scale_shift: str = "default"
    add_attention: bool = True
    class_embed_type: str | None = None
    num_class_embeds: int | None = None
    num_train_timesteps: int | None = None

    def __post_init__(self) -> None:
        """Refuse what the network cannot honour.

        Raises:
            SettingError: naming the field.
        """
        for name in self.down_block_types:
            choose("down_block_types entry this network has", name, DOWN)
        for name in self.up_block_types:
            choose("up_block_types entry this network has", name, UP)
        choose("activation (act_fn)", self.act_fn.lower(), activations)
        choose("time_embedding_type", self.time_embedding_type, _TIMES)
        choose("resnet_time_scale_shift", self.resnet_time_scale_shift, ("default", "scale_shift"))
        for field in ("downsample_type", "upsample_type"):
            choose(field, getattr(self, field), RESIDUAL)
        if self.class_embed_type is not None:
            choose("class_embed_type this network has", self.class_embed_type, _LABELS)
        if self.mid_block_type not in ("UNetMidBlock2D", None):
            raise SettingError(f"unet config: mid_block_type = {self.mid_block_type!r} is not supported")
        levels = len(self.block_out_channels)
        if not len(self.down_block_types) == len(self.up_block_types) == levels:
            raise SettingError(
                f"unet config: {levels} block_out_channels, {len(self.down_block_types)} down_block_types and "
                f"{len(self.up_block_types)} up_block_types; there must be one of each a level"
            )
        if self.time_embedding_type == "learned" and self.num_train_timesteps is None:
            raise SettingError("unet config: time_embedding_type 'learned' needs num_train_timesteps")
        for channels in self.block_out_channels:
            if channels % self.norm_num_groups:
                raise SettingError(
                    f"unet config: block_out_channels {channels} cannot be split into norm_num_groups "
                    f"{self.norm_num_groups}"
                )
            if self.attention_head_dim is not None and channels < self.attention_head_dim:
                raise SettingError(
                    f"unet config: attention_head_dim {self.attention_head_dim} is wider than a level of {channels}"
                )
        check_sample_size("unet", self.sample_size)
        if self.sample_size is not None:
            self.check_size(*((self.sample_size,) * 2 if isinstance(self.sample_size, int) else self.sample_size))

    @property
    def labelled(self) -> bool:
        """Whether labels are read, be it from a table or as numbers."""
        return self.class_embed_type is not None or self.num_class_embeds is not None

    def check_size(self, height: int, width: int) -> None:
        """Refuse a resolution that cannot be halved once a level but the last.

        Raises:
            SettingError: naming the resolution.
        """
        step = self.multiple
        if height % step or width % step or height < step or width < step:
            raise SettingError(
                f"a U-Net of {len(self.block_out_channels)} levels halves its input {len(self.block_out_channels) - 1} "
                f"times, and {height}x{width} is no multiple of {step}; change the resolution or take fewer levels"
            )

    @property
    def multiple(self) -> int:
        """What height and width must be multiples of."""
        return 1 << (len(self.block_out_channels) - 1)

    @property
    def made(self) -> int:
        """Channels that come out."""
        return self.out_channels

    @property
    def num_labels(self) -> int:
        """Rows of the class embedding, the null class included."""
        return self.num_class_embeds or 0

    @property
    def wants(self) -> Wants:
        """Nothing beside labels."""
        return Wants()

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "UNetConfig":
        """Read a config.json; keys that begin with an underscore are its writer's own.

        Raises:
            SettingError: an unknown or unsupported field.
        """
        return read_config(cls, "UNet2DModel", config)

    def to_dict(self) -> dict[str, Any]:
        """What goes into config.json, with the class that diffusers opens it as."""
        return write_config(self, "UNet2DModel")


@dataclass(frozen=True)
class _Time:
    """A time_embedding_type.

    Attributes:
        waves: the module that spreads the time out.
        divides: whether the network's output is divided by the time.
    """

    waves: Callable[[UNetConfig], Sinusoidal | RandomFourier | LearnedSteps]
    divides: bool = False


_TIMES = {
    "positional": _Time(
        lambda config: Sinusoidal(
            config.block_out_channels[0], cos_first=config.flip_sin_to_cos, shift=config.freq_shift
        )
    ),
    "fourier": _Time(lambda config: RandomFourier(config.block_out_channels[0]), divides=True),
    "learned": _Time(lambda config: LearnedSteps(config.num_train_timesteps or 0, config.block_out_channels[0])),
}


class UNet(Network):
    """net(x, time, labels) -> prediction, all of shape (B, channels, H, W)."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config: UNetConfig = config
        widths = config.block_out_channels
        time_channels = config.time_embedding_dim or 4 * widths[0]
        style = BlockStyle(
            time_channels=time_channels,
            groups=config.norm_num_groups,
            eps=config.norm_eps,
            activation=config.act_fn.lower(),
            dropout=config.dropout,
            scale_shift=config.resnet_time_scale_shift == "scale_shift",
            head_dim=config.attention_head_dim,
        )
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.time_proj = _TIMES[config.time_embedding_type].waves(config)
        self.time_embedding = TimeMLP(self.time_proj.width, time_channels)
        if config.labelled:
            room = Room(time_channels, config.num_class_embeds or 0, self.time_proj.width)
            self.class_embedding = LABELS[config.class_embed_type].build(room)
        self.down_blocks = nn.ModuleList()
        for number, (width, kind) in enumerate(zip(widths, config.down_block_types, strict=True)):
            given = widths[max(number - 1, 0)]
            channels = [(given if layer == 0 else width, width) for layer in range(config.layers_per_block)]
            down = DOWN[kind]
            self.down_blocks.append(
                DownLevel(
                    channels,
                    style,
                    attend=down.attends,
                    halve=number < len(widths) - 1,
                    padding=config.downsample_padding,
                    residual=RESIDUAL[config.downsample_type] if down.residual is None else down.residual,
                )
            )
        self.mid_block = self._middle(config, style)
        self.up_blocks = nn.ModuleList()
        rising = widths[::-1]
        for number, (width, kind) in enumerate(zip(rising, config.up_block_types, strict=True)):
            last = number == len(widths) - 1
            channels = []
            for layer in range(config.layers_per_block + 1):
                below = rising[max(number - 1, 0)] if layer == 0 else width
                kept = rising[min(number + 1, len(widths) - 1)] if layer == config.layers_per_block else width
                channels.append((below + kept, width))
            up = UP[kind]
            residual = RESIDUAL[config.upsample_type] if up.residual is None else up.residual
            self.up_blocks.append(UpLevel(channels, style, attend=up.attends, double=not last, residual=residual))
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, widths[0], config.norm_eps)
        self.conv_out = nn.Conv2d(widths[0], config.out_channels, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        """Predict.

        Args:
            x: shape (B, in_channels, H, W), H and W divisible by 2^(levels − 1).
            time: shape (B,), float32, in the unit of the clock it was trained with.
            labels: rows of the class embedding, shape (B,), or what else class_embed_type reads; required if and only
                if the network has one.
        Raises:
            SettingError: labels missing or not wanted, or a resolution that cannot be halved.
        """
        conditional = self.config.labelled
        if conditional != (labels is not None):
            raise SettingError("this network needs labels" if conditional else "this network takes no labels")
        self.config.check_size(*x.shape[-2:])
        if self.config.center_input_sample:
            x = 2 * x - 1
        embedded = self.time_embedding(self.time_proj(time).to(x.dtype))
        if labels is not None:
            told = LABELS[self.config.class_embed_type].reads(labels, self.time_proj, x.dtype)
            embedded = embedded + self.class_embedding(told)
        x = self.conv_in(x)
        kept = [x]
        for level in self.down_blocks:
            x, made = level(x, embedded)
            kept += made
        if self.mid_block is not None:
            x = self.mid_block(x, embedded)
        for level in self.up_blocks:
            x = level(x, kept, embedded)
        out: Tensor = self.conv_out(nn.functional.silu(self.conv_norm_out(x)))
        if _TIMES[self.config.time_embedding_type].divides:
            out = out / time[:, None, None, None].to(out.dtype)
        return out

    @staticmethod
    def _middle(config: UNetConfig, style: BlockStyle) -> Middle | None:
        if config.mid_block_type is None:
            return None
        groups = config.attn_norm_num_groups
        if groups is None and not style.scale_shift:
            groups = style.groups
        scaled = BlockStyle(**{**asdict(style), "output_scale": config.mid_block_scale_factor})
        return Middle(config.block_out_channels[-1], scaled, attend=config.add_attention, groups=groups)
