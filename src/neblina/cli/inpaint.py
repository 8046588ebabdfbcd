"""`neblina inpaint`: part of a photo made anew."""

from neblina.cli.making import carry_out
from neblina.cli.models import model_before
from neblina.cli.numbers import Whole
from neblina.cli.options import Labels, Opening, Output, Sampling


def inpaint(
    model: str | None = None,
    photo: str | None = None,
    mask: str | None = None,
    prompt: str | None = None,
    /,
    *,
    label: Labels = None,
    strength: float = 1.0,
    soften: Whole = 0,
    background: str | None = None,
    sampling: Sampling = Sampling(),  # noqa: B008, frozen
    opening: Opening = Opening(),  # noqa: B008
    output: Output = Output(),  # noqa: B008
) -> None:
    """Make the inside of a mask anew; outside it every pixel stays as it is.

    Parameters
    ----------
    model
        A model's folder or file, or its name on the hub; left out, the small model of emoji in this package;
        one trained for it, or any (try --sampler repaint too).
    photo
        A picture.
    mask
        A picture of the same size: white is made anew, black is kept.
    prompt
        What the inside is to show.
    label
        The same as a class by number or name, of a model of classes; may be given several times.
    strength
        Below 1, what was inside shows through.
    soften
        Pixels inside the mask over which what is made fades in.
    background
        A colour that transparent parts of the photo are laid on.
    """
    model, photo, mask, prompt = model_before(2, (model, photo, mask, prompt))
    own = {
        "labels": label,
        "photo": photo,
        "mask": mask,
        "prompt": prompt,
        "strength": strength,
        "soften": soften or None,
        "background": background,
    }
    carry_out("inpaint", str(model), own, opening, sampling, output)
