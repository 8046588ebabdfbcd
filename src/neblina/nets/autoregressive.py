"""An autoregressive transformer over tokens: each is predicted from those before it, one at a time.

    p(x) = Π_n p(x_n | x_1 … x_{n−1})

The blocks are those of discrete diffusion without the time, each token reading none behind itself. The sequence is read
one place later than it is predicted, behind a vector of beginning that the label chooses. In generation the keys and
values of what was read are kept, so that a token costs one pass of one token.

van den Oord, Kalchbrenner, Kavukcuoglu. Pixel Recurrent Neural Networks. ICML 2016, eq. 1.
Esser, Rombach, Ommer. Taming Transformers for High-Resolution Image Synthesis. CVPR 2021, section 3.2.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from neblina.core.errors import SettingError, choose
from neblina.nets.adaptive_norm import look_up
from neblina.nets.configuration import check_sample_size, read_config, write_config
from neblina.nets.token_config import Places
from neblina.nets.token_transformer import check_tokens, start_small
from neblina.nets.transformer import Kept, TokenStyle, TransformerBlock, bends

_NAME = "AutoregressiveTransformer"


@dataclass(frozen=True)
class AutoregressiveConfig(Places):
    """The configuration.

    Attributes:
        num_categories: K, how many values a token has; there is no mask.
        sample_size: how many tokens there are; or height and width of a grid of them, read row by row.
        num_attention_heads, attention_head_dim: tokens are their product wide.
        num_layers: how many blocks.
        dropout: probability of dropping a number that is added to the tokens.
        attention_bias: whether queries, keys and values have a bias.
        activation_fn: of the feed-forward layer.
        num_class_embeds: how many labels there are, the null included; None for none.
    """

    num_categories: int
    sample_size: int | tuple[int, int]
    num_attention_heads: int = 8
    attention_head_dim: int = 32
    num_layers: int = 8
    dropout: float = 0.0
    attention_bias: bool = True
    activation_fn: str = "geglu-approximate"
    num_class_embeds: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be built.

        Raises:
            SettingError: naming the field.
        """
        choose("feed-forward activation (activation_fn)", self.activation_fn, bends)
        check_sample_size("autoregressive transformer", self.sample_size)
        for field in ("num_categories", "num_attention_heads", "attention_head_dim", "num_layers", "num_class_embeds"):
            if (size := getattr(self, field)) is not None and size < 1:
                raise SettingError(f"autoregressive transformer config: {field} = {size} is less than 1")

    @property
    def style(self) -> TokenStyle:
        """Of its blocks."""
        return TokenStyle(
            heads=self.num_attention_heads,
            head_dim=self.attention_head_dim,
            bias=self.attention_bias,
            dropout=self.dropout,
            activation=self.activation_fn,
        )

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "AutoregressiveConfig":
        """Read a config.json.

        Raises:
            SettingError: an unknown field, or one that is missing.
        """
        return read_config(cls, _NAME, config)

    def to_dict(self) -> dict[str, Any]:
        """What goes into config.json."""
        return write_config(self, _NAME)


@dataclass(frozen=True)
class Cache:
    """What was read so far.

    A step writes into the memory of the cache that it is given, which is used up: go on with the one that comes back.

    Attributes:
        keys, values: of every block, each of shape (blocks, B, heads, places, head_dim).
        length: how many places were read, the beginning included.
    """

    keys: Tensor
    values: Tensor
    length: int

    def of(self, block: int) -> Kept:
        """What one block has read."""
        return Kept(self.keys[block], self.values[block], self.length)


class AutoregressiveTransformer(nn.Module):
    """net(tokens, labels=) -> logits of shape (B, N, K): those of token n depend on the tokens before it."""

    def __init__(self, config: AutoregressiveConfig) -> None:
        super().__init__()
        self.config = config
        style = config.style
        self.emb = nn.Embedding(config.num_categories, style.width)
        self.begin_emb = nn.Embedding(config.num_class_embeds or 1, style.width)
        self.position_emb = nn.Embedding(config.places, style.width)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(style) for _ in range(config.num_layers)])
        self.norm_out = nn.LayerNorm(style.width)
        self.out = nn.Linear(style.width, config.num_categories)
        self.apply(start_small)

    def forward(self, tokens: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits of all tokens at once, as training wants them.

        Args:
            tokens: shape (B, N), int64, in 0 … K − 1; N from 1 to the number of places. The last is predicted only.
            labels: shape (B,), the null included.
        Returns:
            Shape (B, N, K).
        Raises:
            SettingError: labels are missing or not wanted, or tokens of another shape; on the CPU, out of range.
        """
        check_tokens(tokens, self.config.places)
        hidden = self._begun(len(tokens), labels, tokens[:, :-1])
        for block in self.transformer_blocks:
            hidden = block(hidden, causal=True)
        return self._said(hidden)

    @torch.no_grad()
    def begin(self, count: int, labels: Tensor | None = None, prefix: Tensor | None = None) -> tuple[Tensor, Cache]:
        """Read the beginning.

        Args:
            count: B, how many sequences.
            labels: shape (B,).
            prefix: their first tokens, shape (B, M), fewer than there are places; None for none.
        Returns:
            Logits of the token behind the prefix, shape (B, K), and the cache that goes on from it.
        Raises:
            SettingError: as forward.
        """
        if prefix is not None:
            check_tokens(prefix, self.config.places - 1)
        hidden = self._begun(count, labels, prefix)
        style = self.config.style
        room = (self.config.num_layers, count, style.heads, self.config.places, style.head_dim)
        return self._read(hidden, Cache(hidden.new_empty(room), hidden.new_empty(room), 0), causal=True)

    @torch.no_grad()
    def step(self, token: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """Read one more token.

        Args:
            token: of every sequence, shape (B,), int64.
            cache: what was read before it; used up.
        Returns:
            Logits of the next token, shape (B, K), and the cache to go on from.
        Raises:
            SettingError: there is no next token; on the CPU, a token out of range.
        """
        if cache.length >= self.config.places:
            raise SettingError(f"this network has places for {self.config.places} tokens, and all are there")
        hidden = look_up(self.emb, token, "token") + self.position_emb.weight[cache.length]
        return self._read(hidden[:, None], cache, causal=False)  # it is the last: all that is kept is before it

    def _begun(self, count: int, labels: Tensor | None, tokens: Tensor | None) -> Tensor:
        """The beginning and the tokens behind it as vectors, shape (B, 1 + M, width)."""
        if (self.config.num_labels > 0) != (labels is not None):
            raise SettingError("this network takes no labels" if labels is not None else "this network needs labels")
        rows = self.begin_emb.weight.new_zeros(count, dtype=torch.int64) if labels is None else labels
        hidden = look_up(self.begin_emb, rows, "label")[:, None]
        if tokens is not None:
            hidden = torch.cat([hidden, look_up(self.emb, tokens, "token")], dim=1)
        return hidden + self.position_emb.weight[: hidden.shape[1]]

    def _read(self, hidden: Tensor, cache: Cache, *, causal: bool) -> tuple[Tensor, Cache]:
        for number, block in enumerate(self.transformer_blocks):
            hidden = block(hidden, causal=causal, kept=cache.of(number))
        return self._said(hidden[:, -1]), replace(cache, length=cache.length + hidden.shape[1])

    def _said(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.out(self.norm_out(hidden))
        return logits
