"""The one place for broadcasting per-sample numbers against a batch."""

import torch
from torch import Tensor


def expand(values: Tensor, x: Tensor) -> Tensor:
    """Bring per-sample values of shape (B,) to (B, 1, …, 1), in the device and dtype of x, shape (B, *).

    Coefficients are computed in float64 on the CPU, since not every device has float64; nothing is read back from the
    device.
    """
    return values.reshape(values.shape + (1,) * (x.ndim - values.ndim)).to(x.device, x.dtype, non_blocking=True)


def choose_samples(mask: Tensor, chosen: Tensor, other: Tensor | float) -> Tensor:
    """`chosen`, shape (B, *), for the samples where a mask of shape (B,) holds, `other` for the rest."""
    wide = mask.reshape(mask.shape + (1,) * (chosen.ndim - mask.ndim)).to(chosen.device, non_blocking=True)
    return torch.where(wide, chosen, other)
