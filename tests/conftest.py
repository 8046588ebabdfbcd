"""What all tests share: two threads, no network, exact denoisers."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

from neblina.processes.schedules import Schedule, schedules


@pytest.fixture(params=list(schedules))
def schedule(request: pytest.FixtureRequest) -> Schedule:
    """Every registered schedule at its defaults."""
    return schedules[request.param]()


def times(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)
