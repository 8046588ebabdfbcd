"""`neblina panorama`: a picture of any size, also all around."""

from typing import Annotated

from cyclopts import Parameter

from neblina.cli.making import carry_out
from neblina.cli.numbers import WholeOrNone
from neblina.cli.options import Labels, Opening, Output, Sampling

Flag = Annotated[bool, Parameter(negative=())]


def panorama(
    model: str | None = None,
    /,
    *prompt: str,
    label: Labels = None,
    size: str,
    wrap: Flag = False,
    window: WholeOrNone = None,
    overlap: WholeOrNone = None,
    even: Flag = False,
    sampling: Sampling = Sampling(),  # noqa: B008, frozen
    opening: Opening = Opening(),  # noqa: B008
    output: Output = Output(),  # noqa: B008
) -> None:
    """Make a picture of any size through overlapping windows of the size that the model knows.

    Parameters
    ----------
    model
        A model's folder or file, or its name on the hub; left out, the small model of emoji in this package.
    prompt
        What it shows; several divide its width from left to right and fade into each other.
    label
        The same as a class by number or name, of a model of classes; may be given several times.
    size
        Width and height in pixels, such as 2048x512.
    wrap
        The right border meets the left: a picture all around.
    window
        Side in pixels of the windows; the model's own size when left out.
    overlap
        Pixels that neighbouring windows share at least; half a window when left out.
    even
        Windows count as much at their borders as in their middle, as in the paper; else one fades into the next.
    """
    from neblina.bundle.sources import DEFAULT, names_a_model

    if model is None or not names_a_model(model):
        prompt = prompt if model is None else (model, *prompt)
        model = DEFAULT
    own = {
        "prompt": list(prompt) if len(prompt) > 1 else next(iter(prompt), None),
        "labels": label,
        "size": size,
        "wrap": wrap or None,
        "window": window,
        "overlap": overlap,
        "even": even or None,
    }
    carry_out("panorama", model, own, opening, sampling, output)
