"""Transformer blocks: attention among the places of a picture, attention to a text, and a gated feed-forward layer.

A block adds three things in turn to its tokens, each of normalised tokens: self-attention, cross-attention to the text,
and a feed-forward layer. A spatial transformer runs such blocks over the places of a feature map.

Vaswani et al. Attention Is All You Need. NeurIPS 2017.
Rombach et al. High-Resolution Image Synthesis with Latent Diffusion Models. CVPR 2022, section 3.3 and appendix E.2.1.
Shazeer. GLU Variants Improve Transformer. 2020 (the gated feed-forward layer).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neblina.core.registry import Registry
from neblina.nets.blocks import attend


@dataclass(frozen=True)
class Bend:
    """The nonlinearity of a feed-forward layer.

    Attributes:
        function: applied to the features, or to the gate's if there is one.
        gated: a second half of the features, not bent, is multiplied with it.
    """

    function: Callable[[Tensor], Tensor]
    gated: bool = False


def _tanh_gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _sigmoid_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


bends: Registry[Bend] = Registry("feed-forward activation (activation_fn)")
bends.add(Bend(F.gelu, gated=True), "geglu")
bends.add(Bend(F.gelu), "gelu")
bends.add(Bend(_tanh_gelu), "gelu-approximate")
bends.add(Bend(_sigmoid_gelu), "geglu-approximate")  # the ecosystem's name; there is no gate in it
bends.add(Bend(F.silu, gated=True), "swiglu")
bends.add(Bend(F.silu), "linear-silu")


class TokenAttention(nn.Module):
    """Tokens look at themselves, or at a text."""

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        head_dim: int,
        text: int | None = None,
        bias: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        inner = heads * head_dim
        self.heads = heads
        self.to_q = nn.Linear(width, inner, bias=bias)
        self.to_k = nn.Linear(text or width, inner, bias=bias)
        self.to_v = nn.Linear(text or width, inner, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(inner, width), nn.Dropout(dropout)])

    def forward(self, tokens: Tensor, text: Tensor | None = None) -> Tensor:
        """tokens of shape (B, N, width), text of shape (B, L, text), to (B, N, width)."""
        read = tokens if text is None else text
        q, k, v = (
            projected.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projected in (self.to_q(tokens), self.to_k(read), self.to_v(read))
        )
        mixed: Tensor = self.to_out[1](self.to_out[0](attend(q, k, v).transpose(1, 2).flatten(2)))
        return mixed


class Projected(nn.Module):
    """A linear layer and its nonlinearity."""

    def __init__(self, width: int, inner: int, bend: Bend) -> None:
        super().__init__()
        self.bend = bend
        self.proj = nn.Linear(width, inner * (2 if bend.gated else 1))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, width) to (B, N, inner)."""
        features: Tensor = self.proj(tokens)
        if not self.bend.gated:
            return self.bend.function(features)
        plain, gate = features.chunk(2, dim=-1)
        bent = self.bend.function(gate)
        # the widest tensor of the network: without gradients, no second one is made
        return plain * bent if torch.is_grad_enabled() else bent.mul_(plain)


class FeedForward(nn.Module):
    """Two linear layers, four times as wide in between."""

    def __init__(self, width: int, activation: str = "geglu", dropout: float = 0.0) -> None:
        super().__init__()
        inner = 4 * width
        self.net = nn.Sequential(
            Projected(width, inner, bends[activation]), nn.Dropout(dropout), nn.Linear(inner, width)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, width) to the same."""
        out: Tensor = self.net(tokens)
        return out


class TransformerBlock(nn.Module):
    """Self-attention, attention to the text, feed-forward; each adds to the tokens."""

    def __init__(self, width: int, *, heads: int, head_dim: int, text: int, text_only: bool) -> None:
        super().__init__()
        self.text_only = text_only
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = TokenAttention(width, heads=heads, head_dim=head_dim, text=text if text_only else None)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = TokenAttention(width, heads=heads, head_dim=head_dim, text=text)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, tokens: Tensor, text: Tensor) -> Tensor:
        """tokens of shape (B, N, width), text of shape (B, L, text)."""
        tokens = tokens + self.attn1(self.norm1(tokens), text if self.text_only else None)
        tokens = tokens + self.attn2(self.norm2(tokens), text)
        out: Tensor = tokens + self.ff(self.norm3(tokens))
        return out


@dataclass(frozen=True)
class TransformerStyle:
    """What the transformers of one level share.

    Attributes:
        heads: attention heads; each is channels // heads wide.
        text: width of the text's vectors.
        groups: groups of the normalisation before the first block.
        text_only: the first attention of a block reads the text as well, so that no place looks at another one.
        linear: the projections are stored as linear layers, not as convolutions of one place; equal but for the shape.
    """

    heads: int
    text: int
    groups: int
    text_only: bool
    linear: bool


class SpatialTransformer(nn.Module):
    """Transformer blocks over the places of a feature map, added to it."""

    def __init__(self, channels: int, depth: int, style: TransformerStyle) -> None:
        super().__init__()
        head_dim = channels // style.heads
        inner = style.heads * head_dim
        self.norm = nn.GroupNorm(style.groups, channels, eps=1e-6)
        self.proj_in = _place_wise(channels, inner, linear=style.linear)
        self.transformer_blocks = nn.ModuleList(
            [
                TransformerBlock(
                    inner, heads=style.heads, head_dim=head_dim, text=style.text, text_only=style.text_only
                )
                for _ in range(depth)
            ]
        )
        self.proj_out = _place_wise(inner, channels, linear=style.linear)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """x of shape (B, C, H, W), text of shape (B, L, D)."""
        tokens = _project(self.norm(x).flatten(2).transpose(1, 2), self.proj_in)
        for block in self.transformer_blocks:
            tokens = block(tokens, text)
        added = _project(tokens, self.proj_out).transpose(1, 2).reshape(x.shape)
        return x + added


def _place_wise(given: int, made: int, *, linear: bool) -> nn.Linear | nn.Conv2d:
    return nn.Linear(given, made) if linear else nn.Conv2d(given, made, 1)


def _project(tokens: Tensor, layer: nn.Linear | nn.Conv2d) -> Tensor:
    """A convolution of one place is a linear layer: no change of layout is needed for it."""
    return F.linear(tokens, layer.weight.flatten(1), layer.bias)
