"""Styles that a picture can be rendered in, by plain operations, and a set of pictures in all of them.

A style's name is what a caption says of it, so that a model of captioned pictures learns what the words mean.

| style | what is done |
| --- | --- |
| blurred | a Gaussian of a thirtieth of the side |
| pencil sketch | grey g over the blurred negative, g / (1 − blur(1 − g)), so that edges stay and areas turn white |
| mosaic | means of squares of a twelfth of the side |
| inverted colours | 255 − x |
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from neblina.core.registry import Registry
from neblina.data.pictures import Pictures, Record

Style = Callable[[Tensor], Tensor]
styles: Registry[Style] = Registry("style")
PLAIN = ""


def blurred(x: Tensor) -> Tensor:
    """Out of focus; x in [0, 1], shape (B, C, H, W)."""
    return _blur(x, x.shape[-1] / 30)


def pencil_sketch(x: Tensor) -> Tensor:
    """Lines where there are edges, on white."""
    grey = x.mean(1, keepdim=True)
    return (grey / (1 - _blur(1 - grey, x.shape[-1] / 20)).clamp(min=0.02)).clamp(max=1).expand_as(x)


def mosaic(x: Tensor) -> Tensor:
    """Squares of one colour each."""
    side = max(2, round(x.shape[-1] / 12))
    means = F.avg_pool2d(x, side, ceil_mode=True, count_include_pad=False)
    tiles = means.repeat_interleave(side, -1).repeat_interleave(side, -2)
    return tiles[..., : x.shape[-2], : x.shape[-1]]


def inverted_colours(x: Tensor) -> Tensor:
    """The negative."""
    return 1 - x


styles.add(blurred, "blurred")
styles.add(pencil_sketch, "pencil sketch")
styles.add(mosaic, "mosaic")
styles.add(inverted_colours, "inverted colours")


def render(pixels: Tensor, style: str) -> Tensor:
    """Pictures in a style, PLAIN for as they are; uint8 of shape (B, C, H, W).

    Raises:
        SettingError: no such style.
    """
    if style == PLAIN:
        return pixels
    return (styles[style](pixels.float() / 255) * 255).round().to(torch.uint8)


@dataclass(frozen=True)
class Styled:
    """Pictures, each `plain` times as it is and once in each style: number n is picture n mod N in style ⌊n / N⌋.

    Attributes:
        whole: the N pictures.
        named: the styles.
        plain: how often each is there as it is.
    """

    whole: Pictures
    named: tuple[str, ...]
    plain: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.whole.shape

    @property
    def rounds(self) -> tuple[str, ...]:
        """The style of every N numbers."""
        return (PLAIN,) * self.plain + self.named

    @cached_property
    def labels(self) -> Tensor | None:
        return None if self.whole.labels is None else self.whole.labels.repeat(len(self.rounds))

    @property
    def label_names(self) -> tuple[str, ...]:
        return self.whole.label_names

    @property
    def records(self) -> tuple[Record, ...] | None:
        return None if self.whole.records is None else self.whole.records * len(self.rounds)

    def __len__(self) -> int:
        return len(self.whole) * len(self.rounds)

    def style(self, number: int) -> str:
        """The style of picture `number`."""
        return self.rounds[number // len(self.whole)]

    @property
    def distinct(self) -> range:
        """Numbers among which every picture is once as it is, and once in each style."""
        return range(len(self.whole) * (self.plain - 1), len(self))

    def row(self, number: int) -> int:
        """Where among `distinct` the picture of a number stands."""
        return max(number - self.distinct.start, number % len(self.whole))

    def read(self, numbers: Sequence[int]) -> Tensor:
        pixels = self.whole.read([number % len(self.whole) for number in numbers])
        rendered = [render(one[None], self.style(number)) for one, number in zip(pixels, numbers, strict=True)]
        return torch.cat(rendered) if rendered else pixels


def styled(pictures: Pictures, named: tuple[str, ...], plain: int) -> Pictures:
    """The pictures in styles too; as they are where none is named.

    Raises:
        SettingError: no such style.
    """
    for name in named:
        styles[name]
    return Styled(pictures, named, plain) if named else pictures


def style_of(pictures: Pictures, number: int) -> str:
    """The style of a picture of a set, PLAIN where there are none."""
    return pictures.style(number) if isinstance(pictures, Styled) else PLAIN


def unstyled(pictures: Pictures) -> Pictures:
    """The pictures of a set, each once and as it is."""
    return pictures.whole if isinstance(pictures, Styled) else pictures


def _blur(x: Tensor, sigma: float) -> Tensor:
    reach = max(1, round(2.5 * sigma))
    places = torch.arange(-reach, reach + 1, dtype=x.dtype)
    bell = (-(places**2) / (2 * sigma**2)).exp()
    bell = (bell / bell.sum()).expand(x.shape[1], 1, -1)
    across = F.conv2d(F.pad(x, (reach, reach, 0, 0), mode="replicate"), bell[:, :, None, :], groups=x.shape[1])
    return F.conv2d(F.pad(across, (0, 0, reach, reach), mode="replicate"), bell[:, :, :, None], groups=x.shape[1])
