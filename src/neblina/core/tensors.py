"""Tensors in a safetensors file, and what may not be in one."""

import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def save_tensors(tensors: Mapping[str, Tensor], place: Path) -> None:
    """Write tensors by name, from any device and in any layout.

    Raises:
        OSError: the disk is full or refuses; safetensors itself hides that in an error of its own.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(plain, place, metadata={"format": "pt"})
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else 0, str(error)) from error


def is_finite(tensor: Tensor) -> bool:
    """Whether there is neither an infinity nor a NaN in a tensor."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    if tensor.element_size() == 1:  # float8 has no minimum in torch
        return bool(tensor.float().isfinite().all())
    lowest, highest = tensor.aminmax()  # of NaN is NaN; allocates nothing, unlike isfinite
    return bool(lowest.isfinite() & highest.isfinite())
