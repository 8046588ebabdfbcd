"""Draws of classes by uniform numbers, which belong to a sample as its noise does."""

import torch
from torch import Tensor

from neblina.core.noise import Noise


def uniforms(noise: Noise, tokens: Tensor) -> Tensor:
    """One number in [0, 1) a token, float64 of tokens' shape (B, *): the next draw of normal noise, through its
    distribution function."""
    normal = noise(torch.empty(tokens.shape, device=tokens.device))
    below: Tensor = torch.special.ndtr(normal.double())
    return below.clamp(max=1 - 1e-12)


def drawn(log_probs: Tensor, uniform: Tensor) -> Tensor:
    """The class that a number in [0, 1) falls on, int64 of shape (B, *), of log-probabilities (B, *, K), which need
    not sum to 1. Classes of probability 0 are never drawn."""
    reached = log_probs.exp().cumsum(-1, dtype=torch.float64)
    place = uniform[..., None] * reached[..., -1:]
    return torch.searchsorted(reached, place, right=True)[..., 0].clamp(max=log_probs.shape[-1] - 1)
