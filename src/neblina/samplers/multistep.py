"""DPM-Solver++(2M): DDIM with a belief extrapolated along the log-SNR.

With h = ½ (λ_s − λ_t) the step and h' the one before, the second-order Adams-Bashforth belief at the step's middle is

    D = x̂_0(t) + h / (2 h') (x̂_0(t) − x̂_0(t'))
    x_s = (σ_s/σ_t) x_t + (α_s − α_t σ_s/σ_t) D,

which is the DDIM update with D for x̂_0. The first step, and one to or from an infinite log-SNR, is DDIM itself.

Lu et al. DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models. 2022, algorithm 2.
"""

from itertools import pairwise

import torch
from torch import Tensor

from neblina.core.noise import Noise
from neblina.core.plan import Query
from neblina.core.posterior import Gaussian
from neblina.core.shapes import expand
from neblina.processes.gaussian import Eta, GaussianProcess
from neblina.samplers.registry import Sampling, register


@register("dpmpp_2m", order=2, source="Lu et al. 2022b, algorithm 2")
def dpmpp_2m(process: GaussianProcess, x: Tensor, times: Tensor, *, noise: Noise) -> Sampling:
    """Walk from noise to data with one evaluation a step.

    Args:
        x: noisy batch at times[0], shape (B, *).
        times: falling times in [0, 1], shape (N + 1, B).
        noise: not drawn from.
    Yields:
        Query(x_t, t).
    Returns:
        The batch at times[-1], shape (B, *).
    """
    before: Tensor | None = None
    step_before = torch.zeros_like(times[0])
    for t, s in pairwise(times):
        posterior = yield Query(x, t)
        belief = posterior.mean
        step = (process.schedule.log_snr(s) - process.schedule.log_snr(t)) / 2
        if before is not None:
            reach = step / (2 * step_before)
            # a step to clean data, one after a step from α = 0, one after standing still: nothing to extrapolate
            belief = belief + expand(torch.where(reach.isfinite(), reach, 0.0), x) * (belief - before)
        x = process.reverse(x, t, s, Gaussian(belief), variance=Eta(0.0)).mean
        before, step_before = posterior.mean, step
    return x
