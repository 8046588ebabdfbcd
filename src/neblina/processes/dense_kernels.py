"""The two kernels whose transitions are K x K matrices: neighbours are more alike than others.

Discretised Gaussian (classes are levels, such as those of a pixel): in step n, with β_n rising from β_1 to β_T,

    [Q_n]_ij = exp(−4 (i − j)² / ((K − 1)² β_n)) / Σ_{k=−(K−1)}^{K−1} exp(−4 k² / ((K − 1)² β_n)),   i ≠ j,

and what is left on the diagonal. Its steps do not commute and have no common eigenvectors, so it exists at the T steps
alone, and the products of its steps are stored.

Nearest neighbours (classes are entries of a codebook or words with embeddings): one rate matrix,

    Q_{s→t} = exp((τ_t − τ_s) R),   R = A − diag(A 1),   A = (G + Gᵀ) / 2k,

where G_ij = 1 if j is one of the k nearest to i, and τ = −log h(t) of a survival h. R is symmetric: with its
eigenvectors any s < t is two products with a matrix.

Austin et al. Structured Denoising Diffusion Models in Discrete State-Spaces. NeurIPS 2021, appendix A.2.4 and A.2.5.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from neblina.core.errors import SettingError
from neblina.core.logs import finite, log
from neblina.core.shapes import expand
from neblina.processes.draws import drawn
from neblina.processes.kernels import kernels
from neblina.processes.survival import survivals

_MOST = 2**30  # bytes that products of steps may take
_LEAST = 1e-80  # a smaller chance is none: 1 / chance has room beside 1 in float64, and denormal numbers are slow
_KEPT = 64  # of them that are remembered


class Dense(ABC):
    """What kernels with matrices have in common; all of them end evenly spread."""

    @property
    @abstractmethod
    def states(self) -> int: ...

    @property
    def draws_projected(self) -> bool:
        return True

    @abstractmethod
    def moved(self, p: Tensor, s: Tensor, t: Tensor, *, backwards: bool = False) -> Tensor:
        """p Q_{s→t}, or p Q_{s→t}ᵀ, of probabilities p, shape (B, n, K), float64."""

    def push(self, p: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """As `Kernel.push`."""
        most = p.amax(-1, keepdim=True)
        share = _without_least((p.double() - most).exp(), 1e-300)  # in float32, what is e^100 below the most is lost
        moved = self._flat(share, s, t)
        return finite(log(moved) + most).to(p)

    def column(self, x: Tensor, s: Tensor, t: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """As `Kernel.column`."""
        return log(self.reached(x, s, t, backwards=True)).to(dtype)

    def support(self, x: Tensor, t: Tensor) -> Tensor | None:
        """As `Kernel.support`."""
        return self.reached(x, torch.zeros_like(t), t, backwards=True) > 0

    def jump(self, x: Tensor, s: Tensor, t: Tensor, uniform: Tensor) -> Tensor:
        """As `Kernel.jump`."""
        return drawn(log(self.reached(x, s, t)), uniform)

    def bridge(self, x: Tensor, x0: Tensor, t: Tensor, s: Tensor, uniform: Tensor) -> Tensor:
        """As `Kernel.bridge`."""
        law = self.reached(x0, torch.zeros_like(s), s) * self.reached(x, s, t, backwards=True)
        return torch.where(law.sum(-1) > 0, drawn(log(law), uniform), x)

    def prior(self) -> Tensor:
        """As `Kernel.prior`."""
        return torch.full((self.states,), 1 / self.states, dtype=torch.float64).log()

    def reached(self, x: Tensor, s: Tensor, t: Tensor, *, backwards: bool = False) -> Tensor:
        """Rows Q_{s→t}[x], or columns Q_{s→t}[:, x], of tokens x, shape (B, *): float64 of shape (B, *, K)."""
        return self._flat(torch.nn.functional.one_hot(x, self.states), s, t, backwards=backwards)

    def _flat(self, p: Tensor, s: Tensor, t: Tensor, *, backwards: bool = False) -> Tensor:
        flat = p.double().reshape(len(p), -1, self.states)
        return self.moved(flat, s, t, backwards=backwards).clamp(min=0).reshape(p.shape)


@dataclass(frozen=True)
class DiscretisedGaussian(Dense):
    """A level moves to levels nearby.

    Attributes:
        classes: K levels.
        steps: T.
        beta_start, beta_end: of T = 1000 steps; other numbers of steps are as wide together.
    """

    classes: int
    steps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    _products: dict[tuple[int, int], Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def states(self) -> int:
        return self.classes

    def __post_init__(self) -> None:
        """Refuse what is no kernel.

        Raises:
            SettingError: fewer than two levels, no step, or rates that are none.
        """
        if self.classes < 2 or self.steps < 1:
            raise SettingError(
                f"a discretised Gaussian has 2 levels and 1 step or more, not {self.classes}, {self.steps}"
            )
        if not 0 < self.beta_start <= self.beta_end:
            raise SettingError(f"betas rise from above 0, and {self.beta_start:g} … {self.beta_end:g} do not")
        if 8 * (self.steps + 1) * self.classes**2 > _MOST:
            raise SettingError(
                f"the products of {self.steps} steps of {self.classes} levels take "
                f"{8 * (self.steps + 1) * self.classes**2 / 2**30:.1f} GiB: take fewer steps"
            )

    @cached_property
    def matrices(self) -> Tensor:
        """Q_1 … Q_T, shape (T, K, K), float64."""
        betas = torch.linspace(self.beta_start, self.beta_end, self.steps, dtype=torch.float64) * 1000 / self.steps
        gaps = torch.arange(self.classes, dtype=torch.float64)
        weights = torch.exp(-4 * gaps**2 / ((self.classes - 1) ** 2 * betas[:, None]))
        weights = weights / (2 * weights.sum(1, keepdim=True) - 1)
        between = (gaps[:, None] - gaps).abs().long()
        found = weights[:, between]
        diagonal = torch.eye(self.classes, dtype=torch.bool)
        found[:, diagonal] = 0
        return _without_least(found + torch.diag_embed(1 - found.sum(2)))

    @cached_property
    def cumulative(self) -> Tensor:
        """Q_1 … Q_n for n = 0 … T, shape (T + 1, K, K), float64."""
        products = [torch.eye(self.classes, dtype=torch.float64)]
        for matrix in self.matrices:
            products.append(_without_least(products[-1] @ matrix))
        return torch.stack(products)

    def moved(self, p: Tensor, s: Tensor, t: Tensor, *, backwards: bool = False) -> Tensor:
        """As `Dense.moved`.

        Raises:
            SettingError: a time between two steps.
        """
        each = self._each(len(p), s, t).to(p.device)
        return p @ (each.mT if backwards else each)

    def reached(self, x: Tensor, s: Tensor, t: Tensor, *, backwards: bool = False) -> Tensor:
        """As `Dense.reached`, looked up; errors of `moved`."""
        each = self._each(len(x), s, t).to(x.device)
        rows = torch.arange(len(x), device=x.device).reshape(-1, *[1] * (x.ndim - 1))
        return each[rows, :, x] if backwards else each[rows, x]

    def rate(self, x: Tensor, s: Tensor, t: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Its steps are whole: it has none.

        Raises:
            SettingError: always.
        """
        raise SettingError("a discretised Gaussian has steps and no rates: take the ancestral sampler")

    def config(self) -> dict[str, Any]:
        """As `Kernel.config`."""
        given = {"classes": self.classes, "steps": self.steps}
        return {"name": "discretised-gaussian", **given, "beta_start": self.beta_start, "beta_end": self.beta_end}

    def _step(self, t: Tensor) -> Tensor:
        steps = (t * self.steps).round()
        off = t[(t * self.steps - steps).abs() > 1e-6]
        if len(off):
            raise SettingError(
                f"a discretised Gaussian of {self.steps} steps exists at multiples of 1/{self.steps}, and "
                f"{float(off[0]):g} is none: take a grid of whole steps"
            )
        return steps.long()

    def _each(self, count: int, s: Tensor, t: Tensor) -> Tensor:
        """The matrix of each of `count` samples, shape (B, K, K)."""
        ends = torch.stack([self._step(s), self._step(t)], 1).expand(count, 2).tolist()
        if all(pair == ends[0] for pair in ends):
            return self._product(*ends[0]).expand(count, -1, -1)
        return torch.stack([self._product(first, last) for first, last in ends])

    def _product(self, first: int, last: int) -> Tensor:
        if first == 0:
            return self.cumulative[last]
        if last == first + 1:
            return self.matrices[first]
        if (first, last) not in self._products:
            product = torch.eye(self.classes, dtype=torch.float64)
            for matrix in self.matrices[first:last]:
                product = _without_least(product @ matrix)
            if len(self._products) >= _KEPT:
                self._products.pop(next(iter(self._products)))
            self._products[first, last] = product
        return self._products[first, last]


