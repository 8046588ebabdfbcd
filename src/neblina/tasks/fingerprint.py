"""A model's fingerprint: whether these are the weights that a picture was made with, without reading all of them.

Of each file of weights it takes the size, the first mebibyte (a safetensors header with every name, shape and dtype, or
the directory of a pickle), the last 64 KiB and 256 evenly spread blocks of 4 KiB; of every smaller file, all of it. So
it sees another configuration, a file more or less, another training step, another precision: anything that changes
weights everywhere. It does not see a change that lies wholly between two blocks, such as one tensor of a hundred
kilobytes edited by hand: it tells models apart and is no proof against someone who wants two to look alike.

It does not depend on where the model lies, nor on what is no part of it: hidden files, pictures and readmes.

Saarinen, Aumasson. The BLAKE2 Cryptographic Hash and Message Authentication Code. RFC 7693, 2015.
"""

import hashlib
from pathlib import Path

from neblina.core.errors import CheckpointError

_HEAD = 2**20
_TAIL = 2**16
_BLOCK = 2**12
_BLOCKS = 256
_ASIDE = (".md", ".png", ".jpg", ".jpeg", ".webp", ".gif", ".log", ".lock", ".partial")


def fingerprint(model: str | Path) -> str:
    """32 hexadecimal digits of a model's folder or file; equal for equal models wherever they lie.

    Raises:
        CheckpointError: nothing is there, a folder holds no file of a model, or a file cannot be read.
    """
    place = Path(model)
    if place.is_dir():
        files = sorted(_files(place), key=lambda file: file.relative_to(place).as_posix())
        if not files:
            raise CheckpointError(f"{place} holds no file of a model")
        named = [(file.relative_to(place).as_posix(), file) for file in files]
    elif place.is_file():
        named = [("", place)]
    else:
        raise CheckpointError(f"{place} is missing")
    whole = hashlib.blake2b(digest_size=16)
    for name, file in named:
        try:
            seen = _seen(file)
        except OSError as error:
            raise CheckpointError(f"{file} cannot be read: {error.strerror or error}") from error
        # lengths first: no two lists of files write the same bytes
        written = name.encode("utf-8", "surrogateescape")
        whole.update(len(written).to_bytes(8, "little") + written + seen)
    return whole.hexdigest()


def _files(folder: Path) -> list[Path]:
    """What belongs to the model."""
    return [
        file
        for file in folder.rglob("*")
        if file.is_file()
        and file.suffix.lower() not in _ASIDE
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]


def _seen(file: Path) -> bytes:
    """The digest of one file's size and of what is looked at of it."""
    digest = hashlib.blake2b()
    with file.open("rb", buffering=0) as content:
        size = file.stat().st_size
        digest.update(size.to_bytes(8, "little"))
        digest.update(content.read(_HEAD))
        between = size - _HEAD - _TAIL
        if between > _BLOCKS * _BLOCK:
            for number in range(_BLOCKS):
                content.seek(_HEAD + number * (between - _BLOCK) // (_BLOCKS - 1))
                digest.update(content.read(_BLOCK))
            content.seek(size - _TAIL)
        while block := content.read(2**20):
            digest.update(block)
    return digest.digest()
