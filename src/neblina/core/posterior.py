"""What a denoiser answers: its belief about the clean data, q(x_0 | x_t).

Every parameterisation (eps, x0, v, score, …) is converted to this once, at the edge of the network, so that no
sampler, guidance or objective ever asks what the network predicts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor


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


Posterior = Gaussian


def join(posteriors: Sequence[Posterior]) -> Posterior:
    """Beliefs about one batch after the other; all of them carry the same fields."""
    columns = [[getattr(one, field.name) for one in posteriors] for field in fields(Gaussian)]
    return Gaussian(*(None if column[0] is None else torch.cat(column) for column in columns))  # type: ignore[arg-type]


def split(posterior: Posterior, sizes: Sequence[int]) -> list[Posterior]:
    """A belief about a batch as beliefs about parts of these sizes."""
    columns = [
        [None] * len(sizes) if value is None else torch.split(value, list(sizes))
        for value in (getattr(posterior, field.name) for field in fields(Gaussian))
    ]
    return [Gaussian(*row) for row in zip(*columns, strict=True)]
