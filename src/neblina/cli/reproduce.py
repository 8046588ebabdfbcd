"""`neblina reproduce`: a picture made again from what it says of itself."""

from pathlib import Path

from neblina.cli.making import save
from neblina.cli.options import Output
from neblina.cli.progress import console


def reproduce(
    picture: Path,
    /,
    *,
    model: str | None = None,
    inputs: Path | None = None,
    output: Output = Output(),  # noqa: B008, frozen
) -> None:
    """Make a picture again from the recipe inside it, and say whether it is the same.

    Of a picture by AUTOMATIC1111 or ComfyUI, what maps is taken, and what does not is said.

    Parameters
    ----------
    picture
        A picture that says how it was made.
    model
        Where the model is now; where it was when left out.
    inputs
        Folder with the photo, the mask and the LoRAs that it was made from; where they were when left out.
    """
    from neblina.tasks.reproducing import difference, order_from

    order, notes = order_from(picture, model=model, folder=inputs)
    for sentence in notes:
        console.print(f"[yellow]note:[/yellow] {sentence}")
    (made,) = save(order, output)
    console.print(difference(picture, made.picture))
