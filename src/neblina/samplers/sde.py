"""The reverse-time stochastic differential equation, by Euler and Maruyama.

    dx = [ f(t) x − g²(t) ∇ log p_t(x) ] dt + g(t) dw̄,    ∇ log p_t(x) = (α x̂_0 − x)/σ²

run from t = 1 down. A step to clean data is the belief itself (Tweedie's formula), which removes the last noise.

Song et al. Score-Based Generative Modeling through SDEs. ICLR 2021, eq. 6; Anderson. Reverse-Time Diffusion Equation
Models. 1982.
"""

from itertools import pairwise

import torch
from torch import Tensor

from neblina.core.noise import Noise
from neblina.core.plan import Query
from neblina.core.shapes import choose_samples, expand
from neblina.processes.gaussian import GaussianProcess
from neblina.samplers.ode import path_noise
from neblina.samplers.registry import Sampling, register


@register("euler_maruyama", order=1, stochastic=True, finite_sde=True, source="Song et al. 2021, eq. 6")
def euler_maruyama(process: GaussianProcess, x: Tensor, times: Tensor, *, noise: Noise) -> Sampling:
    """Walk from noise to data.

    Args:
        x: noisy batch at times[0], shape (B, *).
        times: falling times in [0, 1], shape (N + 1, B).
        noise: one Brownian path a sample.
    Yields:
        Query(x_t, t).
    Returns:
        The batch at times[-1], shape (B, *).
    """
    schedule = process.schedule
    for t, s in pairwise(times):
        posterior = yield Query(x, t)
        alpha, sigma, g = schedule.alpha(t), schedule.sigma(t), schedule.diffusion(t)
        moves = (s < t) & (schedule.sigma(s) > 0)
        passed = torch.where(moves, t - s, 0.0)
        pull = torch.where(moves, g**2 * passed / torch.where(sigma > 0, sigma, 1.0) ** 2, 0.0)
        keep = 1 - torch.where(moves, schedule.drift(t) * passed, 0.0) - pull
        walked = expand(keep, x) * x + expand(alpha * pull, x) * posterior.mean
        walked = walked + expand(torch.where(moves, g * passed.sqrt(), 0.0), x) * path_noise(process, noise, t, s)(x)
        x = choose_samples((schedule.sigma(s) == 0) & (s < t), posterior.mean, walked)
    return x
