"""Draws of classes by uniform numbers, which belong to a sample as its noise does."""

import torch
from torch import Tensor

from neblina.core.noise import Noise

_BLOCK = 64  # classes that are summed together where there are many


def uniforms(noise: Noise, tokens: Tensor) -> Tensor:
    """One number in [0, 1) a token, float64 of tokens' shape (B, *): the next draw of normal noise, through its
    distribution function."""
    normal = noise(torch.empty(tokens.shape, device=tokens.device))
    below: Tensor = torch.special.ndtr(normal.double())
    return below.clamp(max=1 - 1e-12)


def drawn(log_probs: Tensor, uniform: Tensor) -> Tensor:
    """The class that a number in [0, 1) falls on, int64 of shape (B, *), of log-probabilities (B, *, K), which need
    not sum to 1. Classes of probability 0 are never drawn.

    Of many classes a block of them is found first and then the class in it: sums of blocks cost a fraction of running
    sums over all classes.
    """
    probabilities = log_probs.exp()
    classes = log_probs.shape[-1]
    if classes < 4 * _BLOCK:
        return _fallen(probabilities, uniform)[0]
    missing = -classes % _BLOCK
    if missing:
        probabilities = torch.nn.functional.pad(probabilities, (0, missing))
    blocks = probabilities.reshape(*probabilities.shape[:-1], -1, _BLOCK)
    block, share = _fallen(blocks.sum(-1), uniform)
    chosen = blocks.gather(-2, block[..., None, None].expand(*block.shape, 1, _BLOCK))[..., 0, :]
    return block * _BLOCK + _fallen(chosen, share)[0]


def _fallen(weights: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Where a number in [0, 1) falls among weights (B, *, n), and where in that place's own share, again in [0, 1)."""
    reached = weights.cumsum(-1, dtype=torch.float64)
    place = uniform[..., None] * reached[..., -1:]
    found = torch.searchsorted(reached, place, right=True).clamp(max=weights.shape[-1] - 1)
    own = weights.double().gather(-1, found)
    before = reached.gather(-1, found) - own
    share = ((place - before) / torch.where(own > 0, own, 1.0)).clamp(0, 1 - 1e-12)
    return found[..., 0], share[..., 0]
