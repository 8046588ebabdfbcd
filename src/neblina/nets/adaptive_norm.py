"""Layer normalisation that a step or a label scales and shifts, and tables whose rows are looked up by number.

    AdaLN(h, n) = (1 + a_n) LayerNorm(h) + b_n,    (a_n, b_n) = W silu(e_n) + c

with a learned vector e_n for every number n. Parameter names are those of diffusers' AdaLayerNorm.

Gu et al. Vector Quantized Diffusion Model for Text-to-Image Synthesis. CVPR 2022, section 4.2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neblina.core.errors import SettingError


class AdaLayerNorm(nn.Module):
    """Layer normalisation without gains of its own, scaled and shifted by a row of a table; each sample has its own."""

    def __init__(self, rows: int, width: int, what: str) -> None:
        super().__init__()
        self.what = what
        self.emb = nn.Embedding(rows, width)
        self.linear = nn.Linear(width, 2 * width)

    def forward(self, tokens: Tensor, rows: Tensor) -> Tensor:
        """tokens of shape (B, N, width), rows of shape (B,), int64.

        Raises:
            SettingError: a row that is not there (on the CPU).
        """
        told = self.linear(F.silu(look_up(self.emb, rows, self.what)))[:, None]
        scale, shift = told.chunk(2, dim=2)
        return modulate(F.layer_norm(tokens, tokens.shape[-1:]), scale, shift)


def modulate(tokens: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """tokens · (1 + scale) + shift."""
    return torch.addcmul(shift, tokens, 1 + scale)


def look_up(table: nn.Embedding, rows: Tensor, what: str) -> Tensor:
    """Rows of a table, by numbers of any shape, int64; on the CPU a number that is out of range is a sentence.

    Raises:
        SettingError: naming the number and how many rows there are.
    """
    try:
        found: Tensor = table(rows)
    except IndexError as error:  # no comparison beforehand: on an accelerator it would wait for the numbers
        wrong = rows[(rows < 0) | (rows >= table.num_embeddings)]
        raise SettingError(
            f"{what} {int(wrong[0])} is out of range: this network knows 0 … {table.num_embeddings - 1}"
        ) from error
    return found
