"""A classifier of noisy pictures: the encoder half of the U-Net, a mean over all places, and one linear layer.

Dhariwal, Nichol. Diffusion Models Beat GANs on Image Synthesis. NeurIPS 2021, section 4 (the U-Net's downsampling trunk
with a pooling at its end; theirs is an attention pooling).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from neblina.core.errors import SettingError, choose
from neblina.nets.blocks import BlockStyle, DownLevel, Middle
from neblina.nets.embeddings import Sinusoidal, TimeMLP


@dataclass(frozen=True)
class EncoderConfig:
    """The configuration.

    Attributes:
        shape: (C, H, W) of the pictures; H and W divisible by 2^(levels − 1).
        classes: how many.
        channels: feature maps at each resolution, from the full one down.
        attention: largest side of a feature map that is attended over, 0 for nowhere.
        blocks: residual blocks a level.
        dropout: probability of dropping a feature.
        head_dim: channels of an attention head, None for a single head.
        groups: groups of the normalisations.
        scale_shift: the time scales and shifts the normalisation instead of being added before it.
    """

    shape: tuple[int, int, int]
    classes: int
    channels: tuple[int, ...] = (32, 64)
    attention: int = 16
    blocks: int = 2
    dropout: float = 0.0
    head_dim: int | None = 8
    groups: int = 32
    scale_shift: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be built.

        Raises:
            SettingError: naming the setting.
        """
        if self.classes < 2:
            raise SettingError(f"a classifier tells at least 2 classes apart, and there are {self.classes}")
        step = 2 ** (len(self.channels) - 1)
        _, height, width = self.shape
        if height % step or width % step:
            raise SettingError(
                f"{len(self.channels)} levels halve their input {len(self.channels) - 1} times, and {height}x{width} "
                f"is no multiple of {step}; change the resolution or take fewer levels"
            )
        for made in self.channels:
            if made % self.groups or (self.head_dim is not None and made < self.head_dim):
                raise SettingError(
                    f"a level of {made} channels cannot be split into {self.groups} groups and heads of {self.head_dim}"
                )

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> "EncoderConfig":
        """From a config.json.

        Raises:
            SettingError: a field that there is not, or one that is missing.
        """
        for name in given:
            choose("field of a classifier's configuration", name, (field.name for field in fields(cls)))
        for name in ("shape", "classes"):
            if name not in given:
                raise SettingError(f"the classifier's configuration lacks {name}")
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        return cls(**plain)

    def to_dict(self) -> dict[str, Any]:
        """What goes into config.json."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


class Encoder(nn.Module):
    """net(x, time) -> scores of the classes."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.channels
        time_channels = 4 * widths[0]
        style = BlockStyle(
            time_channels=time_channels,
            groups=config.groups,
            eps=1e-5,
            activation="silu",
            dropout=config.dropout,
            scale_shift=config.scale_shift,
            head_dim=config.head_dim,
        )
        self.conv_in = nn.Conv2d(config.shape[0], widths[0], 3, padding=1)
        self.time_proj = Sinusoidal(widths[0], cos_first=True, shift=0)
        self.time_embedding = TimeMLP(widths[0], time_channels)
        self.down_blocks = nn.ModuleList()
        for number, width in enumerate(widths):
            given = widths[max(number - 1, 0)]
            channels = [(given if layer == 0 else width, width) for layer in range(config.blocks)]
            attend = max(config.shape[1:]) // 2**number <= config.attention
            halve = number < len(widths) - 1
            self.down_blocks.append(DownLevel(channels, style, attend=attend, halve=halve, padding=1))
        self.mid_block = Middle(widths[-1], style, attend=True, groups=config.groups)
        self.norm_out = nn.GroupNorm(config.groups, widths[-1])
        self.head = nn.Linear(widths[-1], config.classes)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Scores, shape (B, classes), of x of shape (B, C, H, W) at times of shape (B,), float32."""
        embedded = self.time_embedding(self.time_proj(time).to(x.dtype))
        x = self.conv_in(x)
        for level in self.down_blocks:
            x, _ = level(x, embedded)
        x = self.mid_block(x, embedded)
        pooled = torch.nn.functional.silu(self.norm_out(x)).mean((2, 3))
        scores: Tensor = self.head(pooled)
        return scores
