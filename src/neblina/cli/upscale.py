"""`neblina upscale`: a photo enlarged."""

from pathlib import Path

from neblina.cli.making import carry_out
from neblina.cli.numbers import Whole, WholeOrNone
from neblina.cli.options import Labels, Opening, Output, Sampling


def upscale(
    model: str,
    photo: Path,
    prompt: str | None = None,
    /,
    *,
    label: Labels = None,
    factor: Whole = 4,
    noise_level: WholeOrNone = None,
    strength: float | None = None,
    background: str | None = None,
    sampling: Sampling = Sampling(),  # noqa: B008, frozen
    opening: Opening = Opening(),  # noqa: B008
    output: Output = Output(),  # noqa: B008
) -> None:
    """Enlarge a photo, by a checkpoint trained for it, or crop by crop by any model.

    Parameters
    ----------
    model
        A model's folder or file, or its name on the hub.
    photo
        A picture.
    prompt
        What it shows.
    label
        The same as a class by number or name, of a model of classes; may be given several times.
    factor
        How many times as wide and high it gets.
    noise_level
        Steps of noise laid on the photo before a checkpoint for it reads it; 20 when left out.
    strength
        How much any other model may change; 0.3 when left out.
    background
        A colour that transparent parts are laid on.
    """
    own = {
        "labels": label,
        "photo": photo,
        "prompt": prompt,
        "factor": factor,
        "noise_level": noise_level,
        "strength": strength,
        "background": background,
    }
    carry_out("upscale", model, own, opening, sampling, output)
