"""From a denoiser and names of things to samples: what training previews and users' requests share."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.noise import SampleNoise
from neblina.denoisers.denoiser import NetworkDenoiser
from neblina.guidance.settings import GuidanceSettings
from neblina.processes.grids import make_grid
from neblina.samplers.drive import OnStep, sample
from neblina.samplers.registry import samplers


def generate(
    denoiser: NetworkDenoiser,
    shape: tuple[int, ...],
    indices: Sequence[int],
    *,
    labels: Tensor | None,
    sampler: str,
    steps: int,
    grid: str | None = None,
    guidance: GuidanceSettings | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    settings: dict[str, float] | None = None,
    on_step: OnStep | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Tensor:
    """Samples of the model, float32 of shape (B, *shape), in the data's range.

    Args:
        denoiser: the network.
        shape: of one sample.
        indices: the number of each sample under the seed, length B.
        labels: class of each sample, shape (B,), or None.
        sampler: a registered name.
        steps: how many.
        grid: a registered name; None for the sampler's default.
        guidance: what changes the network's belief, clipping included; None for nothing.
        seed: any integer.
        device: where the network is.
        settings: of the sampler, such as eta.
        on_step: told after every answer.
        cancelled: asked before every step.
    Raises:
        SettingError: an unknown name, too many steps, or guidance that does not fit, before the network is asked.
    """
    chosen = samplers[sampler]
    schedule = denoiser.process.schedule
    times = make_grid(grid or chosen.grid, schedule, steps)
    plan = (guidance or GuidanceSettings()).plan(denoiser, Condition(labels))
    noise = SampleNoise(seed, indices)
    x = denoiser.process.prior(noise(torch.empty(len(indices), *shape, device=device)))
    sampling = chosen(denoiser.process, x, times, noise=noise, **(settings or {}))
    return sample(sampling, plan, on_step=on_step, cancelled=cancelled)
