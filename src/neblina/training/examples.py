"""What training sees in a step, as a function of (seed, step, process) alone.

Where times are drawn by importance, the density that they are drawn from comes on top.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neblina.codecs.codec import Codec
from neblina.core.conditions import NULL_LABEL, Condition
from neblina.data.holding import split
from neblina.data.order import batch_numbers
from neblina.data.pictures import Pictures, to_float
from neblina.data.styles import styled
from neblina.objectives.importance import Importance
from neblina.objectives.simple import spread_uniforms
from neblina.processes.schedules import Schedule
from neblina.training.recipe import Recipe
from neblina.training.unused import refuse_unused

Batch = tuple[Tensor, Tensor | None]


@dataclass(frozen=True)
class Examples:
    """What one process sees in one step; on the CPU.

    Attributes:
        x0: what is diffused: clean pictures in [−1, 1], or their latents, shape (B, C, H, W).
        noise: standard normal, shape of x0.
        t: times, shape (B,), float64.
        labels: classes, NULL_LABEL where hidden, shape (B,), or None.
        weight: what each loss is weighted with for times not drawn uniformly, shape (B,), float64, or None.
        bins: where such times lie, shape (B,), or None.
        text: tokens of captions, those of the empty one where hidden, shape (B, L), int64, or None.
    """

    x0: Tensor
    noise: Tensor
    t: Tensor
    labels: Tensor | None
    weight: Tensor | None = None
    bins: Tensor | None = None
    text: Tensor | None = None

    @property
    def condition(self) -> Condition:
        """What the network is told."""
        return Condition(self.labels, text=self.text)


def divided(recipe: Recipe, pictures: Pictures) -> tuple[Pictures, Pictures]:
    """The pictures that a recipe trains on, in its styles, and those that it holds out.

    Raises:
        DataError: a part without pictures, or combinations that are not there.
        SettingError: an unknown style.
    """
    data = recipe.data
    if not data.styles:
        refuse_unused(recipe, {"data": ("plain",)}, "pictures that are rendered in no style (data.styles)")
    apart = None if data.apart is None else data.apart.fields
    count = 0 if data.apart is None else data.apart.count
    training, held = split(pictures, data.holdout, recipe.training.seed, apart=apart, count=count)
    return styled(training, data.styles, data.plain), held


def read_batch(recipe: Recipe, pictures: Pictures, step: int, *, process: int = 0, processes: int = 1) -> Batch:
    """The pictures, uint8 of shape (B, C, H, W), and labels of one process's share of step number `step`."""
    share = recipe.training.batch // processes
    first = step * recipe.training.batch + process * share
    numbers = batch_numbers(recipe.training.seed, len(pictures), first, share)
    labels = pictures.labels if recipe.data.labels else None
    return pictures.read(numbers), None if labels is None else labels[numbers]


def draw_examples(
    recipe: Recipe,
    schedule: Schedule,
    step: int,
    batch: Batch,
    *,
    codec: Codec | None = None,
    process: int = 0,
    importance: Importance | None = None,
) -> Examples:
    """Mirror pictures, encode them, draw times and noise, and hide labels, as the recipe says.

    Args:
        codec: between the pictures and what is diffused; None diffuses them as they are.
        importance: what draws times; None draws them uniformly.
    """
    pixels, labels = batch
    generator = torch.Generator().manual_seed(step_seed(recipe, step, process))
    x0 = to_float(pixels)
    if recipe.data.flip:
        mirrored = torch.rand(len(x0), generator=generator) < 0.5
        x0 = torch.where(mirrored[:, None, None, None], x0.flip(-1), x0)
    if codec is not None:
        x0 = codec.encode(x0)
    return noised(recipe, schedule, x0, labels, generator, importance)


def noised(
    recipe: Recipe,
    schedule: Schedule,
    x0: Tensor,
    labels: Tensor | None,
    generator: torch.Generator,
    importance: Importance | None = None,
) -> Examples:
    """Draw times and noise for what is diffused, shape (B, C, H, W), and hide labels, as the recipe says."""
    uniforms = spread_uniforms(len(x0), generator)
    drawn = None if importance is None else importance.draw(uniforms)
    t = schedule.training_time(uniforms) if drawn is None else drawn.t
    noise = torch.randn(x0.shape, generator=generator)
    if labels is not None:
        hidden = torch.rand(len(labels), generator=generator) < recipe.training.label_dropout
        labels = labels.masked_fill(hidden, NULL_LABEL)
    if drawn is None:
        return Examples(x0, noise, t, labels)
    return Examples(x0, noise, t, labels, drawn.weight, drawn.bins)


def step_seed(recipe: Recipe, step: int, process: int) -> int:
    """The seed of everything random in a step."""
    entropy = [recipe.training.seed % 2**64, step, process]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))
