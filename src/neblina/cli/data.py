"""`neblina data`: archives of pictures to train on, from where they are published."""

from pathlib import Path
from typing import Literal

from cyclopts import App

from neblina.cli.numbers import Whole
from neblina.cli.progress import bar, console, teller

app = App(name="data", help="Make an archive of captioned pictures to train on.", help_format="plaintext")


@app.command
def emoji(
    pictures: Path,
    names: Path,
    /,
    *,
    out: Path = Path("noto-emoji-64.zip"),
    size: Whole = 64,
    variants: Literal["some", "all", "none"] = "some",
) -> None:
    """Emoji with their names, from public repositories: what the recipe `emoji` is trained on.

    Parameters
    ----------
    pictures
        A checkout of googlefonts/noto-emoji.
    names
        A checkout of milesj/emojibase, or its npm package emojibase-data unpacked.
    out
        The archive.
    size
        Side of the pictures in pixels.
    variants
        Of skin tone: some leaves out those that were left out for emoji-64.
    """
    from neblina.data.noto import make_archive

    with bar("emoji") as progress:
        tell = teller(progress)
        count, missing = make_archive(
            pictures,
            names,
            out,
            size=size,
            variants=variants,
            on_read=lambda done, total: tell(done, total, "looking at the pictures"),
        )
    if missing:
        console.print(f"note: {len(missing)} emoji have a name and no picture here: {', '.join(missing[:10])}")
    console.print(f"{count:,} pictures of {size}x{size}    {out}")
