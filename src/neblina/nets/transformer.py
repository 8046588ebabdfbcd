"""Transformer blocks: attention among the places of a picture, attention to a text, and a feed-forward layer.

A block adds three things in turn to its tokens, each of normalised tokens: self-attention, cross-attention to the text
where there is one, and a feed-forward layer. The step of a diffusion, or a label, may scale and shift what is
normalised. A spatial transformer runs such blocks over the places of a feature map.

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
from neblina.nets.adaptive_norm import AdaLayerNorm
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

    def forward(
        self, tokens: Tensor, text: Tensor | None = None, *, causal: bool = False, kept: "Kept | None" = None
    ) -> Tensor:
        """tokens of shape (B, N, width), text of shape (B, L, text), to (B, N, width).

        causal: a token reads none behind itself. kept: what is read besides, and where these tokens are kept.
        """
        read = tokens if text is None else text
        q, k, v = (
            projected.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projected in (self.to_q(tokens), self.to_k(read), self.to_v(read))
        )
        if kept is not None:
            k, v = kept.extended(k, v)
        mixed: Tensor = self.to_out[1](self.to_out[0](attend(q, k, v, causal=causal).transpose(1, 2).flatten(2)))
        return mixed


@dataclass(frozen=True)
class Kept:
    """Keys and values of the tokens so far, and room for more: both (B, heads, room, head_dim), of which length are."""

    keys: Tensor
    values: Tensor
    length: int

    def extended(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Those so far and, behind them, new ones of shape (B, heads, N, head_dim), which are written into the room."""
        end = self.length + keys.shape[2]
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        return self.keys[:, :, :end], self.values[:, :, :end]


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


class ConvolutionalFeedForward(nn.Module):
    """A feed-forward layer that sees the neighbours: two convolutions of three by three places of a grid.

    Gu et al. Vector Quantized Diffusion Model for Text-to-Image Synthesis. CVPR 2022 (the released models of classes).
    """

    def __init__(self, width: int, grid: tuple[int, int], activation: str, dropout: float = 0.0) -> None:
        super().__init__()
        self.grid = grid
        self.bend = bends[activation].function
        self.conv1 = nn.Conv2d(width, 4 * width, 3, padding=1)
        self.conv2 = nn.Conv2d(4 * width, width, 3, padding=1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, height · width of the grid, width) to the same."""
        places = tokens.transpose(1, 2).reshape(len(tokens), -1, *self.grid)
        out: Tensor = self.dropout(self.conv2(self.bend(self.conv1(places))))
        return out.flatten(2).transpose(1, 2)


@dataclass(frozen=True)
class TokenStyle:
    """What the blocks of a transformer share.

    Attributes:
        heads, head_dim: of the attention; tokens are heads · head_dim wide.
        text: width of the vectors that are read, None for blocks that read none.
        text_only: the first attention of a block reads the text as well, so that no token looks at another one.
        bias: whether queries, keys and values have one.
        dropout: probability of dropping a number that is added to the tokens.
        activation: of the feed-forward layer, a name in `bends`.
        affine, eps: of the normalisations that nothing modulates.
        steps: how many steps there are that modulate what the attentions read, None for none.
        classes: how many labels there are that modulate what the feed-forward layer reads, None for none.
        grid: height and width of the places, where the feed-forward layer sees the neighbours; None where it does not.
    """

    heads: int
    head_dim: int
    text: int | None = None
    text_only: bool = False
    bias: bool = False
    dropout: float = 0.0
    activation: str = "geglu"
    affine: bool = True
    eps: float = 1e-5
    steps: int | None = None
    classes: int | None = None
    grid: tuple[int, int] | None = None

    @property
    def width(self) -> int:
        """Numbers in a token."""
        return self.heads * self.head_dim

    def attention(self, text: int | None) -> TokenAttention:
        """Among the tokens, or to a text of that width."""
        shared = {"heads": self.heads, "head_dim": self.head_dim}
        return TokenAttention(self.width, **shared, text=text, bias=self.bias, dropout=self.dropout)

    def norm(self, rows: int | None, what: str) -> nn.Module:
        """A normalisation that one of `rows` rows modulates, or none."""
        if rows is None:
            return nn.LayerNorm(self.width, self.eps, self.affine)
        return AdaLayerNorm(rows, self.width, what)

    def feed_forward(self) -> nn.Module:
        """Token by token, or over the grid."""
        if self.grid is None:
            return FeedForward(self.width, self.activation, self.dropout)
        return ConvolutionalFeedForward(self.width, self.grid, self.activation, self.dropout)


class TransformerBlock(nn.Module):
    """Self-attention, attention to a text if there is one, feed-forward; each adds to the tokens."""

    def __init__(self, style: TokenStyle) -> None:
        super().__init__()
        self.text_only = style.text_only
        self.norm1 = style.norm(style.steps, "time")
        self.attn1 = style.attention(style.text if style.text_only else None)
        self.norm2 = None if style.text is None else style.norm(style.steps, "time")
        self.attn2 = None if style.text is None else style.attention(style.text)
        self.norm3 = style.norm(style.classes, "label")
        self.ff = style.feed_forward()

    def forward(
        self,
        tokens: Tensor,
        text: Tensor | None = None,
        *,
        steps: Tensor | None = None,
        labels: Tensor | None = None,
        causal: bool = False,
        kept: Kept | None = None,
    ) -> Tensor:
        """tokens of shape (B, N, width), text of shape (B, L, text), steps and labels (B,) where they modulate."""
        read = text if self.text_only else None
        tokens = tokens + self.attn1(_normalised(self.norm1, tokens, steps), read, causal=causal, kept=kept)
        if self.norm2 is not None and self.attn2 is not None:
            tokens = tokens + self.attn2(_normalised(self.norm2, tokens, steps), text)
        out: Tensor = tokens + self.ff(_normalised(self.norm3, tokens, labels))
        return out


def _normalised(norm: nn.Module, tokens: Tensor, rows: Tensor | None) -> Tensor:
    out: Tensor = norm(tokens, rows) if isinstance(norm, AdaLayerNorm) else norm(tokens)
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
        block = TokenStyle(style.heads, channels // style.heads, text=style.text, text_only=style.text_only)
        inner = block.width
        self.norm = nn.GroupNorm(style.groups, channels, eps=1e-6)
        self.proj_in = _place_wise(channels, inner, linear=style.linear)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(block) for _ in range(depth)])
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
