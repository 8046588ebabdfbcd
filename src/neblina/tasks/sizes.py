"""Which sizes of pictures a model makes: whole cells of its latents, and no more than there is memory and sense for."""

from __future__ import annotations

from math import isqrt

from neblina.bundle.bundle import Bundle
from neblina.core.errors import SettingError

_LARGER = 64  # times the area that a model was trained on: its subject would be there as often
_ALWAYS = 2048  # side of a square that any model is asked for


def latent_shape(bundle: Bundle, size: tuple[int, int] | None = None) -> tuple[int, int, int]:
    """(C, h, w) of what is diffused for pictures of (height, width), or of the model's own size.

    Raises:
        SettingError: a size that the codec or the network cannot make.
    """
    if size is None:
        return bundle.latent_shape
    check_area(bundle, size)
    factor = bundle.codec.factor
    if any(side < factor or side % factor for side in size):
        near = " or ".join(dict.fromkeys(f"{to(size[1], factor)}x{to(size[0], factor)}" for to in (_down, _up)))
        raise SettingError(
            f"a latent of this model is {factor} pixels wide, and {size[1]}x{size[0]} is no multiple of that; "
            f"take {near}"
        )
    height, width = size[0] // factor, size[1] // factor
    bundle.net.config.check_size(height, width)
    return bundle.channels, height, width


def check_area(bundle: Bundle, size: tuple[int, int]) -> None:
    """Refuse pictures so large that making them would run out of memory, or take for ever.

    Raises:
        SettingError: saying the largest.
    """
    own = bundle.net.config.sample_size or 0
    height, width = (own, own) if isinstance(own, int) else own
    most = max(_LARGER * height * width * bundle.codec.factor**2, _ALWAYS**2)
    if size[0] * size[1] > most:
        raise SettingError(
            f"{size[1]}x{size[0]} is {size[0] * size[1] / 1e6:.3f} million pixels, and this model makes at most "
            f"{most / 1e6:.3f} million, such as {isqrt(most)}x{isqrt(most)}: make less"
        )


def _down(side: int, multiple: int) -> int:
    return max(multiple, side // multiple * multiple)


def _up(side: int, multiple: int) -> int:
    return max(multiple, -(-side // multiple) * multiple)
