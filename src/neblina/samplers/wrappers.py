"""Walking a stretch more than once: noise is added back and removed again, which mends errors made before.

RePaint fills in what is missing of a picture. After every step the known part is put in as it would look at that noise
level; to bring the two parts into agreement, each stretch of the walk is gone back with forward noise and repeated:

    x_s ← m ⊙ (α_s y + σ_s z) + (1 − m) ⊙ x_s,    then x_t ~ q(x_t | x_s), and down again.

Restart does the same to a deterministic sampler, over one stretch, without a known part: the noise contracts errors
that the ODE carries along. Around ancestral steps, a few of them at a time, it is RePaint's way without a known part:
where a plan sets some of x from outside (`guidance.bootstrap`), the rest is brought into agreement with that.

Lugmayr et al. RePaint: Inpainting using Denoising Diffusion Probabilistic Models. CVPR 2022, algorithm 1.
Xu et al. Restart Sampling for Improving Generative Processes. NeurIPS 2023, algorithm 1.
"""

from collections.abc import Callable
from itertools import pairwise

from torch import Tensor

from neblina.core.errors import SettingError
from neblina.core.noise import Noise
from neblina.core.plan import Query
from neblina.processes.gaussian import Eta, GaussianProcess
from neblina.samplers.ode import ANGLE, heun_step
from neblina.samplers.registry import Sampling, register


@register("repaint", order=1, stochastic=True, source="Lugmayr et al. 2022, algorithm 1")
def repaint(
    process: GaussianProcess,
    x: Tensor,
    times: Tensor,
    *,
    known: Tensor | None = None,
    mask: Tensor | None = None,
    jump: int = 5,
    repeats: int = 2,
    noise: Noise,
) -> Sampling:
    """Walk from noise to data around a known part.

    Args:
        x: noisy batch at times[0], shape (B, *).
        times: falling times in [0, 1], shape (N + 1, B).
        known: clean pictures y, shape of x; None if nothing is known.
        mask: 1 where they are known, 0 where not, broadcastable to x.
        jump: steps of a stretch.
        repeats: how often each stretch is walked.
        noise: drawn from.
    Yields:
        Query(x_t, t).
    Returns:
        The batch at times[-1], equal to `known` where the mask is 1 if that is clean data; shape (B, *).
    Raises:
        SettingError: known without mask or mask without known, of shapes that do not fit, or a jump or repeats below 1.
    """
    if (known is None) != (mask is None):
        raise SettingError("repaint takes known pictures and a mask together, and one of them is missing")
    if jump < 1 or repeats < 1:
        raise SettingError(f"jump ({jump}) and repeats ({repeats}) are at least 1")
    if known is not None and mask is not None:
        known, mask = known.to(x), mask.to(x)
        if (
            known.shape != x.shape
            or mask.ndim > x.ndim
            or any(m not in (1, n) for m, n in zip(mask.shape[::-1], x.shape[::-1], strict=False))
        ):
            raise SettingError(
                f"known pictures of shape {tuple(known.shape)} and a mask of shape {tuple(mask.shape)} do not fit a "
                f"batch of shape {tuple(x.shape)}"
            )
    for first in range(0, len(times) - 1, jump):
        stretch = times[first : first + jump + 1]
        for again in range(repeats):
            for t, s in pairwise(stretch):
                posterior = yield Query(x, t)
                x = process.reverse(x, t, s, posterior, variance=Eta(1.0)).sample(noise)
                if known is not None and mask is not None:
                    x = mask * process.diffuse(known, noise(x), s) + (1 - mask) * x
            if again + 1 < repeats:
                x = process.forward(x, stretch[-1], stretch[0]).sample(noise)
    return x


@register(
    "restart",
    order=2,
    stochastic=True,
    grid="log_snr_short",
    source="Xu et al. 2023, algorithm 1, around Heun's method",
)
def restart(
    process: GaussianProcess,
    x: Tensor,
    times: Tensor,
    *,
    first: float = 0.4,
    last: float = 0.6,
    repeats: int = 2,
    noise: Noise,
) -> Sampling:
    """Heun's method on the angle, one stretch of it walked more than once.

    Args:
        x, times, noise: as in `repaint`.
        first, last: where the stretch begins and ends, as shares of the grid's steps.
        repeats: how often it is walked.
    Raises:
        SettingError: a stretch that is none, or repeats below 1.
    """
    begin, end = _stretch(len(times) - 1, first, last, repeats)

    def step(x: Tensor, t: Tensor, s: Tensor) -> Sampling:
        return (yield from heun_step(process, ANGLE, x, t, s))

    return (yield from _going_back(process, x, times, (begin, end), end - begin, repeats, noise, step))


@register("restart_ancestral", order=1, stochastic=True, source="Xu et al. 2023, algorithm 1, around DDPM's step")
def restart_ancestral(
    process: GaussianProcess,
    x: Tensor,
    times: Tensor,
    *,
    first: float = 0.05,
    last: float = 0.45,
    jump: int = 4,
    repeats: int = 4,
    noise: Noise,
) -> Sampling:
    """Ancestral steps; over a part of the grid a few at a time, each few walked more than once.

    Args:
        x, times, noise: as in `repaint`.
        first, last: where that part begins and ends, as shares of the grid's steps.
        jump: steps that are gone back together; the fewer, the better parts of x that are set from outside are agreed
            with, and the more, the more of what is settled is settled anew.
        repeats: how often they are walked.
    Raises:
        SettingError: as `restart`, or a jump below 1.
    """
    begin, end = _stretch(len(times) - 1, first, last, repeats)
    if jump < 1:
        raise SettingError(f"jump ({jump}) is at least 1")

    def step(x: Tensor, t: Tensor, s: Tensor) -> Sampling:
        posterior = yield Query(x, t)
        return process.reverse(x, t, s, posterior, variance=Eta(1.0)).sample(noise)

    return (yield from _going_back(process, x, times, (begin, end), jump, repeats, noise, step))


def _going_back(
    process: GaussianProcess,
    x: Tensor,
    times: Tensor,
    part: tuple[int, int],
    jump: int,
    repeats: int,
    noise: Noise,
    step: Callable[[Tensor, Tensor, Tensor], Sampling],
) -> Sampling:
    """Steps of a sampler; those of a part of the grid `jump` at a time, each so many walked more than once."""
    begin, end = part
    inside = range(begin, end, jump) if begin < end else range(0)
    for start, stop in pairwise([*range(begin), *inside, *range(end, len(times) - 1), len(times) - 1]):
        stretch = times[start : stop + 1]
        for again in range(repeats if start in inside else 1):
            if again:
                x = process.forward(x, stretch[-1], stretch[0]).sample(noise)
            for t, s in pairwise(stretch):
                x = yield from step(x, t, s)
    return x


def _stretch(steps: int, first: float, last: float, repeats: int) -> tuple[int, int]:
    """The numbers of the steps that a restart begins and ends with."""
    if not 0 <= first < last < 1 or repeats < 1:
        raise SettingError(
            f"restart needs 0 <= first < last < 1 and repeats of at least 1, not {first:g}, {last:g} and {repeats}"
        )
    return round(first * steps), round(last * steps)
