"""The parts of a convolutional U-Net, with the parameter names of the ecosystem's checkpoints.

A residual block adds the time embedding between two normalised convolutions; attention looks over all places of a
feature map; down- and upsampling halve and double it.

Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. NeurIPS 2020, appendix B.
Dhariwal, Nichol. Diffusion Models Beat GANs on Image Synthesis. NeurIPS 2021 (scale-shift normalisation).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neblina.core.registry import Registry

activations: Registry[type[nn.Module]] = Registry("activation")
activations.add(nn.SiLU, "silu", "swish")
activations.add(nn.Mish, "mish")
activations.add(nn.GELU, "gelu")
activations.add(nn.ReLU, "relu")


@dataclass(frozen=True)
class BlockStyle:
    """What all blocks of a network share.

    Attributes:
        time_channels: width of the time embedding, None for a network that is not told the time.
        groups: groups of the normalisations.
        eps: their epsilon.
        activation: a name in `activations`.
        dropout: probability of dropping a feature in a residual block.
        scale_shift: the time embedding scales and shifts the second normalisation, instead of being added before it.
        head_dim: channels of an attention head, None for a single head.
        output_scale: residual sums are divided by it.
    """

    time_channels: int | None
    groups: int
    eps: float
    activation: str
    dropout: float
    scale_shift: bool
    head_dim: int | None
    output_scale: float = 1.0


def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False) -> Tensor:
    """Scaled dot-product attention, all of shape (B, heads, N, width); causal: a place reads none behind itself.

    On the CPU, narrow heads in half precision are attended in float32: PyTorch's backward kernel is six times slower
    otherwise (docs/log.md).
    """
    if q.device.type == "cpu" and q.dtype in (torch.bfloat16, torch.float16) and q.shape[-1] < 64:
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=causal).to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


def activate(activation: nn.Module, x: Tensor) -> Tensor:
    """The activation of a tensor that nobody else reads: in its own memory, unless a gradient will ask for it."""
    if isinstance(activation, nn.SiLU) and not x.requires_grad:
        return F.silu(x, inplace=True)
    active: Tensor = activation(x)
    return active


class ResnetBlock(nn.Module):
    """x + conv(act(norm(conv(act(norm(x))) + time))), without the time for a style that has none.

    `resize` is done to x and to its first activation.
    """

    def __init__(
        self, in_channels: int, out_channels: int, style: BlockStyle, resize: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.resize = resize
        self.norm1 = nn.GroupNorm(style.groups, in_channels, style.eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        if style.time_channels is not None:
            self.time_emb_proj = nn.Linear(style.time_channels, out_channels * (2 if style.scale_shift else 1))
        self.norm2 = nn.GroupNorm(style.groups, out_channels, style.eps)
        self.dropout = nn.Dropout(style.dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None
        self.activation = activations[style.activation]()
        self.scale_shift = style.scale_shift
        self.output_scale = style.output_scale

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """x of shape (B, C, H, W), time of shape (B, time_channels)."""
        hidden = activate(self.activation, self.norm1(x))
        if self.resize is not None:
            x, hidden = self.resize(x), self.resize(hidden)
        hidden = self.conv1(hidden)
        if time is None:
            hidden = self.norm2(hidden)
        else:
            embedded = self.time_emb_proj(self.activation(time))[:, :, None, None]
            if self.scale_shift:
                scale, shift = embedded.chunk(2, dim=1)
                hidden = self.norm2(hidden) * (1 + scale) + shift
            else:
                hidden = self.norm2(hidden + embedded)
        hidden = self.conv2(self.dropout(activate(self.activation, hidden)))
        shortcut = x if self.conv_shortcut is None else self.conv_shortcut(x)
        total: Tensor = shortcut + hidden
        return total if self.output_scale == 1 else total / self.output_scale


class Attention(nn.Module):
    """Self-attention over the places of a feature map, with a residual connection."""

    def __init__(self, channels: int, style: BlockStyle, *, groups: int | None) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, style.eps) if groups is not None else None
        self.heads = 1 if style.head_dim is None else channels // style.head_dim
        inner = self.heads * (channels if style.head_dim is None else style.head_dim)
        self.to_q = nn.Linear(channels, inner)
        self.to_k = nn.Linear(channels, inner)
        self.to_v = nn.Linear(channels, inner)
        self.to_out = nn.ModuleList([nn.Linear(inner, channels), nn.Dropout(0.0)])
        self.output_scale = style.output_scale

    def forward(self, x: Tensor) -> Tensor:
        """x of shape (B, C, H, W)."""
        batch, channels, height, width = x.shape
        tokens = (x if self.group_norm is None else self.group_norm(x)).flatten(2).transpose(1, 2)
        q, k, v = (
            project(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        mixed = attend(q, k, v).transpose(1, 2).flatten(2)
        out = self.to_out[0](mixed).transpose(1, 2).reshape(batch, channels, height, width)
        total: Tensor = x + out
        return total if self.output_scale == 1 else total / self.output_scale


def halved(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C, H/2, W/2), by means of two by two places."""
    return F.avg_pool2d(x, 2)


