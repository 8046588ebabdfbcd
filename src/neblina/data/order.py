"""The order of training examples, as a function of the seed and the position alone.

Position p of an endless stream is example p mod N of epoch ⌊p/N⌋, and every epoch is its own permutation. Nothing has
to be stored to resume: the step says where the stream stands.
"""

from functools import lru_cache

import numpy as np


def batch_numbers(seed: int, size: int, start: int, count: int) -> list[int]:
    """Which of `size` examples stand at the positions start … start + count − 1 of the stream."""
    numbers: list[int] = []
    position = start
    while len(numbers) < count:
        epoch, place = divmod(position, size)
        taken = _permutation(seed, epoch, size)[place : place + count - len(numbers)]
        numbers += taken
        position += len(taken)
    return numbers


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, size: int) -> list[int]:
    generator = np.random.Philox(key=np.array([seed % 2**64, epoch], dtype=np.uint64))
    order: list[int] = np.random.Generator(generator).permutation(size).tolist()
    return order
