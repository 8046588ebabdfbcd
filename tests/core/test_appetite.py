"""What a call takes is counted exactly, and batches are cut to what is free."""

import pytest
import torch
from torch import Tensor

from neblina.core import appetite
from neblina.core.appetite import Appetite, bytes_alive
from neblina.core.conditions import Condition
from neblina.core.plan import Query, answer, conditional
from neblina.core.posterior import Gaussian, Posterior

MEGA = 2**18  # float32 of one mebibyte


def test_what_is_alive_at_once_is_counted_and_neither_views_nor_weights_are() -> None:
    weight = torch.zeros(MEGA, 1)

    def work() -> None:
        one = torch.zeros(MEGA)
        two = one + 1
        del one
        three = two * 2
        three.view(-1, 2)[:5].t()
        weight.t()

    assert bytes_alive(work) == 2 * 2**20


def test_a_chain_of_layers_takes_two_of_them() -> None:
    def chain() -> None:
        x = torch.zeros(MEGA)
        for _ in range(5):
            x = x + 1

    assert bytes_alive(chain) == 2 * 2**20


class Hungry:
    """Takes a thousand times its input."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def posterior(self, x: Tensor, t: Tensor, condition: Condition) -> Posterior:
        self.asked.append(len(x))
        wide = x.repeat(1, 1000)
        return Gaussian(x + 0 * wide.sum(1, keepdim=True))


@pytest.mark.parametrize(("pieces", "sizes"), [(10, [4]), (2, [2, 2]), (1.5, [1, 1, 1, 1])])
def test_a_batch_is_cut_into_equal_pieces_that_fit_after_one_sample_was_looked_at(
    pieces: float, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, t = torch.randn(4, 256), torch.full((4,), 0.5, dtype=torch.float64)
    each = 1000 * x[0].nbytes
    monkeypatch.setattr(appetite, "free_memory", lambda device: int(pieces * each * 1.01 / appetite._SHARE))
    hungry, once = Hungry(), Appetite()
    for expected in ([1, *sizes], sizes):  # it is looked at once
        hungry.asked.clear()
        (belief,) = answer([(conditional(hungry, Condition()), Query(x, t))], max_batch=once)
        assert isinstance(belief, Posterior)
        assert torch.allclose(belief.mean, x)
        assert hungry.asked == expected


def test_a_small_batch_is_not_looked_at() -> None:
    hungry = Hungry()
    query = Query(torch.randn(4, 256), torch.full((4,), 0.5, dtype=torch.float64))
    answer([(conditional(hungry, Condition()), query)], max_batch=Appetite())
    assert hungry.asked == [4]
