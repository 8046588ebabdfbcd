"""Configurations of transformers over tokens: diffusers' own, and ours for what it has no words for.

One value more than the data has is the mask, the last: num_vector_embeds counts it, as the ecosystem does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from neblina.core.conditions import Wants
from neblina.core.errors import SettingError, choose
from neblina.nets.configuration import check_sample_size, read_config, without_fixed, write_config
from neblina.nets.transformer import TokenStyle, bends

_NAME, _OWN_NAME = "Transformer2DModel", "SequenceTransformer"
_NORMS = ("layer_norm", "ada_norm")
# fields of the transformer's other forms; with another value it is not one over tokens, or has other parameters
_FIXED: dict[str, Any] = {
    "in_channels": None,
    "out_channels": None,
    "patch_size": None,
    "use_linear_projection": False,
    "double_self_attention": False,
    "attention_type": "default",
    "caption_channels": None,
    "interpolation_scale": None,
    "use_additional_conditions": None,
}


@dataclass(frozen=True)
class TokenTransformerConfig:
    """The configuration, field for field diffusers' Transformer2DModel's over tokens; what each does to us is said.

    Attributes:
        attention_head_dim: channels of a head; the tokens are num_attention_heads times as wide.
        norm_num_groups: nothing: there is no group normalisation.
        cross_attention_dim: width of the vectors of the text, None for a network that reads none.
        attention_bias: whether queries, keys and values have a bias.
        sample_size: side of the grid of tokens.
        num_vector_embeds: how many values a token has, the mask included, which is the last.
        num_embeds_ada_norm: how many steps the diffusion has; None for a network that is not told the time.
        only_cross_attention: the first attention reads the text as well, so that no token looks at another one.
        upcast_attention: nothing to do: PyTorch's attention keeps its scores in float32.
        norm_type: nothing beside num_embeds_ada_norm: older files say "layer_norm" whatever they hold.
        norm_elementwise_affine, norm_eps: of the normalisations that the time does not modulate.
    """

    num_attention_heads: int = 16
    attention_head_dim: int = 88
    num_layers: int = 1
    dropout: float = 0.0
    norm_num_groups: int = 32
    cross_attention_dim: int | None = None
    attention_bias: bool = False
    sample_size: int | None = None
    num_vector_embeds: int | None = None
    activation_fn: str = "geglu"
    num_embeds_ada_norm: int | None = None
    only_cross_attention: bool = False
    upcast_attention: bool = False
    norm_type: str = "layer_norm"
    norm_elementwise_affine: bool = True
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        """Refuse what the network cannot honour.

        Raises:
            SettingError: naming the field.
        """
        choose("norm_type that a transformer over tokens has", self.norm_type, _NORMS)
        if self.norm_type == "ada_norm" and self.num_embeds_ada_norm is None:
            raise SettingError("transformer config: num_embeds_ada_norm is missing: say how many steps there are")
        if self.sample_size is None or self.num_vector_embeds is None:
            raise SettingError("transformer config: one over tokens says its sample_size and its num_vector_embeds")
        _check("transformer", self)

    @property
    def num_categories(self) -> int:
        """K: how many values a token of the data has; the mask is token K."""
        return (self.num_vector_embeds or 1) - 1

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width, in tokens."""
        return (self.sample_size or 0,) * 2

    @property
    def places(self) -> int:
        """How many tokens there are."""
        return prod(self.grid)

    @property
    def num_labels(self) -> int:
        """It is told no labels."""
        return 0

    @property
    def wants(self) -> Wants:
        """What it reads beside labels."""
        return Wants(text=self.cross_attention_dim)

    @property
    def style(self) -> TokenStyle:
        """Of its blocks."""
        return TokenStyle(
            heads=self.num_attention_heads,
            head_dim=self.attention_head_dim,
            text=self.cross_attention_dim,
            text_only=self.only_cross_attention,
            bias=self.attention_bias,
            dropout=self.dropout,
            activation=self.activation_fn,
            affine=self.norm_elementwise_affine,
            eps=self.norm_eps,
            steps=self.num_embeds_ada_norm,
        )

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "TokenTransformerConfig":
        """Read a config.json.

        Raises:
            SettingError: an unknown or unsupported field.
        """
        return read_config(cls, _NAME, without_fixed(config, _FIXED, "transformer"))

    def to_dict(self) -> dict[str, Any]:
        """What goes into config.json, with the class that diffusers opens it as."""
        return {**write_config(self, _NAME), "norm_type": _NORMS[self.num_embeds_ada_norm is not None]}


