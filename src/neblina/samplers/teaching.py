"""The loop that articles teach, and why it is not a sampler.

"Add noise, predict, remove the noise, add a little less noise again" reads as

    x_s = α_s x̂_0 + σ_s z.

The mean of the belief has less variance than the data, and fresh noise cannot give back what averaging took away: the
samples come out too narrow, however many steps are taken. The correct loop keeps the direction of the noise that is
there, and is as short:

    for t, s in pairwise(times):
        belief = denoise(x, t)
        x = alpha(s) * belief + sigma(s) * (x - alpha(t) * belief) / sigma(t)      # DDIM
"""

from itertools import pairwise

from torch import Tensor

from neblina.core.noise import Noise
from neblina.core.plan import Query
from neblina.core.shapes import choose_samples
from neblina.processes.gaussian import GaussianProcess
from neblina.samplers.registry import Sampling, register


@register(
    "renoise",
    order=0,
    stochastic=True,
    bias=(0.32, "fresh noise on a mean: the spread that averaging took away does not come back"),
    source="taught in articles; no paper",
)
def renoise(process: GaussianProcess, x: Tensor, times: Tensor, *, noise: Noise) -> Sampling:
    """Noise, predict, remove, noise again: biased, kept to be measured against.

    Args:
        x: noisy batch at times[0], shape (B, *).
        times: falling times in [0, 1], shape (N + 1, B).
        noise: drawn from at every step.
    Yields:
        Query(x_t, t).
    Returns:
        The batch at times[-1], shape (B, *).
    """
    for t, s in pairwise(times):
        posterior = yield Query(x, t)
        again = process.diffuse(posterior.mean, noise(x), s)
        x = choose_samples(s < t, again, x)
    return x
