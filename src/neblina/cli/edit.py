"""`neblina edit`: a photo changed as words say."""

from pathlib import Path
from typing import Literal

from neblina.cli.making import carry_out
from neblina.cli.models import model_before
from neblina.cli.numbers import WholeOrNone
from neblina.cli.options import Labels, Opening, Output, Sampling


def edit(
    model: str | None = None,
    photo: str | None = None,
    prompt: str | None = None,
    /,
    *,
    label: Labels = None,
    strength: float = 0.6,
    method: Literal["noise", "inversion"] = "noise",
    source: str | None = None,
    iterations: WholeOrNone = None,
    depth: Path | None = None,
    size: str | None = None,
    background: str | None = None,
    sampling: Sampling = Sampling(),  # noqa: B008, frozen
    opening: Opening = Opening(),  # noqa: B008
    output: Output = Output(),  # noqa: B008
) -> None:
    """Change a photo: noised part of the way and made anew under a prompt, or inverted and walked back.

    Parameters
    ----------
    model
        A model's folder or file, or its name on the hub; left out, the small model of emoji in this package.
    photo
        A picture; it comes back at its own size.
    prompt
        What it is to be.
    label
        The same as a class by number or name, of a model of classes; may be given several times.
    strength
        How far towards noise it is taken, above 0; 1 leaves nothing of it.
    method
        noise, or inversion for edits that keep what the two prompts have in common.
    source
        What the photo shows, for inversion.
    iterations
        Of every step of an inversion, 1 when left out; more come closer to the photo.
    depth
        A picture of how near each place is, the brighter the nearer, for a model that is told it.
    size
        Scale the photo first, such as 768x512.
    background
        A colour that transparent parts are laid on.
    """
    model, photo, prompt = model_before(1, (model, photo, prompt))
    own = {
        "labels": label,
        "photo": photo,
        "prompt": prompt,
        "strength": strength,
        "method": method,
        "source": source,
        "iterations": iterations,
        "depth": depth,
        "size": size,
        "background": background,
    }
    carry_out("edit", str(model), own, opening, sampling, output)
