"""A picture made again: the order that made it, and whether what comes out is the same."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PureWindowsPath

import torch
from torch import Tensor

from neblina.core.errors import DataError, SettingError
from neblina.tasks.foreign_parameters import read_foreign
from neblina.tasks.foreign_parts import ForeignParameters, Unmapped
from neblina.tasks.order import Order
from neblina.tasks.provenance import Provenance, read_pixels, read_provenance
from neblina.tasks.recipe import changed_parts, fingerprint_of, order_of
from neblina.version import __version__


def order_from(picture: Path, *, model: str | None = None, folder: Path | None = None) -> tuple[Order, list[str]]:
    """The order that made a picture, and sentences about what is not as it was.

    Args:
        model: where the model is now, None for where it was.
        folder: where the files are that the picture was made from, None for where they were; another program's LoRAs
            are looked up here by their names.
    Raises:
        DataError: the picture does not say how it was made, or what it was made from is not there.
        SettingError: another program's picture, and no model.
    """
    try:
        provenance = read_provenance(picture)
    except DataError as error:
        try:
            foreign = read_foreign(picture)
        except DataError:
            raise error from None
        if model is None:
            raise SettingError(
                f"{picture} was made by {foreign.source} with the model {foreign.model}: say where it is with --model"
            ) from None
        foreign = _with_files(foreign, folder)
        notes = [f"{one.name} = {one.value}: {one.reason}" for one in foreign.unmapped]
        return Order("generate", model, foreign.arguments), notes
    order = order_of(provenance, model=model, folder=folder)
    return order, list(_changes(provenance, order))


def _with_files(foreign: ForeignParameters, folder: Path | None) -> ForeignParameters:
    """The same with the files of its LoRAs for their names; those that are not found become unmapped."""
    found, lost = [], []
    for name, scale in foreign.arguments.get("loras", []):
        file = PureWindowsPath(name).name  # either separator, whatever machine wrote it
        places = [] if folder is None else [folder / file, folder / f"{file}.safetensors"]
        place = next((place for place in places if place.is_file()), None)
        if place is not None:
            found.append([str(place), scale])
        else:
            where = "say which folder it is in with --inputs" if folder is None else f"{folder} holds no such file"
            lost.append(Unmapped("lora", f"{name}:{scale:g}", f"left out: {where}"))
    others = {name: value for name, value in foreign.arguments.items() if name != "loras"}
    arguments = {**others, "loras": found} if found else others
    return replace(foreign, arguments=arguments, unmapped=(*foreign.unmapped, *lost))


def _changes(provenance: Provenance, order: Order) -> Iterator[str]:
    """Sentences about what is not as it was: the model, the versions."""
    now = fingerprint_of(order) if provenance.fingerprint else ""
    if now and now != provenance.fingerprint:
        yield f"{order.model} is not the model that made the picture: its weights or its configuration differ"
    for part in changed_parts(provenance, order):
        yield f"{part} is not what the picture was made with: its content differs"
    for name, then, current in (
        ("neblina", provenance.version, __version__),
        ("torch", provenance.torch, str(torch.__version__)),
    ):
        if then != current:
            yield f"the picture was made with {name} {then}, and this is {current}"


def difference(picture: Path, made: Tensor) -> str:
    """How far a picture, uint8 of shape (C, H, W), is from a file, as a sentence."""
    before = read_pixels(picture)
    if before.shape != made.shape:
        return f"another size: {picture} is of shape {tuple(before.shape)}, this of shape {tuple(made.shape)}"
    off = (before.int() - made.int()).abs().amax(0)
    if not off.any():
        return f"the same picture, to the byte: {picture}"
    same = float((off == 0).float().mean())
    return f"{same:.2%} of the pixels are the same, the others differ by up to {int(off.max())} of 255"
