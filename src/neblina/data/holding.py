"""What is kept out of training: a share of the pictures, and combinations of two facts that are each seen alone.

Pictures with metadata may be there several times under several names: equal ones, pixel for pixel, stay on one side.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from neblina.core.errors import DataError
from neblina.data.pictures import Pictures, Subset

_AT_ONCE = 256  # pictures that are read together


def split(
    pictures: Pictures, holdout: float, seed: int, *, apart: tuple[str, str] | None = None, count: int = 0
) -> tuple[Pictures, Pictures]:
    """Training and held-out pictures, the same for the same seed.

    Args:
        holdout: share of the pictures that is held out at random.
        apart: two fields of their metadata; `count` combinations of a value of each are held out, which never stand
            together in training, though each of the two does, with others. Of a list it takes those of one value.
    Raises:
        DataError: a share that leaves one side empty, fields that are not there, or fewer such combinations.
    """
    if holdout == 0 and apart is None:
        return pictures, Subset(pictures, ())
    order = np.random.Generator(np.random.Philox(key=seed % 2**64)).permutation(len(pictures)).tolist()
    held = set(order[: round(len(pictures) * holdout)])
    if holdout and not 0 < len(held) < len(pictures):
        raise DataError(f"holding out {holdout:g} of {len(pictures)} pictures leaves training or testing without any")
    if pictures.records is None and apart is None:
        digests: list[bytes] = []
    else:
        digests = _digests(pictures)
        held = _with_twins(held, digests)
    if apart is not None:
        held |= _combinations(pictures, apart, count, order, held, digests)
    if len(held) == len(pictures):
        raise DataError("every picture equals one that is held out: nothing is left to train on")
    training = tuple(number for number in range(len(pictures)) if number not in held)
    return Subset(pictures, training), Subset(pictures, tuple(sorted(held)))


def repeated(pictures: Pictures, called: Sequence[str]) -> list[tuple[str, ...]]:
    """The different names of each picture that is there several times, pixel for pixel, under several of them."""
    names: dict[bytes, list[str]] = {}
    for digest, name in zip(_digests(pictures), called, strict=True):
        names.setdefault(digest, []).append(name)
    return [tuple(dict.fromkeys(some)) for some in names.values() if len(set(some)) > 1]


def _digests(pictures: Pictures) -> list[bytes]:
    found: list[bytes] = []
    for start in range(0, len(pictures), _AT_ONCE):
        pixels = pictures.read(range(start, min(start + _AT_ONCE, len(pictures)))).numpy()
        found += [hashlib.blake2b(one.tobytes(), digest_size=16).digest() for one in pixels]
    return found


def _with_twins(held: set[int], digests: Sequence[bytes]) -> set[int]:
    gone = {digests[number] for number in held}
    return {number for number, digest in enumerate(digests) if digest in gone}


def _combinations(
    pictures: Pictures,
    fields: tuple[str, str],
    count: int,
    order: Sequence[int],
    held: set[int],
    digests: Sequence[bytes],
) -> set[int]:
    """The pictures of `count` combinations, taken in `order` where both values stay in training with others."""
    pairs = _pairs(pictures, fields)
    twins = Counter(digests)
    values = [Counter(pair[side] for number, pair in pairs.items() if number not in held) for side in (0, 1)]
    members: dict[tuple[str, str], set[int]] = {}
    for number, pair in pairs.items():
        members.setdefault(pair, set()).add(number)
    chosen: set[int] = set()
    taken = 0
    for number in order:
        if taken == count:
            return chosen
        if number in held or number not in pairs or number in chosen:
            continue
        pair = pairs[number]
        mates = members[pair]
        alone = any(values[side][pair[side]] <= len(mates) for side in (0, 1))
        if alone or mates & held or any(twins[digests[mate]] > 1 for mate in mates):
            continue
        chosen |= mates
        taken += 1
        for side in (0, 1):
            values[side][pair[side]] -= len(mates)
    raise DataError(
        f"{taken} combinations of {fields[0]} and {fields[1]} can be held out so that both are still trained on with "
        f"others, and data.apart.count is {count}: lower it"
    )


def _pairs(pictures: Pictures, fields: tuple[str, str]) -> dict[int, tuple[str, str]]:
    """The two values of each picture that has one of each."""
    if pictures.records is None:
        raise DataError("data.apart holds out combinations of facts in a metadata.jsonl, and these pictures have none")
    found = {}
    for number, record in enumerate(pictures.records):
        said = [_one(record.get(field)) for field in fields]
        if said[0] is not None and said[1] is not None:
            found[number] = (said[0], said[1])
    for field in fields:
        if not any(field in record for record in pictures.records):
            known = sorted({name for record in pictures.records for name in record})
            raise DataError(f"metadata.jsonl has no field {field} (data.apart.fields); it has {', '.join(known)}")
    return found


def _one(value: Any) -> str | None:
    if isinstance(value, list):
        return str(value[0]) if len(value) == 1 else None
    return None if value is None else str(value)
