"""Tensors in a safetensors file, and what may not be in one."""

import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from neblina.core.errors import CheckpointError


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


def check_floating(name: str, tensor: Tensor, where: str) -> None:
    """Refuse whole numbers where a layer's weights belong.

    Args:
        name: of the tensor in its file.
        where: it comes from, the beginning of the message.
    Raises:
        CheckpointError: it holds whole numbers.
    """
    if not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise CheckpointError(
            f"{where}: {name} is {kind}; quantised weights are not read here: take the float16, bfloat16 or float32 "
            "weights of the same model"
        )


def is_finite(tensor: Tensor) -> bool:
    """Whether there is neither an infinity nor a NaN in a tensor."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    if tensor.element_size() == 1:  # float8 has no minimum in torch
        return bool(tensor.float().isfinite().all())
    lowest, highest = tensor.aminmax()  # of NaN is NaN; allocates nothing, unlike isfinite
    return bool(lowest.isfinite() & highest.isfinite())
