"""What all tests share: two threads, no network, exact denoisers."""

import os
import signal

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from exact import SCHEDULES

from neblina.processes.schedules import Schedule

# what is started in the background ignores Ctrl-C, and so would all that it starts
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=list(SCHEDULES))
def schedule(request: pytest.FixtureRequest) -> Schedule:
    """Every registered schedule at its defaults, a table of one's own, and one that ends without any signal."""
    return SCHEDULES[request.param]


def times(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)
