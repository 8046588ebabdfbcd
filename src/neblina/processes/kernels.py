"""Kernels: how a token of one of K classes is corrupted, as two primitives instead of a K x K matrix.

With Q_{s→t} the matrix of transition probabilities from time s to t, all of them as logarithms (`core.logs`),

    push(p, s, t)   = log(p Q_{s→t}),      where a token goes that is distributed as p
    column(x, s, t) = log Q_{s→t}[:, x],   how probable each start makes the end x

in O(K) a token for the family below: a token stays with probability a, becomes one of the K classes at random (itself
included) with 1 − a − g, and the mask with g, where it stays:

    Q = a I + b 1 1ᵀ + g 1 e_maskᵀ,   K b = 1 − a − g.

Products of such matrices are such matrices: a and the share u = 1 − g that is not masked multiply. A kernel is hence
α(t) and u(t), from time 0, and any real s < t is exact: a = α(t)/α(s), u = u(t)/u(s). Written in their logarithms,

    log(K b) = log u + log(1 − exp(log a − log u)),   log g = log(1 − exp(log u)),

it underflows nowhere, whatever K. The absorbing kernel has b = 0, the uniform one g = 0, mask-and-replace both.

Austin et al. Structured Denoising Diffusion Models in Discrete State-Spaces. NeurIPS 2021, appendix A.2.
Hoogeboom et al. Argmax Flows and Multinomial Diffusion. NeurIPS 2021, eq. 11-13.
Gu et al. Vector Quantized Diffusion Model for Text-to-Image Synthesis. CVPR 2022, eq. 7 and 8.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from neblina.core.errors import SettingError
from neblina.core.logs import ZERO, finite, log
from neblina.core.registry import Registry
from neblina.core.shapes import expand
from neblina.processes.survival import survivals


class Kernel(Protocol):
    """How tokens are corrupted. Classes are 0 … classes − 1; a mask, if there is one, is the state after them.

    Attributes:
        classes: K, that data is of.
        states: K, or K + 1 with a mask.
        steps: T of a kernel that is defined at multiples of 1/T alone; None for one of any real time.
        draws_projected: whether a belief is projected before x_0 is drawn from it; not where a class that cannot have
            led to x leaves x as it is, which is then the law.
    """

    @property
    def classes(self) -> int: ...
    @property
    def states(self) -> int: ...
    @property
    def steps(self) -> int | None: ...
    @property
    def draws_projected(self) -> bool: ...

    def push(self, p: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """log(p Q_{s→t}) of log p, both of shape (B, *, states); s <= t, shape (B,), float64 on the CPU."""
        ...

    def column(self, x: Tensor, s: Tensor, t: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """log Q_{s→t}[:, x], shape (B, *, states), of tokens x, shape (B, *)."""
        ...

    def support(self, x: Tensor, t: Tensor) -> Tensor | None:
        """Which classes tokens x at times t can have been, shape (B, *, classes); None for all of them."""
        ...

    def rate(self, x: Tensor, s: Tensor, t: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """log ∫ R_τ(k → x) dτ from s to t, of every other state k, shape (B, *, states); that of x itself is ZERO.

        Raises:
            SettingError: a kernel without rates.
        """
        ...

    def jump(self, x: Tensor, s: Tensor, t: Tensor, uniform: Tensor) -> Tensor:
        """Draw from q(x_t | x_s = x), int64 of shape (B, *), by numbers uniform in [0, 1), float64 of that shape."""
        ...

    def bridge(self, x: Tensor, x0: Tensor, t: Tensor, s: Tensor, uniform: Tensor) -> Tensor:
        """Draw from q(x_s | x_t = x, x_0), as `jump`; x where x_0 cannot have led there."""
        ...

    def prior(self) -> Tensor:
        """log q(x_1), shape (states,), float64: where every token begins, whatever it was."""
        ...

    def config(self) -> dict[str, Any]:
        """Its name and its settings."""
        ...


kernels: Registry[Callable[..., Kernel]] = Registry("kernel")


@dataclass(frozen=True)
class Rates:
    """Logarithms of what happens to a token between two times, float64 of shape (B,).

    Attributes:
        stays: log a, that it stays.
        moves: log K b, that it becomes one of the classes at random.
        masked: log g, that it becomes the mask.
    """

    stays: Tensor
    moves: Tensor
    masked: Tensor


@dataclass(frozen=True)
class Replacing:
    """The family of kernels that keep a token, replace it, or mask it.

    Attributes:
        classes: K.
        schedule: of the survival, a registered name.
        masked: g(1), the share that is masked at the end: 0 has no mask, 1 replaces nothing.
        alphas, unmasked: of published tables: α and u at 1/T, 2/T … 1 in place of the schedule; between them their
            logarithms are interpolated.
    """

    classes: int
    schedule: str = "linear"
    masked: float = 0.0
    alphas: tuple[float, ...] = ()
    unmasked: tuple[float, ...] = ()
    name: str = "mask-and-replace"

    def __post_init__(self) -> None:
        """Refuse what is no kernel.

        Raises:
            SettingError: fewer than two classes, an unknown schedule, or shares that are none or grow back.
        """
        if self.classes < 2:
            raise SettingError(f"tokens have two classes or more, not {self.classes}")
        survivals[self.schedule]
        if not 0 <= self.masked <= 1:
            raise SettingError(f"masked is the share of tokens that end as the mask, from 0 to 1, not {self.masked:g}")
        if self.alphas:
            self._check_tables()

    @property
    def states(self) -> int:
        return self.classes + (self.masked > 0)

    @property
    def steps(self) -> int | None:
        return None

    @property
    def draws_projected(self) -> bool:
        return False

    def rates(self, s: Tensor, t: Tensor) -> Rates:
        """What happens between two times, s <= t, shape (B,)."""
        (alpha_s, u_s), (alpha_t, u_t) = self._logs(s), self._logs(t)
        same = s >= t
        stays = torch.where(same, 0.0, alpha_t - alpha_s)
        kept = torch.where(same, 0.0, u_t - u_s)
        moves = kept + _log1mexp(torch.where(kept.isinf(), -torch.inf, stays - kept))
        return Rates(finite(stays), finite(moves), finite(_log1mexp(kept)))

    def push(self, p: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """As `Kernel.push`."""
        rates = self.rates(s, t)
        stays, moves = (expand(one, p) for one in (rates.stays, rates.moves - np.log(self.classes)))
        data = p[..., : self.classes]
        whole = data.logsumexp(-1, keepdim=True)
        went = torch.logaddexp(finite(data + stays), finite(whole + moves))
        if self.states == self.classes:
            return went
        mask = torch.logaddexp(p[..., -1:], finite(whole + expand(rates.masked, p)))
        return torch.cat([went, mask], -1)

    def column(self, x: Tensor, s: Tensor, t: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """As `Kernel.column`."""
        rates = self.rates(s, t)
        like = torch.empty(*x.shape, self.states, dtype=dtype, device=x.device)
        stays, moves, masked = (
            expand(one, like) for one in (rates.stays, rates.moves - np.log(self.classes), rates.masked)
        )
        is_mask = (x >= self.classes)[..., None]
        found = torch.where(is_mask, masked, moves).expand_as(like).clone()
        own = torch.where(is_mask[..., 0], 0.0, torch.logaddexp(stays, moves)[..., 0])
        if self.states > self.classes:
            found[..., -1] = ZERO  # a mask stays a mask
        return found.scatter(-1, x[..., None], own[..., None].to(dtype))

    def support(self, x: Tensor, t: Tensor) -> Tensor | None:
        """As `Kernel.support`: all of them wherever tokens are replaced; else the token's own unless it is the mask."""
        if self.masked < 1 and bool((t > 0).all()):
            return None
        replaced = expand(self.rates(torch.zeros_like(t), t).moves > ZERO, x[..., None].bool())
        own = torch.arange(self.classes, device=x.device) == x[..., None]
        return own | replaced | (x >= self.classes)[..., None]

    def rate(self, x: Tensor, s: Tensor, t: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """As `Kernel.rate`: d log α = −(masking + replacing) dτ and d log u = −masking dτ."""
        (alpha_s, u_s), (alpha_t, u_t) = self._logs(s), self._logs(t)
        like = torch.empty(*x.shape, self.states, dtype=dtype, device=x.device)
        masking, replacing = u_s - u_t, (alpha_s - u_s) - (alpha_t - u_t)
        masked, moves = (expand(log(one), like) for one in (masking, replacing / self.classes))
        found = torch.where((x >= self.classes)[..., None], masked, moves).expand_as(like).clone()
        if self.states > self.classes:
            found[..., -1] = ZERO
        return found.scatter(-1, x[..., None], ZERO)

    def jump(self, x: Tensor, s: Tensor, t: Tensor, uniform: Tensor) -> Tensor:
        """As `Kernel.jump`: three things can happen, of which one picks its class at random."""
        rates = self.rates(s, t)
        stays, moves = (expand(one.exp(), uniform) for one in (rates.stays, rates.moves))
        one, other = stays, stays + moves
        found = torch.where(uniform < one, x, self.classes)
        return torch.where(
            x >= self.classes,
            x,
            torch.where((uniform >= one) & (uniform < other), self._any(uniform - one, moves), found),
        )

    def bridge(self, x: Tensor, x0: Tensor, t: Tensor, s: Tensor, uniform: Tensor) -> Tensor:
        """As `Kernel.bridge`: in O(1) a token, since all classes but x, x_0 and the mask are alike.

        column(x, s, t) ⊙ push(x_0, 0, s) is, of a token that is not masked, (a [k = x] + b)(a' [k = x_0] + b') over
        the classes k, and of the mask g (a' [k = x_0] + b') over them and g' for the mask, where a, b, g are of s → t
        and a', b', g' of 0 → s.
        """
        late, early = self.rates(s, t), self.rates(torch.zeros_like(s), s)
        a, b, g = (expand(one.exp(), uniform) for one in (late.stays, late.moves, late.masked))
        a0, b0, g0 = (expand(one.exp(), uniform) for one in (early.stays, early.moves, early.masked))
        is_mask = x >= self.classes
        stays = torch.where(is_mask, g0, a * (a0 * (x == x0) + b0 / self.classes))
        clean = torch.where(is_mask, g, b / self.classes) * a0
        other = torch.where(is_mask, g, b / self.classes) * b0
        whole = stays + clean + other
        place = uniform * whole
        found = torch.where(place < stays + clean, x0, self._any(place - stays - clean, other))
        return torch.where((place < stays) | (whole <= 0), x, found)

    def _any(self, place: Tensor, room: Tensor) -> Tensor:
        """One of the classes, by a place in [0, room)."""
        share = place / torch.where(room > 0, room, 1.0)
        return (share * self.classes).long().clamp(0, self.classes - 1)

    def prior(self) -> Tensor:
        """As `Kernel.prior`: what little may be left of the data is spread evenly."""
        end = torch.ones(1, dtype=torch.float64)
        log_u = self._logs(end)[1]
        even = finite(log_u - np.log(self.classes)).expand(self.classes)
        return even if self.states == self.classes else torch.cat([even, finite(_log1mexp(log_u))])

    def config(self) -> dict[str, Any]:
        """As `Kernel.config`."""
        given: dict[str, Any] = {"name": self.name, "classes": self.classes}
        if self.alphas:
            return {**given, "alphas": list(self.alphas), "unmasked": list(self.unmasked)}
        own = {"masked": self.masked} if self.name == "mask-and-replace" else {}
        return {**given, "schedule": self.schedule, **own}

    def _logs(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """log α(t) and log u(t)."""
        if self.alphas:
            return _interpolated(self.alphas, t), _interpolated(self.unmasked, t)
        kept = survivals[self.schedule](t, self.classes)
        u = 1 - self.masked * (1 - kept) if self.masked < 1 else kept
        return kept.log(), u.log()

    def _check_tables(self) -> None:
        alphas, unmasked = (np.array([1.0, *values]) for values in (self.alphas, self.unmasked))
        if len(alphas) != len(unmasked):
            raise SettingError(
                f"a table has {len(self.alphas)} values of α and {len(self.unmasked)} that are not masked"
            )
        for name, values in (("α", alphas), ("the share that is not masked", unmasked)):
            if not ((values >= 0) & (values <= 1) & (np.diff(values, prepend=1.0) <= 0)).all():
                raise SettingError(f"{name} falls from 1 to 0 or more over the steps, and this table does not")
        if (alphas[:-1] <= 0).any() or (unmasked[:-1] <= 0).any():
            raise SettingError("the mask has taken every token before the last step: nothing is left to denoise there")
        ratio = np.divide(alphas, unmasked, out=np.zeros_like(alphas), where=unmasked > 0)
        if (np.diff(ratio) > 1e-12).any() or (alphas > unmasked + 1e-12).any():
            raise SettingError(
                "α is at most the share that is not masked, and falls at least as fast: β would be below 0"
            )


def uniform(classes: int, schedule: str = "cosine") -> Replacing:
    """A token is kept or becomes one of the classes at random (multinomial; binomial where there are two)."""
    return Replacing(classes, schedule, name="uniform")


def absorbing(classes: int, schedule: str = "linear") -> Replacing:
    """A token is kept or becomes the mask."""
    return Replacing(classes, schedule, 1.0, name="absorbing")


def mask_and_replace(
    classes: int,
    schedule: str = "linear",
    masked: float = 0.9,
    *,
    alphas: tuple[float, ...] = (),
    unmasked: tuple[float, ...] = (),
) -> Replacing:
    """A token is kept, becomes one of the classes at random, or the mask: VQ-Diffusion's.

    Raises:
        SettingError: as `Replacing`, or shares of 0 or 1, which are kernels of their own.
    """
    if alphas:
        return Replacing(classes, masked=1 - min(unmasked, default=0.0), alphas=tuple(alphas), unmasked=tuple(unmasked))
    if not 0 < masked < 1:
        raise SettingError(
            f"masked = {masked:g} of mask-and-replace lies between 0 and 1; the kernels of its ends are uniform and "
            "absorbing"
        )
    return Replacing(classes, schedule, masked)


kernels.add(uniform, "uniform")
kernels.add(absorbing, "absorbing")
kernels.add(mask_and_replace, "mask-and-replace")


def make_kernel(name: str, **settings: Any) -> Kernel:
    """The kernel of a name and settings, such as `Kernel.config` gives.

    Raises:
        SettingError: an unknown name or setting, or a value out of range.
    """
    try:
        return kernels[name](
            **{key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
        )
    except TypeError as error:
        raise SettingError(f"the kernel {name} does not have these settings: {error}") from error


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 − exp(x)) of x <= 0; −∞ at 0."""
    x = x.clamp(max=0)
    near = (-torch.expm1(x)).log()
    return torch.where(x > -0.7, near, torch.log1p(-x.exp()))


def _interpolated(values: tuple[float, ...], t: Tensor) -> Tensor:
    """Logarithms of a table's values at 0 (1 there), 1/T … 1, linear in between."""
    table = np.log(np.array([1.0, *values]).clip(np.exp(-700)))
    return torch.from_numpy(np.interp(t.numpy() * len(values), np.arange(len(values) + 1), table))
