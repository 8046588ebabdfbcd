"""`neblina compose`: a picture whose elements are where a scene says."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from neblina.cli.making import carry_out
from neblina.cli.numbers import WholeOrNone
from neblina.cli.options import Opening, Output, Sampling, colours_of
from neblina.core.errors import SettingError


def compose(
    model: str | None = None,
    scene: str | None = None,
    /,
    *,
    share: float | None = None,
    colours: str | None = None,
    window: WholeOrNone = None,
    overlap: WholeOrNone = None,
    photo: Path | None = None,
    mask: Path | None = None,
    strength: float | None = None,
    background: str | None = None,
    boxes: Annotated[bool, Parameter(negative=())] = False,
    sampling: Sampling = Sampling(),  # noqa: B008, frozen
    opening: Opening = Opening(),  # noqa: B008
    output: Output = Output(),  # noqa: B008
) -> None:
    """Place every element of a scene where it is to be, on a canvas of any size.

    Parameters
    ----------
    model
        A model's folder or file, or its name on the hub; left out, the small model of emoji in this package.
    scene
        A YAML file that says what is where, or a scene of this package: living_room, depth_of_field, two_styles,
        snacks.
    share
        Of the steps, from the first one, in which every element sees its place on a constant colour; as the scene says
        when left out.
    colours
        How many random ones, or which: white,black,#204060.
    window
        Side in pixels of the windows that a large canvas is made through; the model's own size when left out.
    overlap
        Pixels that neighbouring windows share at least; half a window when left out.
    photo
        A picture of the scene's size to begin at in place of noise.
    mask
        A picture of the same size: the scene is placed where it is white, and the photo is kept where it is black.
    strength
        How far the photo is taken towards noise: 1 leaves nothing of it.
    background
        A colour that transparent parts of the photo are laid on.
    boxes
        Save each picture also with the places drawn on, as …-boxes.png.
    """
    if scene is None:
        model, scene = None, model
    if scene is None:
        raise SettingError("a scene is needed: a YAML file, or one of the package such as snacks")
    from neblina.bundle.sources import DEFAULT
    from neblina.tasks.scenes import read_scene

    values = read_scene(scene)
    chosen = {"share": share, "colours": None if colours is None else colours_of(colours)}
    values["bootstrap"] |= {name: value for name, value in chosen.items() if value is not None}
    own = {
        "scene": values,
        "photo": photo,
        "mask": mask,
        "strength": strength,
        "window": window,
        "overlap": overlap,
        "background": background,
    }
    carry_out("compose", model or DEFAULT, own, opening, sampling, output, boxes=boxes)
