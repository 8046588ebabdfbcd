"""The diffusion transformer: patches of a picture as tokens, and blocks that the time and the label modulate.

Each block normalises its tokens, scales and shifts them, and scales what it adds to them, by numbers made of the time
and the label (adaLN-Zero). Positions are sines and cosines of the row and the column, stored nowhere. Parameter names
are those of diffusers' DiTTransformer2DModel, so weights load both ways: every block stores an embedding of its own.

Peebles, Xie. Scalable Diffusion Models with Transformers. ICCV 2023, section 3.2 and figure 3.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neblina.core.conditions import Wants
from neblina.core.errors import SettingError, choose
from neblina.nets.adaptive_norm import modulate
from neblina.nets.configuration import check_sample_size, read_config, without_fixed, write_config
from neblina.nets.embeddings import Sinusoidal, TimeMLP
from neblina.nets.network import Network
from neblina.nets.patches import PatchTokens, assembled, check_cut
from neblina.nets.transformer import FeedForward, TokenAttention, bends

_NAME, _FORMER_NAME = "DiTTransformer2DModel", "Transformer2DModel"
# what folders that were written under the former name say besides; with another value it is another network
_FORMER_FIELDS: dict[str, Any] = {
    "cross_attention_dim": None,
    "num_vector_embeds": None,
    "use_linear_projection": False,
    "only_cross_attention": False,
    "double_self_attention": False,
    "attention_type": "default",
    "caption_channels": None,
    "interpolation_scale": None,
    "use_additional_conditions": None,
}
_WAVES = 256
_EPS = 1e-6  # of the normalisations that have no parameters


@dataclass(frozen=True)
class DiTConfig:
    """The configuration, field for field diffusers' DiTTransformer2DModel's; only what each does to us is said here.

    Attributes:
        attention_head_dim: channels of a head; the tokens are num_attention_heads times as wide.
        out_channels: None for in_channels; twice in_channels where the variance is learned.
        norm_num_groups: nothing: there is no group normalisation.
        attention_bias: whether queries, keys and values have a bias.
        sample_size: side of the latents it was trained on. Others run: their positions are stretched to its range.
        num_embeds_ada_norm: how many classes; the label of that number is the null class.
        upcast_attention: nothing to do: PyTorch's attention keeps its scores in float32.
        norm_elementwise_affine, norm_eps: of the normalisation before the feed-forward layer.
    """

    num_attention_heads: int = 16
    attention_head_dim: int = 72
    in_channels: int = 4
    out_channels: int | None = None
    num_layers: int = 28
    dropout: float = 0.0
    norm_num_groups: int = 32
    attention_bias: bool = True
    sample_size: int = 32
    patch_size: int = 2
    activation_fn: str = "gelu-approximate"
    num_embeds_ada_norm: int | None = 1000
    upcast_attention: bool | None = False
    norm_type: str = "ada_norm_zero"
    norm_elementwise_affine: bool = False
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        """Refuse what the network cannot honour.

        Raises:
            SettingError: naming the field.
        """
        choose("feed-forward activation (activation_fn)", self.activation_fn, bends)
        choose("norm_type this network has", self.norm_type, ("ada_norm_zero",))
        if self.num_embeds_ada_norm is None:
            raise SettingError("dit config: num_embeds_ada_norm is missing: say how many classes there are")
        for field in ("num_attention_heads", "attention_head_dim", "num_layers", "patch_size"):
            if getattr(self, field) < 1:
                raise SettingError(f"dit config: {field} = {getattr(self, field)} is less than 1")
        if self.width % 4:
            raise SettingError(
                f"dit config: num_attention_heads {self.num_attention_heads} of attention_head_dim "
                f"{self.attention_head_dim} make tokens {self.width} wide, no multiple of 4 as their positions need"
            )
        check_sample_size("dit", self.sample_size)
        if self.sample_size < self.patch_size:
            raise SettingError(f"dit config: sample_size {self.sample_size} is less than patch_size {self.patch_size}")

    @property
    def width(self) -> int:
        """Numbers in a token."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def multiple(self) -> int:
        """What height and width must be multiples of."""
        return self.patch_size

    @property
    def made(self) -> int:
        """Channels that come out."""
        return self.in_channels if self.out_channels is None else self.out_channels

    @property
    def wants(self) -> Wants:
        """It reads nothing beside labels."""
        return Wants()

    @property
    def num_labels(self) -> int:
        """Rows of the class embedding, the null class included."""
        return (self.num_embeds_ada_norm or 0) + 1

    @property
    def null_label(self) -> int:
        """The row that means "no class"."""
        return self.num_labels - 1

    def check_size(self, height: int, width: int) -> None:
        """Refuse a size that cannot be cut into patches.

        Raises:
            SettingError: naming the size.
        """
        check_cut(height, width, self.patch_size)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "DiTConfig":
        """Read a config.json, also one written under the network's former name, Transformer2DModel.

        Raises:
            SettingError: an unknown or unsupported field.
        """
        if config.get("_class_name") == _FORMER_NAME and config.get("norm_type") != "ada_norm_zero":
            raise SettingError(
                f"a {_FORMER_NAME} of norm_type {config.get('norm_type', 'layer_norm')!r} is no diffusion transformer "
                "of classes, whose norm_type is 'ada_norm_zero'; one over tokens says its num_vector_embeds"
            )
        return read_config(cls, _NAME, without_fixed(config, _FORMER_FIELDS, "dit"))

    def to_dict(self) -> dict[str, Any]:
        """What goes into config.json, with the class that diffusers opens it as."""
        return write_config(self, _NAME)


