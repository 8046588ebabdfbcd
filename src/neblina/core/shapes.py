"""The one place for broadcasting per-sample numbers against a batch."""

from torch import Tensor


def expand(values: Tensor, x: Tensor) -> Tensor:
    """Bring per-sample values of shape (B,) to (B, 1, …, 1), in the device and dtype of x, shape (B, *).

    Coefficients are computed in float64 on the CPU, since not every device has float64; nothing is read back from the
    device.
    """
    return values.reshape(values.shape + (1,) * (x.ndim - values.ndim)).to(x.device, x.dtype, non_blocking=True)
