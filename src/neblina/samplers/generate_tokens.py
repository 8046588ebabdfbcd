"""From a denoiser of tokens and names of things to tokens: what training previews and users' requests share."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.noise import SampleNoise
from neblina.core.plan import conditional
from neblina.denoisers.categorical import CategoricalDenoiser
from neblina.guidance.affine import classifier_free
from neblina.guidance.truncation import truncated
from neblina.processes.grids import token_grid
from neblina.samplers.drive import OnStep, sample
from neblina.samplers.registry import token_samplers


def generate_tokens(
    denoiser: CategoricalDenoiser,
    shape: tuple[int, ...],
    indices: Sequence[int],
    *,
    condition: Condition,
    sampler: str,
    steps: int,
    guidance: float = 1.0,
    truncation: float = 1.0,
    top: int = 0,
    seed: int = 0,
    device: torch.device | str = "cpu",
    settings: dict[str, Any] | None = None,
    on_step: OnStep | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Tensor:
    """Tokens, int64 of shape (B, *shape).

    Args:
        denoiser: the network.
        shape: of one sample.
        indices: the number of each sample under the seed, length B.
        condition: of the B samples.
        sampler: a registered sampler of tokens.
        steps: evaluations.
        guidance: weight of classifier-free guidance in log-probabilities; 1 is none.
        truncation: share of the probability that is drawn from.
        top: most classes that are drawn from; 0 for any number.
        seed: any integer.
        device: where the network is.
        settings: of the sampler.
        on_step: told after every answer.
        cancelled: asked before every step.
    Raises:
        SettingError: an unknown name, more steps than there are, a number out of range, what does not fit the network.
    """
    chosen, process = token_samplers[sampler], denoiser.process
    times = token_grid(steps, process.kernel.steps or denoiser.clock_steps)
    denoiser.check(condition)
    plan = conditional(denoiser, condition) if guidance == 1 else classifier_free(denoiser, condition, guidance)
    plan = truncated(plan, rate=truncation, count=top)
    noise = SampleNoise(seed, indices)
    x = process.prior((len(indices), *shape), noise, device)
    walk = chosen(process, x, times, noise=noise, **(settings or {}))
    return sample(walk, plan, on_step=on_step, cancelled=cancelled)
