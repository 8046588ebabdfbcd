"""What fits an annotation, and what is said where it does not."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from neblina.core.errors import MemoryShortage, NeblinaError, SettingError
from neblina.core.kinds import checked, fits
from neblina.core.memory import within_memory


@pytest.mark.parametrize(
    ("kind", "fitting", "others"),
    [
        (int, [0, -3, np.int64(4)], [True, 1.0, "1", None]),
        (float, [0, 1.5, np.float32(2)], [False, "x", None, [1.0]]),
        (str | None, ["", None], [1, b"x", ["x"]]),
        (tuple[int, int] | None, [(1, 2), [1, 2], None], [(1,), (1.0, 2.0), (1, 2, 3), "12", 5]),
        (str | Sequence[str] | None, ["a", ["a", "b"], ("a",), [], None], [[None], 5, [["a"]]]),
        (int | str | Sequence[int | str], [1, "a", [1, "a"], range(3)], [1.5, [1.5], None]),
        (Mapping[str, Any], [{}, {"eta": Ellipsis}], [{1: 2}, [("eta", 1)]]),
        (Callable[[int], bool] | None, [print, None], [5]),
        (torch.Tensor, [torch.zeros(1)], [np.zeros(1), 1.0]),
        (Any, [None, 5], []),
    ],
    ids=str,
)
def test_a_value_fits_its_kind_and_no_other(kind: Any, fitting: list[Any], others: list[Any]) -> None:
    assert all(fits(value, kind) for value in fitting)
    assert not any(fits(value, kind) for value in others)


@checked
def made(
    count: int, size: tuple[int, int] | None = None, *, words: str | Sequence[str] = "", **rest: Any
) -> tuple[object, ...]:
    return count, size, words, rest


def test_a_checked_function_is_the_function_of_what_fits() -> None:
    assert made(2, (3, 4), words=["a"], other=5) == (2, (3, 4), ["a"], {"other": 5})


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"count": "x"}, "count is a whole number, not 'x'"),
        ({"count": True}, "count is a whole number, not True"),
        ({"count": 1, "size": (1.0, 2.0)}, r"size is 2 whole numbers, not \(1\.0, 2\.0\)"),
        ({"count": 1, "words": [None]}, r"words is a text or a list of texts, not \[None\]"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        made(**asked)


@pytest.mark.parametrize(
    "take",
    [
        lambda: torch.empty(10**15),
        lambda: torch.empty(2**40, 2**40),
        lambda: np.zeros(10**15),
        lambda: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")),
    ],
)
def test_running_out_of_memory_is_a_sentence_whoever_does(take: Callable[[], Any]) -> None:
    with pytest.raises(MemoryShortage, match="smaller pictures or a smaller batch") as caught, within_memory():
        take()
    assert isinstance(caught.value, NeblinaError)


def test_another_failure_is_what_it_was() -> None:
    with pytest.raises(RuntimeError, match="must match the size"), within_memory():
        torch.zeros(2) + torch.zeros(3)
