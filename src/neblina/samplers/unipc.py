"""UniPC: a multistep predictor whose next evaluation also corrects the step before it.

The predictor is the Adams-Bashforth method of the belief in λ with m values; once the belief at its end is known, the
step is taken again with the polynomial through that one as well (Adams-Moulton), at no further evaluation:

    x_s = DDIM with D = x̂_0(t) + Σ_j w_j (x̂_0^(j) − x̂_0(t)),    corrector: j runs over s too.

With B(h) = e^h − 1 a single unknown weight is rounded to ½: the predictor's with two values, the corrector's with one.

Zhao et al. UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models. NeurIPS 2023,
algorithms 1 and 2, B_2(h).
"""

from collections import deque
from itertools import pairwise

import torch
from torch import Tensor

from neblina.core.noise import Noise
from neblina.core.plan import Query
from neblina.core.posterior import Gaussian
from neblina.core.shapes import expand
from neblina.processes.gaussian import Eta, GaussianProcess
from neblina.samplers.multistep import BELIEF, check_memory, lagrange_weights
from neblina.samplers.registry import Sampling, register


@register("unipc", order=3, source="Zhao et al. 2023, algorithms 1 and 2, with two values")
def unipc(
    process: GaussianProcess,
    x: Tensor,
    times: Tensor,
    *,
    memory: int = 2,
    lower_order_final: bool = False,
    noise: Noise,
) -> Sampling:
    """Walk from noise to data with one evaluation a step.

    Args:
        x: noisy batch at times[0], shape (B, *).
        times: falling times in [0, 1], shape (N + 1, B).
        memory: how many beliefs the predictor looks at.
        lower_order_final: the last steps look at fewer, the last of all at one.
        noise: not drawn from.
    Yields:
        Query(predicted x_t, t).
    Returns:
        The batch at times[-1], shape (B, *).
    Raises:
        SettingError: a memory below 1 or above 8.
    """
    check_memory(memory)
    places: deque[Tensor] = deque(maxlen=memory)
    beliefs: deque[Tensor] = deque(maxlen=memory)
    steps, looked_at, begin = len(times) - 1, 0, x
    for number, (t, s) in enumerate(pairwise(times)):
        here = yield Query(x, t)
        place = BELIEF.clock(process.schedule.log_snr(t))
        if number:
            begun = times[number - 1]
            known = [places[0], place, *list(places)[1:looked_at]]
            values = [beliefs[0], here.mean, *list(beliefs)[1:looked_at]]
            weights = lagrange_weights(BELIEF, known, places[0], place)
            if looked_at == 1:
                weights = _half(weights)
            x = process.reverse(begin, begun, t, Gaussian(_mixed(weights, values)), variance=Eta(0.0)).mean
        places.appendleft(place)
        beliefs.appendleft(here.mean)
        looked_at = min(len(beliefs), steps - number) if lower_order_final else len(beliefs)
        end = BELIEF.clock(process.schedule.log_snr(s))
        weights = lagrange_weights(BELIEF, list(places)[:looked_at], place, end)
        if looked_at == 2:
            reach = (end - places[0]) / (2 * (places[0] - places[1]))
            weights = torch.where(weights != 0, torch.stack([1 + reach, -reach]), weights)
        belief = _mixed(weights, list(beliefs)[:looked_at])
        begin, x = x, process.reverse(x, t, s, Gaussian(belief), variance=Eta(0.0)).mean
    return x


def _half(weights: Tensor) -> Tensor:
    """½ for each of two values, where both count."""
    return torch.where((weights[1:] != 0).any(0), 0.5, weights)


def _mixed(weights: Tensor, values: list[Tensor]) -> Tensor:
    """The first value, and what the weights of the others change about it."""
    first = values[0]
    for weight, value in zip(weights[1:], values[1:], strict=True):
        first = first + expand(weight, value) * (value - values[0])
    return first
