"""What is held out of training is in no part of it, whatever it is called."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from neblina.core.errors import DataError
from neblina.data.holding import repeated, split
from neblina.data.pictures import InMemory, Pictures, Subset

PEOPLE, TONES = ("man", "woman", "child", "person"), ("light", "medium", "dark")


def portraits() -> InMemory:
    """Every person in every tone, everyone without a tone, and some in two."""
    records: list[dict[str, Any]] = [
        {"base": person, "tones": list(tones)}
        for person in PEOPLE
        for tones in (*((tone,) for tone in TONES), (), ("light", "dark"))
    ]
    pixels = torch.arange(len(records)).to(torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2).contiguous()
    return InMemory(pixels, records=tuple(records))


def numbers(part: Pictures) -> Sequence[int]:
    assert isinstance(part, Subset)
    return part.numbers


def pairs(part: Pictures) -> set[tuple[str, str]]:
    records = part.records
    assert records is not None
    return {(record["base"], record["tones"][0]) for record in records if len(record["tones"]) == 1}


def test_equal_pictures_are_on_one_side() -> None:
    pixels = (torch.arange(40) // 2).to(torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2).contiguous()  # in twos
    named = tuple({"text": str(number)} for number in range(40))
    training, held = split(InMemory(pixels, records=named), 0.2, seed=1)
    seen = {int(one) for one in training.read(range(len(training)))[:, 0, 0, 0]}
    kept = {int(one) for one in held.read(range(len(held)))[:, 0, 0, 0]}
    assert kept
    assert not seen & kept
    assert sorted([*numbers(training), *numbers(held)]) == list(range(40))


def test_a_combination_is_held_out_whose_parts_are_each_trained_on_with_others() -> None:
    training, held = split(portraits(), 0, seed=2, apart=("base", "tones"), count=5)
    gone, seen = pairs(held), pairs(training)
    assert len(gone) == len(held) == 5
    assert not gone & seen
    assert {person for person, _ in gone} <= {person for person, _ in seen}
    assert {tone for _, tone in gone} <= {tone for _, tone in seen}
    assert numbers(split(portraits(), 0, seed=2, apart=("base", "tones"), count=5)[1]) == numbers(held)


def test_a_combination_that_looks_like_another_picture_is_not_held_out() -> None:
    plain = portraits()
    pixels = plain.pixels.clone()
    pixels[0] = pixels[3]  # a man in light looks like a man without a tone
    for seed in range(5):
        _, held = split(InMemory(pixels, records=plain.records), 0, seed, apart=("base", "tones"), count=5)
        assert 0 not in numbers(held)


def test_combinations_are_held_out_beside_a_share() -> None:
    """None of their pictures is in training though the share took others of the same person and tone."""
    for seed in range(5):
        training, held = split(portraits(), 0.2, seed, apart=("base", "tones"), count=3)
        assert not set(numbers(training)) & set(numbers(held))
        assert len(held) == 4 + 3
        only = split(portraits(), 0.2, seed)[1]
        apart = pairs(Subset(held.whole, tuple(set(numbers(held)) - set(numbers(only)))))  # type: ignore[attr-defined]
        assert len(apart) == 3
        assert {person for person, _ in apart} <= {person for person, _ in pairs(training)}
        assert {tone for _, tone in apart} <= {tone for _, tone in pairs(training)}


def test_a_share_that_leaves_nothing_is_refused() -> None:
    equal = InMemory(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), records=({"text": "one"},) * 4)
    with pytest.raises(DataError, match="nothing is left to train on"):
        split(equal, 0.5, seed=0)
    with pytest.raises(DataError, match="without any"):
        split(portraits(), 0.01, seed=0)


def test_more_combinations_than_can_be_spared_are_refused() -> None:
    with pytest.raises(DataError, match=r"data\.apart\.count is 12"):
        split(portraits(), 0, seed=0, apart=("base", "tones"), count=12)
    with pytest.raises(DataError, match="no field skin"):
        split(portraits(), 0, seed=0, apart=("base", "skin"), count=1)
    with pytest.raises(DataError, match=r"have none"):
        split(InMemory(portraits().pixels), 0, seed=0, apart=("base", "tones"), count=1)


def test_pictures_that_are_there_under_several_names_are_found() -> None:
    pixels = torch.tensor([1, 2, 1, 3, 3], dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2).contiguous()
    assert repeated(InMemory(pixels), ["Norway", "cat", "Svalbard", "dog", "dog"]) == [("Norway", "Svalbard")]
