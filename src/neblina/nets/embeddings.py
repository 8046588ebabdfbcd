"""How a network is told the time.

Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. NeurIPS 2020, appendix B (sinusoidal).
Tancik et al. Fourier Features Let Networks Learn High Frequency Functions. NeurIPS 2020.
"""

import math

import torch
from torch import Tensor, nn


class Sinusoidal(nn.Module):
    """sin and cos of the time at frequencies from 1 to 1/10,000; no parameters."""

    def __init__(self, channels: int, *, cos_first: bool, shift: float) -> None:
        super().__init__()
        self.channels = channels
        self.cos_first = cos_first
        self.shift = shift

    @property
    def width(self) -> int:
        """Of what comes out."""
        return self.channels

    def forward(self, time: Tensor) -> Tensor:
        """time of shape (B,), any real numbers, to (B, channels) in float32."""
        half = self.channels // 2
        # multiplied before it is divided, as diffusers does: another order moves angles at step 999 by 6e-5
        exponent = -math.log(10000) * torch.arange(half, dtype=torch.float32, device=time.device)
        angle = time.float()[:, None] * torch.exp(exponent / (half - self.shift))
        waves = (angle.cos(), angle.sin()) if self.cos_first else (angle.sin(), angle.cos())
        return nn.functional.pad(torch.cat(waves, dim=1), (0, self.channels % 2))


class RandomFourier(nn.Module):
    """sin and cos of the time, or of its logarithm, at fixed random frequencies, twice `channels` wide."""

    def __init__(self, channels: int, scale: float = 16.0, *, log: bool = True, cos_first: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels) * scale, requires_grad=False)
        self.log = log
        self.cos_first = cos_first

    @property
    def width(self) -> int:
        """Of what comes out."""
        return 2 * len(self.weight)

    def forward(self, time: Tensor) -> Tensor:
        """Times of shape (B,), positive where their logarithm is taken, to (B, 2 channels)."""
        time = time.to(self.weight.dtype)
        angle = (time.log() if self.log else time)[:, None] * self.weight * 2 * math.pi
        waves = (angle.cos(), angle.sin()) if self.cos_first else (angle.sin(), angle.cos())
        return torch.cat(waves, dim=1)


class LearnedSteps(nn.Embedding):
    """A learned vector for every step of a discrete schedule; fractional steps are rounded."""

    @property
    def width(self) -> int:
        """Of what comes out."""
        return self.embedding_dim

    def forward(self, time: Tensor) -> Tensor:
        """time of shape (B,) to (B, channels)."""
        return super().forward(time.round().long())


class TimeMLP(nn.Module):
    """Two linear layers that make the embedding every block reads; `last` bends what they made."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        activation: type[nn.Module] = nn.SiLU,
        last: type[nn.Module] = nn.Identity,
    ) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(in_channels, channels)
        self.activation = activation()
        self.linear_2 = nn.Linear(channels, channels)
        self.last = last()

    def forward(self, embedded: Tensor) -> Tensor:
        """(B, in_channels) to (B, channels)."""
        out: Tensor = self.last(self.linear_2(self.activation(self.linear_1(embedded))))
        return out
