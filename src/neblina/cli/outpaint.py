"""`neblina outpaint`: a photo extended past its borders."""

from pathlib import Path

from neblina.cli.making import carry_out
from neblina.cli.numbers import Whole
from neblina.cli.options import Labels, Opening, Output, Sampling


def outpaint(
    model: str,
    photo: Path,
    prompt: str | None = None,
    /,
    *,
    label: Labels = None,
    left: Whole = 0,
    right: Whole = 0,
    top: Whole = 0,
    bottom: Whole = 0,
    background: str | None = None,
    sampling: Sampling = Sampling(),  # noqa: B008, frozen
    opening: Opening = Opening(),  # noqa: B008
    output: Output = Output(),  # noqa: B008
) -> None:
    """Extend a photo past its borders; every pixel of it stays as it is.

    Parameters
    ----------
    model
        A model's folder or file, or its name on the hub.
    photo
        A picture.
    prompt
        What the whole is to show.
    label
        The same as a class by number or name, of a model of classes; may be given several times.
    left, right, top, bottom
        Pixels to add at each side.
    background
        A colour that transparent parts are laid on.
    """
    own = {
        "labels": label,
        "photo": photo,
        "prompt": prompt,
        "left": left or None,
        "right": right or None,
        "top": top or None,
        "bottom": bottom or None,
        "background": background,
    }
    carry_out("outpaint", model, own, opening, sampling, output)