def doubled(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C, 2 H, 2 W), each place four times."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class Downsample(nn.Module):
    """A convolution of stride 2; without padding, one row and one column of zeros at the far side."""

    def __init__(self, channels: int, padding: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=padding)
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H/2, W/2)."""
        halved: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)) if self.padding == 0 else x)
        return halved


class Upsample(nn.Module):
    """Nearest-neighbour doubling, or one row or column less, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """(B, C, H, W) to (B, C, *size); size is that of the map which was halved to x's, or None for double."""
        height, width = size or (2 * x.shape[2], 2 * x.shape[3])
        raised: Tensor = self.conv(F.interpolate(x, size=(height, width), mode="nearest"))
        return raised


class Level(nn.Module):
    """Residual blocks at one resolution, each followed by attention where `attend`, and a change of resolution.

    In place of attention there may be `readers`: modules called with a feature map and a text, one a block.
    On the way down it keeps every feature map it made; on the way up it consumes one a block.
    """

    def __init__(
        self,
        channels: list[tuple[int, int]],
        style: BlockStyle,
        *,
        attend: bool,
        readers: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([ResnetBlock(given, made, style) for given, made in channels])
        if attend:
            readers = [Attention(made, style, groups=style.groups) for _, made in channels]
        if readers:
            self.attentions = nn.ModuleList(readers)
        self.attend = attend
        self.reads = bool(readers) and not attend

    def block(self, number: int, x: Tensor, time: Tensor | None = None, text: Tensor | None = None) -> Tensor:
        """One residual block with its attention."""
        x = self.resnets[number](x, time)
        if self.reads:
            read: Tensor = self.attentions[number](x, text)
            return read
        return self.attentions[number](x) if self.attend else x


class DownLevel(Level):
    """A level of the encoder; it is halved by a convolution, or inside a residual block."""

    def __init__(
        self,
        channels: list[tuple[int, int]],
        style: BlockStyle,
        *,
        attend: bool,
        halve: bool,
        padding: int,
        readers: Sequence[nn.Module] = (),
        residual: bool = False,
    ) -> None:
        super().__init__(channels, style, attend=attend, readers=readers)
        made = channels[-1][1]
        self.downsamplers: nn.ModuleList | None = None
        if halve:
            last = ResnetBlock(made, made, style, halved) if residual else Downsample(made, padding)
            self.downsamplers = nn.ModuleList([last])
        self.residual = residual

    def forward(self, x: Tensor, time: Tensor, text: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """The level's last feature map, and every one it made for the way up."""
        made: list[Tensor] = []
        for number in range(len(self.resnets)):
            x = self.block(number, x, time, text)
            made.append(x)
        if self.downsamplers is not None:
            x = self.downsamplers[0](x, time) if self.residual else self.downsamplers[0](x)
            made.append(x)
        return x, made


class UpLevel(Level):
    """A level of the decoder; it is doubled before a convolution, or inside a residual block."""

    def __init__(
        self,
        channels: list[tuple[int, int]],
        style: BlockStyle,
        *,
        attend: bool,
        double: bool,
        readers: Sequence[nn.Module] = (),
        residual: bool = False,
    ) -> None:
        super().__init__(channels, style, attend=attend, readers=readers)
        made = channels[-1][1]
        self.upsamplers: nn.ModuleList | None = None
        if double:
            self.upsamplers = nn.ModuleList([ResnetBlock(made, made, style, doubled) if residual else Upsample(made)])
        self.residual = residual

    def forward(self, x: Tensor, kept: list[Tensor], time: Tensor, text: Tensor | None = None) -> Tensor:
        """Consumes the last feature maps of `kept`, and comes to the size of the one before them."""
        for number in range(len(self.resnets)):
            x = self.block(number, torch.cat([x, kept.pop()], dim=1), time, text)
        if self.upsamplers is not None:
            upsample, size = self.upsamplers[0], tuple(kept[-1].shape[-2:])
            x = upsample(x, time) if self.residual else upsample(x, size)
        return x


class Middle(nn.Module):
    """Residual block, attention, residual block at the lowest resolution."""

    def __init__(self, channels: int, style: BlockStyle, *, attend: bool, groups: int | None) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([ResnetBlock(channels, channels, style) for _ in range(2)])
        self.attentions = nn.ModuleList([Attention(channels, style, groups=groups)] if attend else [])

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """x of shape (B, C, H, W)."""
        x = self.resnets[0](x, time)
        for attention in self.attentions:
            x = attention(x)
        out: Tensor = self.resnets[1](x, time)
        return out


class ReadingMiddle(nn.Module):
    """The middle of a network that reads a text: residual block, reader, residual block; or one residual block."""

    def __init__(self, channels: int, style: BlockStyle, reader: nn.Module | None) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([] if reader is None else [reader])
        self.resnets = nn.ModuleList([ResnetBlock(channels, channels, style) for _ in range(1 + len(self.attentions))])

    def forward(self, x: Tensor, time: Tensor, text: Tensor | None) -> Tensor:
        """x of shape (B, C, H, W)."""
        x = self.resnets[0](x, time)
        for reader, resnet in zip(self.attentions, list(self.resnets)[1:], strict=True):
            x = resnet(reader(x, text), time)
        return x
