"""What a sample is conditioned on."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from neblina.core.errors import SettingError
from neblina.core.windows import Window

NULL_LABEL = -1


@dataclass(frozen=True)
class Condition:
    """Conditions of a batch; every field has the batch axis first, or is None where nothing is said.

    Attributes:
        labels: class of each sample, shape (B,), int64; NULL_LABEL (−1) says "no class": the network's own null.
        text: what cross-attention reads, one vector a token, shape (B, L, D).
        pooled: one vector of the whole text, shape (B, P).
        sizes: numbers about the picture that the network was told in training, such as its size in pixels before it
            was cut and where it was cut, shape (B, N).
        spatial: maps joined to the noisy batch by channels (masks, masked or small pictures, depths, semantic maps),
            shape (B, C, H, W) with the batch's own H and W.
        lengths: of texts of several lengths, how many vectors each has, shape (B,), int64; the others behind them are
            nothing, and a network is given texts of one length (`take`). None where all are as long as `text` is.
        unsaid: the condition of guidance's other branch, such as that of a negative prompt; None for this one with
            the null label.
    """

    labels: Tensor | None = None
    text: Tensor | None = None
    pooled: Tensor | None = None
    sizes: Tensor | None = None
    spatial: Tensor | None = None
    lengths: Tensor | None = None
    unsaid: "Condition | None" = None

    @property
    def given(self) -> dict[str, Tensor]:
        """What is said, by the name of its field."""
        named = ((name, getattr(self, name)) for name in _SAID)
        return {name: value for name, value in named if value is not None}

    @property
    def structure(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Which fields are given, and their shapes: conditions of one structure can share a network call."""
        return tuple((name, tuple(value.shape[1:])) for name, value in self.given.items())

    def take(self, rows: Tensor) -> "Condition":
        """The conditions of some rows, in the order given, without what is behind the longest text; rows (N,)."""
        taken = {name: value[rows.to(value.device)] for name, value in self.given.items()}
        lengths = None if self.lengths is None else self.lengths[rows.to(self.lengths.device)]
        if lengths is not None and self.text is not None:
            taken["text"] = taken["text"][:, : int(lengths.max())]
            lengths = None if bool((lengths == lengths[0]).all()) else lengths
        return replace(self, **taken, lengths=lengths, unsaid=None if self.unsaid is None else self.unsaid.take(rows))

    def cut(self, window: Window) -> "Condition":
        """The conditions of a part of the canvas: maps are cut, the rest is about the whole."""
        if self.spatial is None:
            return self
        unsaid = None if self.unsaid is None else self.unsaid.cut(window)
        return replace(self, spatial=window.of(self.spatial), unsaid=unsaid)

    def with_maps(self, maps: Tensor) -> "Condition":
        """The condition with maps of shape (1, C, H, W) joined to every sample, in guidance's other branch too."""
        count = len(next(iter(self.given.values()))) if self.given else 1
        unsaid = None if self.unsaid is None else self.unsaid.with_maps(maps)
        return replace(self, spatial=maps.expand(count, *maps.shape[1:]), unsaid=unsaid)

    def null(self) -> "Condition":
        """The condition of guidance's other branch.

        Raises:
            SettingError: a text without a word of what the other branch reads in its place.
        """
        if self.unsaid is not None:
            return self.unsaid
        if self.text is not None:
            raise SettingError("guidance goes away from another text, and none is given: encode one as `unsaid`")
        return self if self.labels is None else replace(self, labels=torch.full_like(self.labels, NULL_LABEL))


_SAID = tuple(field.name for field in fields(Condition) if field.name not in ("lengths", "unsaid"))


def concatenate(conditions: Sequence[Condition]) -> Condition:
    """Conditions of one structure, one after the other; what the other branch reads is no part of them."""
    given = [condition.given for condition in conditions]
    return replace(conditions[0], unsaid=None, **{name: torch.cat([one[name] for one in given]) for name in given[0]})


@dataclass(frozen=True)
class Wants:
    """What a network reads beside labels; each is required if and only if it is wanted.

    Attributes:
        text: width D of the vectors its cross-attention reads, None for a network that reads no text.
        pooled: width P of the vector of the whole text, None for none.
        sizes: how many numbers about the picture, 0 for none.
        spatial: channels joined to the noisy batch, 0 for none.
    """

    text: int | None = None
    pooled: int | None = None
    sizes: int = 0
    spatial: int = 0

    def check(self, condition: Condition) -> None:
        """Refuse a condition that does not fit.

        Raises:
            SettingError: saying what is missing, not wanted, or of another width; texts of several lengths.
        """
        if condition.lengths is not None:
            raise SettingError("these texts are of several lengths: take those of one length at a time")
        for name, (wanted, what) in {
            "text": (self.text, "text encoded as vectors"),
            "pooled": (self.pooled, "the vector of the whole text"),
            "sizes": (self.sizes or None, "numbers about the picture's size"),
            "spatial": (self.spatial or None, "maps joined to the picture by channels"),
        }.items():
            value = condition.given.get(name)
            if value is None and wanted is not None:
                raise SettingError(f"this model is conditioned on {what} ({name}, {wanted} wide): give it")
            if value is not None and wanted is None:
                raise SettingError(f"this model takes no {what} ({name}): leave it out")
            width = None if value is None else value.shape[1 if name == "spatial" else -1]
            if width != wanted:
                raise SettingError(f"this model takes {what} ({name}) {wanted} wide, not {width}")
