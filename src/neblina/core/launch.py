"""Which of several processes this is; imports nothing, so that a command line can ask."""

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
