"""Which of several processes this is; imports nothing heavy, so that a command line can ask."""

import atexit
import os


def world_size() -> int:
    """How many processes torchrun (or whoever sets its variables) started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this is, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main_process() -> bool:
    """Whether this is the one that writes files and talks."""
    return rank() == 0


def join_processes(*, cpu: bool) -> None:
    """Meet the other processes, if there are any, and part from them when this one ends.

    A process that ends while the group's threads are alive is aborted by them now and then ("terminate called without
    an active exception"), and torchrun calls the whole run failed though its work was done.

    Args:
        cpu: whether they compute on CPUs.
    """
    if world_size() == 1:
        return
    from accelerate import PartialState  # takes a while
    from torch import distributed

    if not distributed.is_initialized():
        atexit.register(_part)
    PartialState(cpu=cpu)


def _part() -> None:
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()
