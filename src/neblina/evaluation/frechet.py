"""The Fréchet distance between two sets of pictures, in the feature space of a named extractor.

For features with means m and covariances C,

    d² = ‖m_1 − m_2‖² + tr(C_1 + C_2 − 2 (C_1^½ C_2 C_1^½)^½),

computed in float64 from symmetric eigenvalues, which are never complex. It depends on the extractor and, because small
sets have noisy covariances, on the number of pictures: so a score carries both, and only the Inception network's is
called FID. Both sets are uint8, as pictures are seen, and equally many.

Dowson, Landau. The Fréchet Distance between Multivariate Normal Distributions. 1982.
Heusel et al. GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium. NeurIPS 2017.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from neblina.core.errors import DataError

Features = np.ndarray[Any, np.dtype[np.float64]]


class Extractor(Protocol):
    """Turns pictures into features.

    Attributes:
        name: what a score in its feature space is called by.
    """

    @property
    def name(self) -> str: ...
    def __call__(self, pictures: Tensor) -> Features:
        """Features of uint8 pictures (N, C, H, W), shape (N, D)."""
        ...


@dataclass(frozen=True)
class Score:
    """A distance and what it depends on."""

    value: float
    extractor: str
    count: int


def frechet_distance(one: Tensor, other: Tensor, extractor: Extractor) -> Score:
    """Squared Fréchet distance of two sets of uint8 pictures, each of shape (N, C, H, W).

    Raises:
        DataError: pictures that are not uint8, unequal counts, or fewer than two.
    """
    for pictures in (one, other):
        if pictures.dtype != torch.uint8:
            raise DataError(f"the Fréchet distance is of uint8 pictures, as they are seen, not of {pictures.dtype}")
    if len(one) != len(other):
        raise DataError(f"the Fréchet distance is of equally many pictures, not of {len(one)} and {len(other)}")
    if len(one) < 2:
        raise DataError("the Fréchet distance needs at least two pictures a set")
    return Score(frechet(extractor(one), extractor(other)), extractor.name, len(one))


def frechet(one: Features, other: Features) -> float:
    """Squared Fréchet distance between normal distributions fitted to features of shape (N, D)."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    gap = one.mean(0) - other.mean(0)
    first, second = np.atleast_2d(np.cov(one, rowvar=False)), np.atleast_2d(np.cov(other, rowvar=False))
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    between = np.linalg.eigvalsh(root @ second @ root).clip(min=0)
    return float(gap @ gap + np.trace(first) + np.trace(second) - 2 * np.sqrt(between).sum())
