"""What another program's picture says of how it was made, in this package's words, and what has none here.

Nothing that is said is left out in silence: it becomes an argument, or it is listed with the reason why not.

A sampler or a grid is mapped where ours is the same method: on the same times it makes the same picture from the same
noise. The noise itself is another one: the number of a seed stands for different noise in every program.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Unmapped:
    """Something that a picture says and that is not, or not wholly, an argument here.

    Attributes:
        name: what the other program calls it.
        value: what it says.
        reason: why, and what to do.
    """

    name: str
    value: str
    reason: str


@dataclass(frozen=True)
class ForeignParameters:
    """How a picture of another program was made.

    Attributes:
        source: the program, with its version where it says one.
        model: the name of the model's file, None if it does not say.
        model_hash: what it says of the file's content, None if nothing.
        arguments: what was asked, in the names of `Provenance.arguments`: prompt, negative, sampler, grid, steps,
            guidance, seed, size ("768x512": width, height), clip_skip, loras (name and scale), settings.
        unmapped: the rest.
    """

    source: str
    model: str | None
    model_hash: str | None
    arguments: Mapping[str, Any]
    unmapped: tuple[Unmapped, ...]


NO_COUNTERPART = "this has no counterpart here"
OTHER_NOISE = "kept, but the number stands for other noise here: a picture of the same kind comes out, not the same one"
OF_THE_PROMPT = "kept, but here it is of the prompt alone, not of the negative one"

BEGUN = "it begins at a picture that the file does not name; give that one to neblina edit --strength"

# by the name without case, spaces and signs: A1111's names and ComfyUI's fall together where the method does
SAMPLERS = {
    "euler": "euler",
    "eulera": "euler_ancestral",
    "eulerancestral": "euler_ancestral",
    "heun": "heun_edm",
    "lms": "lms",
    "dpm2": "dpm2",
    "dpm2a": "dpm2_ancestral",
    "dpm2ancestral": "dpm2_ancestral",
    "dpmpp2m": "dpmpp_2m",
    "dpmpp2msde": "dpmpp_2m_sde",
    "dpmppsde": "dpmpp_sde",
    "ddim": "ddim",
    "ddpm": "ddpm",
    "plms": "plms",
    "deis": "deis",
    "unipc": "unipc",
}
_OTHERS = {
    "dpmpp2sa": "noise is drawn otherwise in dpmpp_sde, the nearest",
    "dpmpp2sancestral": "noise is drawn otherwise in dpmpp_sde, the nearest",
    "dpmpp3msde": "dpmpp_3m is its method without noise",
    "dpmpp2msdeheun": "dpmpp_2m_sde is its method by the midpoint rule",
    "restart": "the sampler restart walks other stretches again",
    "dpmadaptive": "the sampler adaptive is another method that chooses its steps",
}
# simple and SGM uniform are even steps of the discrete time from noise on, to within one of the schedule's steps
GRIDS = {"karras": "karras", "simple": "trailing", "sgmuniform": "uniform"}


def find_sampler(name: str) -> tuple[str | None, Unmapped | None]:
    """Our sampler of another program's name, or why there is none."""
    key = _key(name).removesuffix("gpu")
    if key in SAMPLERS:
        return SAMPLERS[key], None
    return None, Unmapped("sampler", name, _OTHERS.get(key, "there is no such sampler here; see neblina samplers"))


def find_grid(name: str) -> tuple[str | None, Unmapped | None]:
    """Our grid of another program's name, or why there is none."""
    if _key(name) in GRIDS:
        return GRIDS[_key(name)], None
    return None, Unmapped("schedule", name, "no grid here visits the same times; the sampler's own is taken")


def without_effect(arguments: dict[str, Any], name: str) -> list[Unmapped]:
    """Takes the negative prompt out where there is no guidance, and tells of it.

    Args:
        name: what the other program calls it.
    """
    if arguments.get("guidance") != 1 or "negative" not in arguments:
        return []
    negative = arguments.pop("negative")
    reason = "guidance goes away from it, and guidance is 1, which is none"
    return [Unmapped(name, negative, reason)] if negative else []


def _key(name: str) -> str:
    return "".join(letter for letter in name.lower().replace("+", "p") if letter.isalnum())
