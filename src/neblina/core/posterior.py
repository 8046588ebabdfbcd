"""What a denoiser answers: its belief about the clean data, q(x_0 | x_t).

Every parameterisation (eps, x0, v, score, …, logits of classes) is converted to this once, at the edge of the network,
so that no sampler, guidance or objective ever asks what the network predicts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from neblina.core.errors import SettingError


@dataclass(frozen=True)
class Gaussian:
    """The belief of a Gaussian process.

    Attributes:
        mean: E[x_0 | x_t], shape (B, *), float32 or wider.
        unclipped_mean: the mean before an operator such as clipping changed it. A step that sees one points its
            noise estimate with it (what diffusers does when it clips x_0 and keeps the raw eps).
        variance_fraction: where a learned reverse variance lies between the true posterior's (0) and the forward
            step's (1), in the logarithm; shape (B, *), None where the network did not learn one.
    """

    mean: Tensor
    unclipped_mean: Tensor | None = None
    variance_fraction: Tensor | None = None

    @property
    def guess(self) -> Tensor:
        """The clean data it is about, at its best guess, shape (B, *)."""
        return self.mean


@dataclass(frozen=True)
class Categorical:
    """The belief of a discrete process: of every token by itself, which class it was.

    Attributes:
        log_probs: log q(x_0 = k | x_t), shape (B, *, K), float32 or wider; the probabilities of a token sum
            to 1.
    """

    log_probs: Tensor

    @property
    def guess(self) -> Tensor:
        """The most probable class of every token, int64 of shape (B, *)."""
        return self.log_probs.argmax(-1)


Posterior = Gaussian | Categorical


def join(posteriors: Sequence[Posterior]) -> Posterior:
    """Beliefs about one batch after the other; all of them are of one kind and carry the same fields."""
    kind = type(posteriors[0])
    columns = [[getattr(one, field.name) for one in posteriors] for field in fields(kind)]
    return kind(*(None if column[0] is None else torch.cat(column) for column in columns))  # type: ignore[arg-type]


def split(posterior: Posterior, sizes: Sequence[int]) -> list[Posterior]:
    """A belief about a batch as beliefs about parts of these sizes."""
    kind = type(posterior)
    columns = [
        [None] * len(sizes) if value is None else torch.split(value, list(sizes))
        for value in (getattr(posterior, field.name) for field in fields(kind))
    ]
    return [kind(*row) for row in zip(*columns, strict=True)]


def gaussian(posterior: Posterior, who: str) -> Gaussian:
    """The belief itself, for what only means something in a continuous space.

    Args:
        who: wants it, as the beginning of a sentence.
    Raises:
        SettingError: it is a belief about tokens.
    """
    if isinstance(posterior, Gaussian):
        return posterior
    raise SettingError(f"{who} changes pictures or latents, and this model makes tokens: leave it out")


def categorical(posterior: Posterior) -> Categorical:
    """The belief itself, for what only means something of tokens.

    Raises:
        SettingError: it is a belief about numbers.
    """
    if isinstance(posterior, Categorical):
        return posterior
    raise SettingError("this walk is of tokens, and its model makes pictures or latents: take a sampler of those")
