"""How much of a token's identity is left over time: h(t), from 1 at t = 0 to 0 at t = 1.

linear: h = 1 − t.
cosine: h = cos(π/2 · (t + c)/(1 + c)) / cos(π/2 · c/(1 + c)), c = 0.008.
mutual-information: the h for which a token that is kept with probability h, and is else one of K at random, tells
    I(x_t; x_0) = (1 − t) log K of its own clean value, all K being as likely. Where what is lost is masked
    it is 1 − t: a mask says nothing, so the information is the share that is not masked.

Austin et al. Structured Denoising Diffusion Models in Discrete State-Spaces. NeurIPS 2021, section 3.3, appendix A.6.
Hoogeboom et al. Argmax Flows and Multinomial Diffusion. NeurIPS 2021, section 5 (the cosine).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from neblina.core.registry import Registry

Survival = Callable[[Tensor, int], Tensor]
"""h(t) of times of shape (B,), float64 in [0, 1], for a number of classes."""
survivals: Registry[Survival] = Registry("schedule of a token's survival")
_OFFSET = 0.008
_HALVINGS = 60


def linear(t: Tensor, classes: int) -> Tensor:
    """1 − t."""
    return 1 - t


def cosine(t: Tensor, classes: int) -> Tensor:
    """A quarter of a cosine, flat where the data is clean."""
    start = math.cos(math.pi / 2 * _OFFSET / (1 + _OFFSET))
    kept = torch.cos(math.pi / 2 * (t + _OFFSET) / (1 + _OFFSET)) / start
    return torch.where(t < 1, kept, 0.0)  # the cosine of a rounded π/2 is not 0


def mutual_information(t: Tensor, classes: int) -> Tensor:
    """What loses information about the clean token at an even pace."""
    wanted = (1 - t) * math.log(classes)
    low, high = torch.zeros_like(t), torch.ones_like(t)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        enough = information(middle, classes) > wanted
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return torch.where(t <= 0, 1.0, torch.where(t >= 1, 0.0, (low + high) / 2))


def information(kept: Tensor, classes: int) -> Tensor:
    """I(x_t; x_0) in nats, where a token is kept with a probability and is else one of K at random, itself included."""
    stays, other = kept + (1 - kept) / classes, (1 - kept) / classes
    entropy: Tensor = torch.special.entr(stays) + (classes - 1) * torch.special.entr(other)
    return math.log(classes) - entropy


survivals.add(linear, "linear")
survivals.add(cosine, "cosine")
survivals.add(mutual_information, "mutual-information")
