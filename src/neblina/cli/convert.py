"""`neblina convert`: any model as a folder that diffusers opens."""

from pathlib import Path

from neblina.cli.options import Opening, arguments_of
from neblina.cli.progress import command, console


def convert(
    model: str,
    folder: Path,
    /,
    *,
    opening: Opening = Opening(),  # noqa: B008, frozen
    save_variant: str | None = None,
    max_shard: str | None = None,
) -> None:
    """Write a model as a folder that diffusers also opens, with its weights in --dtype.

    Parameters
    ----------
    model
        A model's folder or file, or its name on the hub.
    folder
        Where it goes; a new folder.
    save_variant
        Of the weight files that are written, such as fp16; --variant is of those that are read.
    max_shard
        Most that a weight file holds, such as 5GB; one file a component when left out.
    """
    from neblina.tasks.convert import convert as make

    made = make(model, folder, save_variant=save_variant, max_shard=max_shard, **arguments_of(opening))
    console.print(f"{made.size / 1e6:,.1f} MB, weights in {made.files} files      {made.model}")
    console.print(f"try next:  {command()} check {made.model}" + (f" --variant {save_variant}" if save_variant else ""))
