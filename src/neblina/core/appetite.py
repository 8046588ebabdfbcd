"""How many samples a network is given at once, when nobody says: what free memory holds.

The activations of a call grow with its batch. Where a batch could be too large, one sample is asked about first and the
most bytes that are alive at once are counted, tensor by tensor, whatever the device; the batch is then cut into equal
pieces that fit in a share of what is free. Batches that no known network could fill memory with are not cut.
"""

import weakref
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_NEVER = 20_000  # bytes alive in a call for one of its input: some 1,000 to 3,000 in U-Nets and transformers
_SHARE = 0.6  # of free memory: kernels have workspaces of their own, which are not tensors
_GROUP = Path("/sys/fs/cgroup")


class Appetite:
    """What networks were seen to take, a sample of each kind."""

    def __init__(self) -> None:
        self._each: dict[tuple[object, ...], int] = {}

    def most(self, kind: tuple[object, ...], x: Tensor, ask: Callable[[], object]) -> int:
        """How many of the samples x, shape (B, *), to ask about at once.

        Args:
            kind: of samples that take alike.
            ask: asks the network about one of them.
        """
        size, free = len(x), free_memory(x.device)
        if size == 1 or size * x[0].nbytes * _NEVER < free:
            return size
        if kind not in self._each:
            self._each[kind] = bytes_alive(ask)
        fit = max(1, int(_SHARE * free / self._each[kind]))
        return ceil(size / ceil(size / fit))


def bytes_alive(work: Callable[[], object]) -> int:
    """The most bytes of tensors made by some work that are alive at once, at least 1."""
    counted = _Counting()
    with counted:
        work()
    return max(1, counted.most)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be taken on a device, in this process's own bounds."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + int(kept)
    import psutil

    free = int(psutil.virtual_memory().available)
    try:
        most, taken = ((_GROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        if most == "max":
            return free
        held = dict(line.split() for line in (_GROUP / "memory.stat").read_text().splitlines())
        return min(free, int(most) - int(taken) + int(held["inactive_file"]))  # what was read is given back
    except (OSError, ValueError, KeyError):  # no such group, or none of this kind
        return free


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of every tensor that is made inside, from its making to its end."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 0
        self._alive = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        given = set(_storages((args, kwargs)))  # views, of weights too, are not made
        for storage in _storages(made):
            if storage not in given:
                self._count(storage)
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        size = storage.nbytes()
        self._alive += size
        self.most = max(self.most, self._alive)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self._alive -= size


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [one.untyped_storage() for one in tree_leaves(values) if isinstance(one, Tensor)]
