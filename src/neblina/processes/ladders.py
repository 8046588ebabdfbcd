"""Ladders: N noise levels between two, as diffusers places them.

| name | what falls in equal steps |
| --- | --- |
| karras | k^(1/ρ) |
| exponential | log k |
| beta | F(k) of a Beta(0.6, 0.6) law between the two |

Karras et al. Elucidating the Design Space of Diffusion-Based Generative Models. NeurIPS 2022, eq. 5.
Lee et al. Beta Sampling is All You Need. 2024.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

_BETA = 0.6

Ladder = Callable[[float, float, int], Tensor]


def karras(first: float, last: float, count: int, *, rho: float = 7.0) -> Tensor:
    """`count` levels from first to last, float64."""
    u = _equal(count)
    root: Tensor = first ** (1 / rho) + u * (last ** (1 / rho) - first ** (1 / rho))
    return root**rho


def exponential(first: float, last: float, count: int) -> Tensor:
    """`count` levels from first to last, float64."""
    return torch.exp(np.log(first) + _equal(count) * (np.log(last) - np.log(first)))


def beta(first: float, last: float, count: int) -> Tensor:
    """`count` levels from first to last at the quantiles of Beta(0.6, 0.6), float64.

    With a = 0.6 and x = v^(1/a) the density's pole at 0 is gone, F(x) ∝ ∫_0^v (1 − u^(1/a))^(a − 1) du up to x = ½,
    and the other half is its mirror image.
    """
    v = np.linspace(0, 0.5**_BETA, 20_000)
    density = (1 - v ** (1 / _BETA)) ** (_BETA - 1)
    total = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    quantile = (1 - _equal(count)).numpy()
    lower = np.interp(np.minimum(quantile, 1 - quantile), total / total[-1] / 2, v) ** (1 / _BETA)
    place = torch.from_numpy(np.where(quantile <= 0.5, lower, 1 - lower))
    return last + place * (first - last)


LADDERS: dict[str, Ladder] = {"karras": karras, "exponential": exponential, "beta": beta}


def _equal(count: int) -> Tensor:
    return torch.from_numpy(np.linspace(0, 1, count))
