"""The exponential moving average of the weights, which is what samples.

    θ̂_n = β_n θ̂_{n−1} + (1 − β_n) θ_n,    β_n = min(decay, (1 + n)/(10 + n)),    n = 1, 2, …

The decay rises from 2/11, so that the average of a short run is not its beginning; the rise is that of TensorFlow's
ExponentialMovingAverage.

Polyak, Juditsky. Acceleration of Stochastic Approximation by Averaging. SIAM 1992.
"""

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

Net = TypeVar("Net", bound=nn.Module)


class Ema(Generic[Net]):
    """A second set of weights that follows the first."""

    def __init__(self, net: Net, decay: float) -> None:
        self.net = copy.deepcopy(net)
        self.net.eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        """Move towards the weights after `step` steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        # parameters come in one order from both networks
        torch._foreach_lerp_(list(self.net.parameters()), list(net.parameters()), 1 - decay)
        for mine, theirs in zip(self.net.buffers(), net.buffers(), strict=True):
            mine.copy_(theirs)