@dataclass(frozen=True, eq=False)
class NearestNeighbours(Dense):
    """A code moves to codes that mean nearly the same.

    Attributes:
        embeddings: of the K classes, shape (K, width).
        neighbours: k.
        schedule: of the survival, a registered name.
    """

    embeddings: Tensor
    neighbours: int = 8
    schedule: str = "linear"
    steps: None = None

    def __post_init__(self) -> None:
        """Refuse what is no kernel.

        Raises:
            SettingError: embeddings that are none, or neighbours so few that some classes are never reached.
        """
        if self.embeddings.ndim != 2 or len(self.embeddings) < 2 or not bool(self.embeddings.isfinite().all()):
            raise SettingError(
                "embeddings are finite, of shape (classes, width) with 2 classes or more, not of shape "
                f"{tuple(self.embeddings.shape)}"
            )
        if not 1 <= self.neighbours < self.classes:
            raise SettingError(
                f"neighbours are 1 … {self.classes - 1} of {self.classes} classes, not {self.neighbours}"
            )
        survivals[self.schedule]
        if int((self.eigen[0] > -1e-9).sum()) > 1:
            raise SettingError(
                f"with {self.neighbours} neighbours some classes are never reached from others: take more of them"
            )

    @property
    def classes(self) -> int:
        return len(self.embeddings)

    @property
    def states(self) -> int:
        return self.classes

    @cached_property
    def neighbourhood(self) -> Tensor:
        """A, shape (K, K), float64."""
        points = self.embeddings.double()
        apart = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
        near = torch.zeros_like(apart).scatter(1, apart.topk(self.neighbours, largest=False).indices, 1.0)
        return (near + near.T) / (2 * self.neighbours)

    @cached_property
    def eigen(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues of R, shape (K,), and its eigenvectors in columns, float64."""
        values, vectors = torch.linalg.eigh(self.neighbourhood - torch.diag(self.neighbourhood.sum(1)))
        return values, vectors

    def rate(self, x: Tensor, s: Tensor, t: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """As `Kernel.rate`."""
        rates = self.neighbourhood.to(x.device)[x]
        first, last = (survivals[self.schedule](one, self.classes).log() for one in (s, t))
        return log(rates * expand(first - last, rates)).to(dtype)

    def moved(self, p: Tensor, s: Tensor, t: Tensor, *, backwards: bool = False) -> Tensor:
        """As `Dense.moved`; the matrix is symmetric, so backwards is the same."""
        values, vectors = (one.to(p.device) for one in self.eigen)
        ends = (-survivals[self.schedule](one, self.classes).log() for one in (s, t))
        first, last = ends
        gone = torch.where(t > s, last - first, 0.0).to(p.device)
        # the eigenvalue of what never changes is 0, and its product with an endless time too
        decay = torch.where(values > -1e-9, 1.0, torch.exp(values * gone[:, None].clamp(max=1e300)))
        return ((p @ vectors) * decay[:, None]) @ vectors.T

    def config(self) -> dict[str, Any]:
        """As `Kernel.config`; the embeddings are the caller's to keep."""
        return {"name": "nearest-neighbours", "neighbours": self.neighbours, "schedule": self.schedule}


def _without_least(chances: Tensor, least: float = _LEAST) -> Tensor:
    return torch.where(chances < least, 0.0, chances)


kernels.add(DiscretisedGaussian, "discretised-gaussian")
_nearest: Callable[..., NearestNeighbours] = NearestNeighbours
kernels.add(_nearest, "nearest-neighbours")
