"""The diffusion transformer that reads a text: patches as tokens, blocks that attend to themselves and to the text.

With S(t) = W silu(e(t)) + c made once of the time's embedding e(t), and a table E_i of its own, block i takes

    (b₁, a₁, g₁, b₂, a₂, g₂) = S(t) + E_i                                     (adaLN-single)
    h ← h + g₁ · Attention((1 + a₁) Norm(h) + b₁)
    h ← h + Attention(h, text)
    h ← h + g₂ · FeedForward((1 + a₂) Norm(h) + b₂)

so that all blocks share the layers that a diffusion transformer of classes stores in each. Nothing normalises or
modulates what the attention to the text is asked by. Parameter names are those of diffusers' PixArtTransformer2DModel,
so weights load both ways.

Chen et al. PixArt-α: Fast Training of Diffusion Transformer for Photorealistic Text-to-Image Synthesis. ICLR 2024,
section 2.3 and figure 4.
"""

from collections import OrderedDict
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neblina.core.errors import SettingError
from neblina.nets.adaptive_norm import modulate
from neblina.nets.embeddings import Sinusoidal, TimeMLP
from neblina.nets.network import Network
from neblina.nets.patches import PatchTokens, assembled
from neblina.nets.text_dit_config import TextDiTConfig
from neblina.nets.transformer import FeedForward, TokenAttention

_WAVES = 256
_EPS = 1e-6  # of the last normalisation, which has no parameters


class TextDiT(Network):
    """net(x, time, text=) -> prediction of shape (B, out_channels, H, W)."""

    def __init__(self, config: TextDiTConfig) -> None:
        super().__init__()
        self.config: TextDiTConfig = config
        width, patch = config.width, config.patch_size
        self.pos_embed = PatchTokens(config.in_channels, width, patch, config.sample_size // patch, config.scale)
        self.transformer_blocks = nn.ModuleList([TextBlock(config) for _ in range(config.num_layers)])
        self.scale_shift_table = _table(2, width)
        self.proj_out = nn.Linear(width, patch**2 * config.made)
        self.adaln_single = SharedModulation(width)
        self.caption_projection = (
            None if config.caption_channels is None else _caption_layers(config.caption_channels, width)
        )
        self._start()

    def forward(self, x: Tensor, time: Tensor, *, text: Tensor | None = None) -> Tensor:
        """Predict.

        Args:
            x: shape (B, in_channels, H, W), H and W divisible by patch_size.
            time: shape (B,), float32, in the unit of the clock it was trained with.
            text: shape (B, L, D); D is config.wants.text.
        Raises:
            SettingError: no text or one of another width, or a picture that cannot be cut into patches.
        """
        text = self._checked(x, text)
        patch, (height, width) = self.config.patch_size, x.shape[-2:]
        tokens = self.pos_embed(x)
        told, embedded = self.adaln_single(time.expand(len(x)), tokens.dtype)
        if self.caption_projection is not None:
            text = self.caption_projection(text)
        for block in self.transformer_blocks:
            tokens = block(tokens, told, text)
        shift, scale = (self.scale_shift_table + embedded[:, None]).chunk(2, dim=1)
        patches = self.proj_out(modulate(F.layer_norm(tokens, tokens.shape[-1:], eps=_EPS), scale, shift))
        return assembled(patches, height // patch, width // patch, patch)

    def _checked(self, x: Tensor, text: Tensor | None) -> Tensor:
        config = self.config
        if text is None:
            raise SettingError("this network needs text")
        if text.shape[-1] != config.wants.text:
            raise SettingError(f"this network reads texts {config.wants.text} wide, not {text.shape[-1]}")
        if x.shape[1] != config.in_channels:
            raise SettingError(f"this network takes {config.in_channels} channels, not {x.shape[1]}")
        config.check_size(*x.shape[-2:])
        return text

    def _start(self) -> None:
        """Weights that training begins with: the text, and the time's say in the blocks, come in from zero, and so does
        the prediction. Nothing is drawn by normal_, which imports the compiler where parameters are empty."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.pos_embed.proj.weight.flatten(1))  # a patch's numbers are a linear layer's
        blocks = cast(list[TextBlock], list(self.transformer_blocks))
        reading = [cast(nn.Linear, block.attn2.to_out[0]) for block in blocks]
        for layer in (self.proj_out, self.adaln_single.linear, *reading):
            nn.init.zeros_(layer.weight)


class SharedModulation(nn.Module):
    """What the time says to every block, made once."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.waves = Sinusoidal(_WAVES, cos_first=True, shift=0)
        self.emb = nn.ModuleDict({"timestep_embedder": TimeMLP(_WAVES, width)})
        self.linear = nn.Linear(width, 6 * width)

    def forward(self, time: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(B,) to the six of every block, (B, 6, width), and the embedding that they are made of, (B, width)."""
        embedded = self.emb["timestep_embedder"](self.waves(time).to(dtype))
        return self.linear(F.silu(embedded)).unflatten(1, (6, -1)), embedded


class TextBlock(nn.Module):
    """Self-attention and a feed-forward layer, modulated, and attention to the text between them (figure 4)."""

    def __init__(self, config: TextDiTConfig) -> None:
        super().__init__()
        width, affine = config.width, config.norm_elementwise_affine

        def attention(text: int | None) -> TokenAttention:
            return TokenAttention(
                width,
                heads=config.num_attention_heads,
                head_dim=config.attention_head_dim,
                text=text,
                bias=config.attention_bias,
                dropout=config.dropout,
            )

        self.norm1 = nn.LayerNorm(width, config.norm_eps, affine)
        self.attn1 = attention(None)
        self.attn2 = attention(config.cross_attention_dim)
        self.norm2 = nn.LayerNorm(width, config.norm_eps, affine)
        self.ff = FeedForward(width, config.activation_fn, config.dropout)
        self.scale_shift_table = _table(6, width)

    def forward(self, tokens: Tensor, told: Tensor, text: Tensor) -> Tensor:
        """tokens of shape (B, N, width), told of shape (B, 6, width), text of shape (B, L, cross_attention_dim)."""
        shift, scale, gate, shift_after, scale_after, gate_after = (self.scale_shift_table + told).chunk(6, dim=1)
        tokens = torch.addcmul(tokens, gate, self.attn1(modulate(self.norm1(tokens), scale, shift)))
        tokens = tokens + self.attn2(tokens, text)
        return torch.addcmul(tokens, gate_after, self.ff(modulate(self.norm2(tokens), scale_after, shift_after)))


def _table(rows: int, width: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(rows, width) / width**0.5)


def _caption_layers(given: int, width: int) -> nn.Sequential:
    """Two layers that make a text as wide as the tokens."""
    layers = {"linear_1": nn.Linear(given, width), "act_1": nn.GELU("tanh"), "linear_2": nn.Linear(width, width)}
    return nn.Sequential(OrderedDict(layers))
