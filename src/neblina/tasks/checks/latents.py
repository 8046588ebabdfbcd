"""What an autoencoder does with a picture: whether it gives it back, at which scale its latents are, what overflows.

A model diffuses latents whose standard deviation is about 1 (Rombach et al., appendix G): that is what `scaling_factor`
is for. It is measured on pictures with the spectrum of natural ones, which no one took.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from neblina.codecs.codec import Codec
from neblina.codecs.kl import KLCodec
from neblina.codecs.running import NetworkCodec
from neblina.core.noise import SampleNoise

LARGEST = torch.finfo(torch.float16).max
RETURNS = 0.8  # correlation of a picture with what a trained autoencoder makes of it, at the least


@dataclass(frozen=True)
class Coding:
    """What was measured.

    Attributes:
        std: of the latents, at the scale that is diffused.
        returned: correlation of the pictures with what came back.
        largest: magnitude of any value inside the network on the way back, infinity where one was not finite.
        scaled: whether the latents are meant to have a standard deviation of 1.
    """

    std: float
    returned: float
    largest: float
    scaled: bool

    @property
    def trained(self) -> bool:
        """Whether it gives pictures back."""
        return self.returned > RETURNS


def measure(codec: Codec, *, cells: int = 16, count: int = 2, device: torch.device | str = "cpu") -> Coding:
    """Encode and decode pictures of `cells` latent cells a side.

    Raises:
        DivergenceError: latents or pictures that are not finite.
    """
    side = cells * codec.factor
    pictures = torch.cat([pattern(codec.picture_channels, side, seed) for seed in range(count)]).to(device)
    seen, net = _Largest(), None
    decoder = codec
    if isinstance(codec, NetworkCodec):
        net, decoder = codec.net, replace(codec)  # whose copy of the network, if it makes one, is looked into too
    with torch.no_grad():
        latents = codec.encode(pictures)
        drawn = SampleNoise(count, range(count))(latents)  # of the spread that a model hands over
        with seen.inside(net):
            back = decoder.decode(torch.cat([latents, drawn]))[:count]
    returned = float(torch.corrcoef(torch.stack([pictures.flatten(), back.to(pictures).flatten()]))[0, 1])
    return Coding(float(latents.std()), returned, seen.largest, isinstance(codec, KLCodec))


def pattern(channels: int, side: int, seed: int) -> Tensor:
    """A picture of amplitude 1 / frequency, shape (1, C, side, side) in [−1, 1].

    van der Schaaf, van Hateren. Modelling the Power Spectra of Natural Images. Vision Research 1996.
    """
    white = SampleNoise(seed, [0])(torch.empty(1, channels, side, side))
    grey = 2 * white.mean(1, keepdim=True) + white / 2  # the channels of a picture go mostly together
    rows, columns = torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)[None]
    spectrum = torch.fft.rfft2(grey) / (rows**2 + columns**2).sqrt().clamp(min=1 / side)
    field: Tensor = torch.fft.irfft2(spectrum, s=(side, side))
    return (field / field.std() / 2).clamp(-1, 1)


class _Largest:
    """The largest magnitude that any part of a network puts out."""

    def __init__(self) -> None:
        self.largest = 0.0
        self._handles: list[Any] = []

    def inside(self, net: object) -> "_Largest":
        """Look at every part of a network, inside a with statement."""

        def look(module: nn.Module, given: Any, out: Any) -> None:  # of a copy too: a method would be copied
            self._look(out)

        for module in net.modules() if isinstance(net, nn.Module) else ():
            self._handles.append(module.register_forward_hook(look))
        return self

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _look(self, out: Any) -> None:
        if isinstance(out, Tensor):
            largest = float(out.detach().float().abs().max())
            self.largest = max(self.largest, largest if largest == largest else torch.inf)
