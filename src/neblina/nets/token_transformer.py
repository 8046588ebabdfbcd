"""The transformer of discrete diffusion: all tokens of a noisy sequence in, the values of the clean ones out.

Every token looks at all others, in both directions, and at the text; the step of the diffusion modulates what the
attentions read. One pass gives the belief about every token. Configuration and parameter names are those of diffusers'
Transformer2DModel over tokens, so weights load both ways; unlike there, every sample may be at a step of its own.

Gu et al. Vector Quantized Diffusion Model for Text-to-Image Synthesis. CVPR 2022, section 4.2 and figure 2.
"""

import torch
from torch import Tensor, nn

from neblina.core.errors import SettingError
from neblina.nets.adaptive_norm import look_up
from neblina.nets.network import TokenNetwork, TokenNetworkConfig
from neblina.nets.token_config import SequenceTransformerConfig, TokenTransformerConfig
from neblina.nets.transformer import TransformerBlock


class TokenTransformer(TokenNetwork):
    """net(x, time, text=, labels=) -> logits of the clean tokens, shape (B, N, K)."""

    def __init__(self, config: TokenTransformerConfig | SequenceTransformerConfig) -> None:
        super().__init__()
        self.config: TokenNetworkConfig = config
        style, values = config.style, config.num_categories + 1
        self.timed, self.grid = style.steps is not None, style.grid
        self.latent_image_embedding: GridTokens | LineTokens = (
            GridTokens(values, style.width, config.grid)
            if isinstance(config, TokenTransformerConfig)
            else LineTokens(values, style.width, config.places)
        )
        self.transformer_blocks = nn.ModuleList([TransformerBlock(style) for _ in range(config.num_layers)])
        self.norm_out = nn.LayerNorm(style.width)
        self.out = nn.Linear(style.width, config.num_categories)
        self.apply(start_small)

    def forward(self, x: Tensor, time: Tensor, *, text: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        """Predict.

        Args:
            x: tokens, shape (B, N), int64, in 0 … K; token K is the mask. Of a grid, row by row. N is the number of
                places; of fewer (where the feed-forward layer is not convolutional) they are the first.
            time: index of the step, shape (B,), any real numbers below the number of steps; the nearest step is told.
            text: shape (B, L, D).
            labels: rows of the class embeddings, shape (B,).
        Returns:
            Logits over the K values of the data.
        Raises:
            SettingError: something is missing, not wanted or of another size; on the CPU, a token or a step out of
                range.
        """
        self._check(x, text, labels)
        tokens = self.latent_image_embedding(x)
        # between the data and its first step the nearest step may be none: the first is told
        steps = time.expand(len(x)).round().long().clamp(min=0) if self.timed else None
        for block in self.transformer_blocks:
            tokens = block(tokens, text, steps=steps, labels=labels)
        logits: Tensor = self.out(self.norm_out(tokens))
        return logits

    def _check(self, x: Tensor, text: Tensor | None, labels: Tensor | None) -> None:
        config = self.config
        check_tokens(x, config.places, exactly=self.grid is not None)
        for name, value, wanted in (
            ("text", text, config.wants.text is not None),
            ("labels", labels, config.num_labels > 0),
        ):
            if wanted != (value is not None):
                raise SettingError(f"this network needs {name}" if wanted else f"this network takes no {name}")
        if text is not None and text.shape[-1] != config.wants.text:
            raise SettingError(f"this network reads texts {config.wants.text} wide, not {text.shape[-1]}")


class GridTokens(nn.Module):
    """A vector for every token: of its value, of its row and of its column."""

    def __init__(self, values: int, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.emb = nn.Embedding(values, width)
        self.height_emb = nn.Embedding(grid[0], width)
        self.width_emb = nn.Embedding(grid[1], width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N) to (B, N, width)."""
        places = (self.height_emb.weight[:, None] + self.width_emb.weight).flatten(0, 1)
        return look_up(self.emb, x, "token") + places[: x.shape[1]]


class LineTokens(nn.Module):
    """A vector for every token: of its value and of its place."""

    def __init__(self, values: int, width: int, places: int) -> None:
        super().__init__()
        self.emb = nn.Embedding(values, width)
        self.position_emb = nn.Embedding(places, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N) to (B, N, width)."""
        return look_up(self.emb, x, "token") + self.position_emb.weight[: x.shape[1]]


def check_tokens(x: Tensor, places: int, *, exactly: bool = False) -> None:
    """Refuse what is no batch of tokens.

    Raises:
        SettingError: another shape or dtype, or more tokens than there are places; exactly: or fewer.
    """
    if x.ndim != 2 or x.dtype != torch.int64:
        raise SettingError(f"tokens are int64 of shape (B, N), not {str(x.dtype)[6:]} of shape {tuple(x.shape)}")
    if x.shape[1] > places or (exactly and x.shape[1] < places):
        raise SettingError(f"this network has places for {places} tokens, and {x.shape[1]} are given")


def start_small(module: nn.Module) -> None:
    """Weights that training begins with: normal of deviation 0.02, biases 0, as the released models began."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
