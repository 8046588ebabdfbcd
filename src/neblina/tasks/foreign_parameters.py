"""How a picture of AUTOMATIC1111's web interface or of ComfyUI was made, from what it says in the file.

Both write it into a PNG's texts: `parameters`, and `prompt` (a graph; `workflow` beside it is the same as drawn on the
screen). In a JPEG or a WebP the former is EXIF's user comment.
"""

from pathlib import Path
from typing import Any

from PIL import Image

from neblina.core.errors import DataError
from neblina.tasks.foreign_a1111 import read_a1111
from neblina.tasks.foreign_comfyui import read_comfyui
from neblina.tasks.foreign_parts import ForeignParameters
from neblina.tasks.provenance import CHUNK

_EXIF, _USER_COMMENT = 0x8769, 0x9286


def read_foreign(path: str | Path) -> ForeignParameters:
    """What another program's picture says of how it was made.

    Raises:
        DataError: no picture; one of this package, which says more (`read_provenance`); nothing that either program
            writes; a graph that is damaged or has no sampler.
    """
    place = Path(path)
    if not place.is_file():
        raise DataError(f"{place} is a folder; give one picture" if place.is_dir() else f"{place} is missing")
    try:
        with Image.open(place) as picture:
            if picture.format == "PNG":
                picture.load()  # texts may stand behind the pixels
            texts = {name: text for name, text in picture.info.items() if isinstance(text, str)}
            comment = picture.getexif().get_ifd(_EXIF).get(_USER_COMMENT)
    except Exception as error:  # Pillow raises many kinds for a broken file
        raise DataError(f"{place} cannot be read as a picture: {error}") from error
    if CHUNK in texts:
        raise DataError(f"{place} was written by neblina and says all of it; read it with read_provenance")
    try:
        if "prompt" in texts:
            return read_comfyui(texts["prompt"])
        words = texts.get("parameters") or _comment(comment)
        if words:
            return read_a1111(words)
    except DataError as error:
        raise DataError(f"{place}: {error}") from error
    raise DataError(f"{place} does not say how it was made, as AUTOMATIC1111 and ComfyUI do, or was saved anew since")


def _comment(content: Any) -> str:
    """EXIF's user comment: eight letters that name the encoding, and the text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, bytes):
        return ""
    head, text = content[:8], content[8:]
    if head.startswith(b"UNICODE"):
        # either order of the bytes is about: most letters have a zero byte, and it says which
        return text.decode("utf-16-be" if text[::2].count(0) >= text[1::2].count(0) else "utf-16-le", "replace")
    return text.decode("utf-8", "replace") if head.startswith((b"ASCII", b"\0")) else content.decode("utf-8", "replace")
