"""Logarithms of probabilities, where a probability of 0 has a finite one.

The logarithm of 0 is ZERO here: small enough that its exponential is 0 in every precision, and finite, so that neither
sums of such logarithms nor gradients through them are ever NaN.
"""

import torch
from torch import Tensor

ZERO = -1e30


def log(values: Tensor) -> Tensor:
    """log(values), elementwise; ZERO where they are not above 0. The gradient is 0 there."""
    some = values > 0
    return torch.where(some, torch.where(some, values, 1.0).log(), ZERO)


def finite(logs: Tensor) -> Tensor:
    """Logarithms whose −∞ is ZERO."""
    return logs.clamp(min=ZERO)


def is_zero(logs: Tensor) -> Tensor:
    """Where the probability is 0, sums and differences of a few logarithms included."""
    return logs < ZERO / 2
