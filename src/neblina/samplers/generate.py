"""From a denoiser and names of things to samples: what training previews and users' requests share."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.errors import SettingError
from neblina.core.noise import SampleNoise
from neblina.core.plan import Plan, conditional
from neblina.denoisers.denoiser import NetworkDenoiser
from neblina.denoisers.told import on_walk
from neblina.guidance.affine import classifier_free
from neblina.guidance.clipping import clip as clipped
from neblina.processes.foreign import ForeignGrid, make_walk
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
    grid: str | ForeignGrid | None = None,
    guidance: float = 1.0,
    unconditional: NetworkDenoiser | None = None,
    clip: float | None = None,
    clip_keeps_direction: bool = False,
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
        grid: a registered name, or one of another library; None for the sampler's default.
        guidance: weight of classifier-free guidance, 1 for none.
        unconditional: a separately trained unconditional network for its other branch; None for the null of its own.
        clip: limit of the belief, None for none; after guidance.
        clip_keeps_direction: steps still point with the unclipped belief's noise.
        seed: any integer.
        device: where the network is.
        settings: of the sampler, such as eta.
        on_step: told after every answer.
        cancelled: asked before every step.
    Raises:
        SettingError: an unknown name, too many steps, or guidance without a condition.
    """
    chosen = samplers[sampler]
    schedule = denoiser.process.schedule
    walk = make_walk(grid or chosen.grid, schedule, steps)
    if guidance != 1 and denoiser.num_classes == 0:
        raise SettingError(
            f"guidance {guidance:g} needs a model with a condition, and this one is unconditional; leave it at 1"
        )
    condition = Condition(labels)
    denoiser.labels(condition)  # refuse before the work, not in it
    if guidance != 1 and unconditional is None:
        denoiser.labels(condition.null())
    if unconditional is not None:
        if unconditional.process != denoiser.process:
            raise SettingError("the unconditional model was trained on another process, so the two cannot be combined")
        unconditional.labels(Condition())
    unconditional = None if unconditional is None else on_walk(unconditional, walk, beside=denoiser)
    denoiser = on_walk(denoiser, walk)
    plan: Plan = classifier_free(denoiser, condition, guidance, unconditional=unconditional)
    if denoiser.num_classes == 0:
        plan = conditional(denoiser, Condition())
    if clip is not None:
        plan = clipped(plan, clip, keep_direction=clip_keeps_direction)
    noise = SampleNoise(seed, indices)
    x = walk.start * noise(torch.empty(len(indices), *shape, device=device))
    sampling = chosen(denoiser.process, x, walk.times, noise=noise, **(settings or {}))
    return sample(sampling, plan, on_step=on_step, cancelled=cancelled)
