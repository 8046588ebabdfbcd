"""Which sizes of pictures a model makes: whole cells of its latents, and no more than there is memory and sense for."""

from __future__ import annotations

from math import isqrt

from neblina.bundle.bundle import Bundle
from neblina.core.errors import SettingError

_LARGER = 64  # times the area that a model was trained on: its subject would be there as often
_TRAINED = 4096  # side of a square larger than which no model was trained
_ALWAYS = 2048  # side of a square that any model is asked for


def latent_shape(bundle: Bundle, size: tuple[int, int] | None = None) -> tuple[int, int, int]:
    """(C, h, w) of what is diffused for pictures of (height, width), or of the model's own size.

    Raises:
        SettingError: a size that the codec or the network cannot make.
    """
    if size is None:
        check_own(bundle)
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
    try:
        bundle.net.config.check_size(height, width)
    except SettingError as error:
        step = factor * bundle.net.config.multiple
        near = " or ".join(dict.fromkeys(f"{to(size[1], step)}x{to(size[0], step)}" for to in (_down, _up)))
        raise SettingError(f"pictures of {size[1]}x{size[0]}: {error}. The nearest are {near}") from error
    return bundle.channels, height, width


def check_own(bundle: Bundle) -> None:
    """Refuse a size of the model's own that is a slip of its configuration.

    Raises:
        SettingError: it is larger than any that a model was trained at.
    """
    height, width = _own(bundle)
    if height * width > _TRAINED**2:
        raise SettingError(
            f"the model's sample_size, {bundle.net.config.sample_size}, makes pictures of {width}x{height}, and no "
            f"model was trained beyond {_TRAINED}x{_TRAINED}: a slip of its configuration. Write the right one in, "
            "or say which size to make."
        )


def check_area(bundle: Bundle, size: tuple[int, int]) -> None:
    """Refuse pictures so large that making them would run out of memory, or take for ever.

    Raises:
        SettingError: saying the largest.
    """
    height, width = _own(bundle)
    most = max(_LARGER * min(height * width, _TRAINED**2), _ALWAYS**2)
    if size[0] * size[1] > most:
        raise SettingError(
            f"{size[1]}x{size[0]} is {size[0] * size[1] / 1e6:.3f} million pixels, and this model makes at most "
            f"{most / 1e6:.3f} million, such as {isqrt(most)}x{isqrt(most)}: make less"
        )


def _own(bundle: Bundle) -> tuple[int, int]:
    """(height, width) in pixels of what it makes when nothing is asked for, nothing where it does not say."""
    own = bundle.net.config.sample_size or 0
    height, width = (own, own) if isinstance(own, int) else own
    return height * bundle.codec.factor, width * bundle.codec.factor


def _down(side: int, multiple: int) -> int:
    return max(multiple, side // multiple * multiple)


def _up(side: int, multiple: int) -> int:
    return max(multiple, -(-side // multiple) * multiple)