class Places:
    """What a size and a number of labels say: tokens in a line, or in a grid that is read row by row."""

    sample_size: int | tuple[int, int]
    num_class_embeds: int | None

    @property
    def grid(self) -> tuple[int, int] | None:
        """Height and width, in tokens; None for a line."""
        return None if isinstance(self.sample_size, int) else self.sample_size

    @property
    def places(self) -> int:
        """How many tokens there are."""
        return self.sample_size if isinstance(self.sample_size, int) else prod(self.sample_size)

    @property
    def num_labels(self) -> int:
        """Rows of the class embeddings, the null's included; 0 for none."""
        return self.num_class_embeds or 0


@dataclass(frozen=True)
class SequenceTransformerConfig(Places):
    """The configuration of a transformer over a line of tokens, or over a grid read row by row, that knows labels.

    The released class-conditional VQ-Diffusion models are of this kind: the label modulates the normalisation before
    the feed-forward layer, which is convolutional.

    Attributes:
        num_vector_embeds: how many values a token has, the mask included, which is the last.
        sample_size: how many tokens there are; or height and width of a grid of them.
        num_attention_heads, attention_head_dim: tokens are their product wide.
        num_layers: how many blocks.
        dropout: probability of dropping a number that is added to the tokens.
        cross_attention_dim: width of the vectors of a text, None for a network that reads none.
        attention_bias: whether queries, keys and values have a bias.
        activation_fn: of the feed-forward layer.
        num_embeds_ada_norm: how many steps the diffusion has; None for a network that is not told the time.
        num_class_embeds: how many labels there are, the null included; None for none.
        convolutional: whether the feed-forward layer sees the neighbours in the grid.
    """

    num_vector_embeds: int
    sample_size: int | tuple[int, int]
    num_attention_heads: int = 8
    attention_head_dim: int = 32
    num_layers: int = 8
    dropout: float = 0.0
    cross_attention_dim: int | None = None
    attention_bias: bool = True
    activation_fn: str = "geglu-approximate"
    num_embeds_ada_norm: int | None = 100
    num_class_embeds: int | None = None
    convolutional: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be built.

        Raises:
            SettingError: naming the field.
        """
        _check("sequence transformer", self)
        if self.num_class_embeds is not None and self.num_class_embeds < 1:
            raise SettingError(f"sequence transformer config: num_class_embeds = {self.num_class_embeds} is no table")
        if self.convolutional and self.grid is None:
            raise SettingError(
                f"sequence transformer config: convolutional sees the neighbours in a grid, and sample_size = "
                f"{self.sample_size} is a line: give height and width"
            )
        if self.convolutional and bends[self.activation_fn].gated:
            raise SettingError(
                f"sequence transformer config: activation_fn = {self.activation_fn!r} has a gate, and a convolutional "
                "feed-forward layer has none: take 'gelu' or 'geglu-approximate'"
            )

    @property
    def num_categories(self) -> int:
        """K: how many values a token of the data has; the mask is token K."""
        return self.num_vector_embeds - 1

    @property
    def wants(self) -> Wants:
        """What it reads beside labels."""
        return Wants(text=self.cross_attention_dim)

    @property
    def style(self) -> TokenStyle:
        """Of its blocks."""
        return TokenStyle(
            heads=self.num_attention_heads,
            head_dim=self.attention_head_dim,
            text=self.cross_attention_dim,
            bias=self.attention_bias,
            dropout=self.dropout,
            activation=self.activation_fn,
            steps=self.num_embeds_ada_norm,
            classes=self.num_class_embeds,
            grid=self.grid if self.convolutional else None,
        )

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "SequenceTransformerConfig":
        """Read a config.json.

        Raises:
            SettingError: an unknown field, or one that is missing.
        """
        return read_config(cls, _OWN_NAME, config)

    def to_dict(self) -> dict[str, Any]:
        """What goes into config.json."""
        return write_config(self, _OWN_NAME)


def _check(name: str, config: TokenTransformerConfig | SequenceTransformerConfig) -> None:
    """Refuse sizes of nothing."""
    choose("feed-forward activation (activation_fn)", config.activation_fn, bends)
    check_sample_size(name, config.sample_size)
    if config.num_categories < 1:
        raise SettingError(
            f"{name} config: num_vector_embeds = {config.num_vector_embeds} leaves no value beside the mask"
        )
    for field in ("num_attention_heads", "attention_head_dim", "num_layers"):
        if getattr(config, field) < 1:
            raise SettingError(f"{name} config: {field} = {getattr(config, field)} is less than 1")
    for field in ("cross_attention_dim", "num_embeds_ada_norm"):
        if (size := getattr(config, field)) is not None and size < 1:
            raise SettingError(f"{name} config: {field} = {size} is less than 1")
