"""Which rows of tokens a model is measured on: what its training did not see of its pictures or its text."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from neblina.codecs.levels import Levels
from neblina.codecs.vq import VQCodec
from neblina.core.errors import DataError
from neblina.data.order import batch_numbers
from neblina.data.pictures import Pictures, to_float
from neblina.data.tokens import Passages, Rows, read_text
from neblina.tasks.held import open_held, same_source, source_of
from neblina.tasks.token_model import TokenModel


@dataclass(frozen=True)
class HeldRows:
    """The rows to measure on; the rest as of `tasks.held.Held`."""

    rows: Rows
    words: str
    numbers: list[int]
    labels: Tensor | None
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Coded:
    """Pictures as the codes of a codec, each read when it is asked for."""

    pictures: Pictures
    codec: VQCodec | Levels
    shape: tuple[int, ...]
    classes: int
    device: torch.device
    alphabet: str = ""

    @property
    def labels(self) -> Tensor | None:
        return self.pictures.labels

    @property
    def label_names(self) -> tuple[str, ...]:
        return self.pictures.label_names

    def __len__(self) -> int:
        return len(self.pictures)

    def read(self, numbers: Sequence[int]) -> Tensor:
        with torch.no_grad():
            return self.codec.codes(to_float(self.pictures.read(numbers)).to(self.device)).cpu()


def open_held_rows(
    model: TokenModel, data: str | None, count: int | None, seed: int, *, skip_bad: bool = False
) -> HeldRows:
    """The rows to measure a model on.

    Args:
        model: what is measured.
        data: a source of pictures, or a text file; None for what the model's recipe held out of training.
        count: rows at most; None for all.
        seed, skip_bad: as of `open_held`.
    Raises:
        SettingError, DataError: as of `open_held`; a text with a letter that the model does not know.
    """
    bundle = model.bundle
    if bundle.codec is None:
        return _passages(model, data, count, seed)
    held = open_held(model, data, count, seed, skip_bad=skip_bad)
    rows = _Coded(held.pictures, bundle.codec, bundle.shape, bundle.kernel.classes, model.device)
    return HeldRows(rows, held.words, held.numbers, held.labels, held.left_out)


def _passages(model: TokenModel, data: str | None, count: int | None, seed: int) -> HeldRows:
    """Passages of a text one behind the other, so that each of its letters is measured once."""
    source, recipe = source_of(model, data, count, "text was")
    (length,) = model.bundle.shape
    words = f"the text of {source}"
    if recipe is not None and recipe.data.holdout > 0 and same_source(source, recipe.data.source):
        _, rows = read_text(source, length, recipe.data.holdout)
        assert rows is not None
        words += " held out of training"
    else:
        rows, _ = read_text(source, length)
    unknown = sorted(set(rows.text) - set(model.bundle.alphabet))
    if unknown:
        raise DataError(
            f"{source} holds {unknown[0]!r}, a letter that the model does not know"
            + (f", and {len(unknown) - 1} others" if unknown[1:] else "")
        )
    whole: Passages = replace(rows, alphabet=model.bundle.alphabet)
    starts = range(0, len(whole), length)
    chosen = batch_numbers(seed, len(starts), 0, min(count or len(starts), len(starts)))
    return HeldRows(
        whole, f"{len(chosen):,} of {len(starts):,} passages: {words}", [starts[one] for one in chosen], None
    )