class DiT(Network):
    """net(x, time, labels) -> prediction of shape (B, out_channels, H, W)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config: DiTConfig = config
        patch = config.patch_size
        self.pos_embed = PatchTokens(config.in_channels, config.width, patch, config.sample_size // patch)
        self.waves = Sinusoidal(_WAVES, cos_first=True, shift=1)
        self.transformer_blocks = nn.ModuleList([ModulatedBlock(config) for _ in range(config.num_layers)])
        self.proj_out_1 = nn.Linear(config.width, 2 * config.width)
        self.proj_out_2 = nn.Linear(config.width, patch**2 * config.made)

    def forward(self, x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        """Predict.

        Args:
            x: shape (B, in_channels, H, W), H and W divisible by patch_size.
            time: shape (B,), float32, in the unit of the clock it was trained with.
            labels: shape (B,), the null class included.
        Raises:
            SettingError: no labels, or a size that cannot be cut into patches.
        """
        patch, (height, width) = self.config.patch_size, x.shape[-2:]
        if labels is None:
            raise SettingError("this network needs labels")
        if x.shape[1] != self.config.in_channels:
            raise SettingError(f"this network takes {self.config.in_channels} channels, not {x.shape[1]}")
        self.config.check_size(height, width)
        tokens = self.pos_embed(x)
        waves = self.waves(time.expand(len(x))).to(tokens.dtype)
        told = [block.embed(waves, labels) for block in self._blocks]
        for block, its in zip(self._blocks, told, strict=True):
            tokens = block(tokens, its)
        # the output is modulated by the first block's embedding: there is no other
        shift, scale = self.proj_out_1(F.silu(told[0])).unsqueeze(1).chunk(2, dim=2)
        patches = self.proj_out_2(modulate(F.layer_norm(tokens, tokens.shape[-1:], eps=_EPS), scale, shift))
        return assembled(patches, height // patch, width // patch, patch)

    @property
    def _blocks(self) -> list["ModulatedBlock"]:
        return cast(list[ModulatedBlock], list(self.transformer_blocks))


class LabelTable(nn.Module):
    """A learned vector for every class and for the null class."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(rows, width)

    def forward(self, labels: Tensor) -> Tensor:
        """(B,) to (B, width)."""
        out: Tensor = self.embedding_table(labels)
        return out


class TimeAndLabel(nn.Module):
    """The sum of an embedding of the time and one of the label."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.timestep_embedder = TimeMLP(_WAVES, width)
        self.class_embedder = LabelTable(rows, width)

    def forward(self, waves: Tensor, labels: Tensor) -> Tensor:
        """waves of shape (B, 256), labels of shape (B,), to (B, width)."""
        out: Tensor = self.timestep_embedder(waves) + self.class_embedder(labels)
        return out


class Modulation(nn.Module):
    """Shift, scale and gate of a block's two halves, made of the embedding that the block stores."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.emb = TimeAndLabel(rows, width)
        self.linear = nn.Linear(width, 6 * width)

    def forward(self, told: Tensor) -> tuple[Tensor, ...]:
        """(B, width) to six of (B, 1, width)."""
        return self.linear(F.silu(told)).unsqueeze(1).chunk(6, dim=2)  # type: ignore[no-any-return]


class ModulatedBlock(nn.Module):
    """Self-attention and a feed-forward layer, modulated (figure 3 of the paper)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width = config.width
        self.norm1 = Modulation(config.num_labels, width)
        self.attn1 = TokenAttention(
            width,
            heads=config.num_attention_heads,
            head_dim=config.attention_head_dim,
            bias=config.attention_bias,
            dropout=config.dropout,
        )
        self.norm3 = nn.LayerNorm(width, config.norm_eps, config.norm_elementwise_affine)
        self.ff = FeedForward(width, config.activation_fn, config.dropout)

    def embed(self, waves: Tensor, labels: Tensor) -> Tensor:
        """The time and the label as this block knows them, shape (B, width)."""
        told: Tensor = self.norm1.emb(waves, labels)
        return told

    def forward(self, tokens: Tensor, told: Tensor) -> Tensor:
        """tokens of shape (B, N, width), told of shape (B, width)."""
        shift, scale, gate, shift_after, scale_after, gate_after = self.norm1(told)
        quiet = F.layer_norm(tokens, tokens.shape[-1:], eps=_EPS)
        tokens = torch.addcmul(tokens, gate, self.attn1(modulate(quiet, scale, shift)))
        return torch.addcmul(tokens, gate_after, self.ff(modulate(self.norm3(tokens), scale_after, shift_after)))
