"""The U-Net over levels of pixels: tokens of a grid in, the levels of the clean ones out.

The network is that of pictures. It reads every token as a number in [−1, 1], v_k = 2k / (K − 1) − 1, and beside it
whether it is masked (its number is 0 then). It says a logit a level, or, where levels are in order, two
numbers μ and l of a discretised logistic around what it read, truncated to the levels that there are:

    p(k) ∝ F((v_k + h − m) / s) − F((v_k − h − m) / s),    m = tanh(v_x + μ),   s = exp(l − 2),   h = 1 / (K − 1),

F the logistic function. As F(a) − F(b) = F(a) F(−b) (1 − exp(b − a)), and a − b = 2h/s is that of every level, the
logits are log F(a_k) + log F(−b_k): nothing cancels and nothing underflows.

Austin et al. Structured Denoising Diffusion Models in Discrete State-Spaces. NeurIPS 2021, section 6
and its appendix (parameters of a truncated logistic).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from neblina.core.conditions import Wants
from neblina.core.errors import SettingError
from neblina.nets.network import TokenNetwork, TokenNetworkConfig
from neblina.nets.token_transformer import check_tokens
from neblina.nets.unet import UNet, UNetConfig

_NAME = "PixelUNet"
READ = 2  # channels: the level as a number, and whether there is one


@dataclass(frozen=True)
class PixelUNetConfig:
    """The configuration; a config.json holds the U-Net's fields and these.

    Attributes:
        unet: of the network, with READ channels in, and `said(levels, logistic)` out; it says its sample_size.
        levels: K.
        logistic: whether it says a truncated logistic, not a logit a level.
    """

    unet: UNetConfig
    levels: int
    logistic: bool = False

    def __post_init__(self) -> None:
        """Refuse what does not fit together.

        Raises:
            SettingError: naming the field.
        """
        if self.levels < 2:
            raise SettingError(f"pixel unet config: levels = {self.levels}, and a pixel has 2 or more")
        for field, wanted in (("in_channels", READ), ("out_channels", said(self.levels, self.logistic))):
            if getattr(self.unet, field) != wanted:
                raise SettingError(f"pixel unet config: {field} = {getattr(self.unet, field)} is not {wanted}")
        if self.unet.sample_size is None:
            raise SettingError("pixel unet config: sample_size is missing: say how many pixels there are")

    @property
    def num_categories(self) -> int:
        """K: how many values a token of the data has; the mask is token K."""
        return self.levels

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width, in tokens."""
        size = self.unet.sample_size
        return size if isinstance(size, tuple) else (size or 0,) * 2

    @property
    def places(self) -> int:
        """How many tokens there are."""
        return prod(self.grid)

    @property
    def num_labels(self) -> int:
        """Rows of the class embeddings, the null's included; 0 for none."""
        return self.unet.num_labels

    @property
    def wants(self) -> Wants:
        """Nothing beside labels."""
        return Wants()

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "PixelUNetConfig":
        """Read a config.json.

        Raises:
            SettingError: an unknown field, one that is missing, or one that does not fit.
        """
        given = dict(config)
        levels, logistic = given.pop("levels", None), given.pop("logistic", False)
        if not isinstance(levels, int) or not isinstance(logistic, bool):
            raise SettingError(
                f"pixel unet config: levels = {levels!r} is a whole number, logistic = {logistic!r} true or false"
            )
        return cls(UNetConfig.from_dict(given), levels, logistic)

    def to_dict(self) -> dict[str, Any]:
        """What goes into config.json."""
        return {**self.unet.to_dict(), "_class_name": _NAME, "levels": self.levels, "logistic": self.logistic}


class PixelUNet(TokenNetwork):
    """net(x, time, labels=) -> logits of the clean tokens, shape (B, N, K)."""

    def __init__(self, config: PixelUNetConfig) -> None:
        super().__init__()
        self.config: TokenNetworkConfig = config
        self.levels, self.logistic, self.grid = config.levels, config.logistic, config.grid
        self.unet = UNet(config.unet)
        self.unet.channels_last()

    def forward(self, x: Tensor, time: Tensor, *, labels: Tensor | None = None) -> Tensor:
        """Predict.

        Args:
            x: tokens, shape (B, N), int64, in 0 … K, row by row; token K is the mask.
            time: shape (B,), any real numbers.
            labels: rows of the class embeddings, shape (B,).
        Returns:
            Logits over the K levels, float32 where it says a logistic.
        Raises:
            SettingError: labels missing or not wanted, or another number of tokens.
        """
        check_tokens(x, self.config.places, exactly=True)
        dtype = self.unet.conv_in.weight.dtype
        masked = x == self.levels
        value = torch.where(masked, 0.0, 2 * x / (self.levels - 1) - 1).to(dtype)
        read = torch.stack([value, masked.to(dtype)], 1).reshape(len(x), READ, *self.grid)
        made: Tensor = self.unet(read, time, labels).flatten(2).transpose(1, 2)
        return logistic_logits(value, made, self.levels) if self.logistic else made


def said(levels: int, logistic: bool) -> int:
    """Channels of what the U-Net says of a pixel."""
    return 2 if logistic else levels


def logistic_logits(value: Tensor, made: Tensor, levels: int) -> Tensor:
    """Logits of the truncated discretised logistic, float32 of shape (B, N, K).

    Args:
        value: v_x of what was read, shape (B, N).
        made: μ and l, shape (B, N, 2).
    """
    shift, width = made.float().unbind(-1)
    centre = torch.tanh(value.float() + shift)[..., None]
    levels_at = torch.linspace(-1, 1, levels, device=made.device)
    half, sharpness = 1 / (levels - 1), (2 - width).exp()[..., None]
    above, below = sharpness * (levels_at + half - centre), sharpness * (levels_at - half - centre)
    return logsigmoid(above) + logsigmoid(-below)
