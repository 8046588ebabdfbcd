"""Pictures that agree with a measurement: super-resolution and inpainting with a model that never saw either."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.errors import SettingError, choose
from neblina.guidance import guidances
from neblina.guidance.operators import Operator
from neblina.guidance.settings import GuidanceSettings
from neblina.samplers.drive import OnStep
from neblina.samplers.generate import generate
from neblina.tasks.model import Model


def restore(
    model: Model,
    measurement: Tensor,
    operator: Operator,
    *,
    method: str = "posterior-sampling",
    strength: float | None = None,
    noise: float | None = None,
    iterations: int | None = None,
    labels: Tensor | None = None,
    sampler: str = "ddpm",
    steps: int = 100,
    grid: str | None = None,
    seed: int = 0,
    offset: int = 0,
    batch: int = 64,
    on_step: OnStep | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Tensor:
    """Pictures x_0 with y ≈ A x_0, float32 of shape (N, C, H, W), in [−1, 1] up to overshoot, on the CPU.

    Picture k depends on (seed, offset + k) and its measurement alone. Each step asks the network once and
    differentiates it once (posterior-sampling) or `iterations` + 1 times (moment-matching).

    Args:
        model: without a condition, or one that knows its null.
        measurement: y, shape (N, *): what `operator` makes of pictures in [−1, 1]. A mask takes whole pictures and does
            not look at their other pixels.
        operator: A, such as AveragePool(2) or Mask(known).
        method: posterior-sampling (DPS, Chung et al. 2023) or moment-matching (Rozet et al. 2024).
        strength: ζ N, how far DPS moves against the residual's gradient over all steps together, however many;
            None is 150.
        noise: standard deviation σ_y of the measurement's noise, for moment-matching; None is 0.05.
        iterations: of conjugate gradients, for moment-matching; None is 4.
        labels: class of each picture, shape (N,), or None.
        sampler: a registered name; one that draws noise on the way mends early mistakes.
        steps: sampling steps.
        grid: a registered grid of times.
        seed: any integer.
        offset: number of the first picture under the seed.
        batch: pictures made together.
        on_step: told after every answer of every batch.
        cancelled: asked before every step; once True, Cancelled is raised.
    Raises:
        SettingError: a measurement that the operator cannot have made of this model's pictures, an unknown name, or a
            number out of range.
    """
    ways = [name for name, guidance in guidances.items() if guidance.follows_a_measurement]
    way = guidances[choose("way to follow a measurement", method, ways)]
    asked = {"strength": strength, "noise": noise, "iterations": iterations}
    numbers = {
        choose(f"setting of {method}", name, way.settings): value for name, value in asked.items() if value is not None
    }
    wanted = operator.measured(model.shape)
    if measurement.ndim != len(wanted) + 1 or tuple(measurement.shape[1:]) != wanted or len(measurement) == 0:
        raise SettingError(
            f"a measurement of shape {tuple(measurement.shape)} does not fit: for pictures of shape {model.shape} it "
            f"is (N, {', '.join(map(str, wanted))}), N at least 1"
        )
    if batch < 1 or offset < 0:
        raise SettingError(f"batch ({batch}) is at least 1, offset ({offset}) at least 0")
    if labels is not None and labels.shape != (len(measurement),):
        raise SettingError(f"there are {len(measurement)} measurements and labels of shape {tuple(labels.shape)}")
    y = operator.seen(measurement.float())
    if not bool(y.isfinite().all()):
        raise SettingError("the measurement holds values that are not finite")
    if model.bundle.own_codec is not None:
        raise SettingError("a measurement is followed by a model of pictures themselves, and this one diffuses latents")
    denoiser = model.bundle.denoiser()
    if labels is None and denoiser.num_classes:
        labels = torch.full((len(y),), -1)
    schedule = denoiser.process.schedule
    parts = []
    for start in range(0, len(y), batch):
        own = slice(start, min(start + batch, len(y)))
        here = y[own].to(model.device)
        follow = partial(way.function, operator=operator, measurement=here, schedule=schedule, **numbers)
        parts.append(
            generate(
                denoiser,
                model.shape,
                [offset + number for number in range(own.start, own.stop)],
                condition=Condition(None if labels is None else labels[own]),
                sampler=sampler,
                steps=steps,
                grid=grid,
                guidance=GuidanceSettings(measured=follow, clip=model.bundle.sampling.clip),
                seed=seed,
                device=model.device,
                on_step=on_step,
                cancelled=cancelled,
            ).cpu()
        )
    return torch.cat(parts)
