"""Ways to a picture of a scene: composed, as one picture without regions, region by region, and of real digits.

composed: `model.compose`, a view for each box, told its digit, and one for the background, told that it is blank.
one prompt: one sample of the canvas's size, told the first element's class; a model of classes can be told no more.
region by region: a loop, each element sampled by itself on a canvas of its box's size (sides up to the next multiple of
8, and cut) and pasted; scaled: the same, but each on a canvas of the model's own size, which is scaled to the box.
real: real digits at the sizes that training saw, given that they lie in the box; what a perfect model makes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from placement_data import BLANK, SIDE, Digits, Grey
from placement_scoring import Asked, drawn

from neblina.data.pictures import to_uint8
from neblina.tasks.model import Model

Way = Callable[[Sequence[Asked]], list[Grey]]
"""A picture of each scene, uint8 of shape (H, W)."""


@dataclass(frozen=True)
class Ways:
    """Ways of one model and its settings.

    Attributes:
        model: of classes 0 … 9 and BLANK.
        settings: of sampling, the same for all ways.
        behind: what a composed scene's background is told beside its class.
        seed: of the first scene's noise; the k-th is made from seed + k.
    """

    model: Model
    settings: dict[str, Any] = field(default_factory=dict)
    behind: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    def composed(self, scenes: Sequence[Asked], *, share: float, colours: int | list[str]) -> list[Grey]:
        """By `model.compose`, with bootstrapping over a share of the steps."""
        made = []
        for number, scene in enumerate(scenes):
            values = {
                "size": [scene.size[1], scene.size[0]],
                "background": {"label": BLANK, **self.behind},
                "elements": [{"label": one.label, "box": list(one.box)} for one in scene.elements],
                "bootstrap": {"share": share, "colours": colours},
            }
            made.append(self.model.compose(values, seed=self.seed + number, **self.settings)[0, 0].numpy())
        return made

    def one_prompt(self, scenes: Sequence[Asked]) -> list[Grey]:
        """One sample, told the first element's class."""
        return [
            self._sampled([scene.elements[0].label], scene.size, self.seed + number)[0]
            for number, scene in enumerate(scenes)
        ]

    def region_by_region(self, scenes: Sequence[Asked], *, scaled: bool) -> list[Grey]:
        """Each element by itself, pasted into its box."""
        made = []
        for number, scene in enumerate(scenes):
            canvas = np.zeros(scene.size, np.uint8)
            for place, element in enumerate(scene.elements):
                x0, y0, x1, y1 = element.box
                width, height = x1 - x0, y1 - y0
                size = (SIDE, SIDE) if scaled else (-(-height // 8) * 8, -(-width // 8) * 8)
                picture = self._sampled([element.label], size, 10_000 * (place + 1) + self.seed + number)[0]
                if scaled:
                    picture = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))
                canvas[y0:y1, x0:x1] = picture[:height, :width]
            made.append(canvas)
        return made

    def alone(self, labels: Sequence[int]) -> list[Grey]:
        """The model's own pictures: one digit on a canvas of its own size, which is what it was trained on."""
        return self._sampled(labels, (SIDE, SIDE), self.seed)

    def _sampled(self, labels: Sequence[int], size: tuple[int, int], seed: int) -> list[Grey]:
        settings = {"n": len(labels), **self.settings}
        made = self.model.generate(labels=[int(one) for one in labels], size=size, seed=seed, **settings)
        return list(to_uint8(made)[:, 0].numpy())


def real(scenes: Sequence[Asked], digits: Digits, seed: int) -> list[Grey]:
    """Real digits in the boxes."""
    return [
        drawn(scene, digits, np.random.Generator(np.random.Philox(key=[seed, number])))
        for number, scene in enumerate(scenes)
    ]


def quick(model: Model) -> Model:
    """The same model, its network's memory in the order in which convolutions are fastest on a CPU."""
    model.bundle.net.channels_last()
    torch.set_grad_enabled(False)
    return model
