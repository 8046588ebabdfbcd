"""Settings that would change nothing: refused, so that nobody waits for what they would have done."""

from collections.abc import Mapping, Sequence

from neblina.core.errors import SettingError
from neblina.training.recipe import Recipe

EVERY = ("*",)
Unused = Mapping[str, Sequence[str]]  # names of a section's settings, or EVERY of them
OF_TEXT: Unused = {
    "latents": EVERY,
    "text": EVERY,
    "draft": EVERY,
}  # what only a denoiser of latents that reads text looks at
OF_ENCODER = ("layers", "width", "heads", "pace", "tokens", "window")  # of the text, of an encoder that is trained
PATCHES = ("kind", "layers", "width", "patch")  # of the network, of a transformer over patches


def refuse_unused(recipe: Recipe, unused: Unused, what: str) -> None:
    """Refuse settings that are not the defaults and mean nothing.

    Args:
        unused: by section.
        what: is trained, such as "a classifier".
    Raises:
        SettingError: naming all of them.
    """
    plain = Recipe()
    given = []
    for section, names in unused.items():
        mine, default = getattr(recipe, section), getattr(plain, section)
        for name in type(mine).model_fields if names == EVERY else names:
            if getattr(mine, name) != getattr(default, name):
                given.append(f"{section}.{name}")
    if given:
        raise meaningless(given, what)


def meaningless(settings: Sequence[str], what: str) -> SettingError:
    """What to say of settings that mean nothing to `what`."""
    means = "means" if len(settings) == 1 else "mean"
    return SettingError(f"{', '.join(settings)} {means} nothing to {what}; leave it out of its recipe")
