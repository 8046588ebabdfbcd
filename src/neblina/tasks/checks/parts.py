"""A model that does not open, looked at part by part: everything that is wrong with it, not the first thing alone."""

from collections.abc import Callable, Iterator
from pathlib import Path

from neblina.bundle.components import Opening, kinds, read_component
from neblina.bundle.files import read_json
from neblina.bundle.index import INDEX, SCHEDULER, SMALL, mixing, read_index
from neblina.bundle.schedulers import read_scheduler
from neblina.bundle.weights import read_weights
from neblina.core.errors import CheckpointError, NeblinaError
from neblina.encoders.architectures import ARCHITECTURES
from neblina.encoders.text import make_text_encoder
from neblina.encoders.tokens import load_tokenizer
from neblina.tasks.checks.findings import NOTE, OK, PROBLEM, Finding


def is_component(folder: Path) -> bool:
    """Whether a folder is one part of a model: a network, an autoencoder, a text encoder, a tokenizer, a scheduler."""
    names = ("config.json", SCHEDULER, "tokenizer_config.json")
    return not (folder / INDEX).exists() and any((folder / name).exists() for name in names)


def look_at_parts(folder: Path, opening: Opening) -> list[Finding]:
    """Each part of a model's folder by itself."""
    try:
        index, pipeline = read_index(folder)
    except NeblinaError as error:
        found = [Finding(PROBLEM, INDEX, str(error))]
        parts = {entry.name for entry in folder.iterdir() if entry.is_dir() and is_component(entry)}
    else:
        found = [Finding(OK, INDEX, f"a {pipeline.name}")]
        named = {name for name, value in index.items() if isinstance(value, list) and value[:1] != [None]}
        texts = pipeline.text_parts
        optional = pipeline.tokens and pipeline.codec not in named  # tokens may be letters, or levels of pixels
        codec = pipeline.network if pipeline.codec is None or optional else pipeline.codec
        used = {pipeline.network, codec, "scheduler", SMALL, *texts}
        parts = {name for name in named if name in used or (folder / name / "config.json").exists()}
        parts |= {pipeline.network, codec}
        opening = mixing(folder, index, opening)
    for name in sorted(parts):
        found += look_at_part(folder, name, opening)
    return found


def look_at_part(folder: Path, name: str, opening: Opening) -> list[Finding]:
    """One part of a model's folder by itself."""
    place = folder / name
    try:
        return list(_reader(place)(place, name, opening))
    except NeblinaError as error:
        return [Finding(PROBLEM, name, str(error))]


def _reader(place: Path) -> Callable[[Path, str, Opening], Iterator[Finding]]:
    if "scheduler" in place.name or (place / SCHEDULER).exists():
        return _scheduler
    if "tokenizer" in place.name:
        return _tokenizer
    if not (place / "config.json").exists():
        raise CheckpointError(f"{place / 'config.json'} is missing")
    config = read_json(place / "config.json")
    named = config.get("architectures")
    if isinstance(named, list) and named and named[0] in ARCHITECTURES:
        return _text
    if config.get("_class_name") in list(kinds):
        return _component
    known = (*kinds, *ARCHITECTURES)
    if "_class_name" in config and place.name in ("unet", "vae", "vqvae", "transformer"):
        return _component  # which says what it is not
    return lambda place, name, opening: iter(
        [Finding(NOTE, name, f"it is none of {', '.join(known)}: carried along and not used")]
    )


def _component(place: Path, name: str, opening: Opening) -> Iterator[Finding]:
    module = read_component(place, opening)
    count = sum(parameter.numel() for parameter in module.parameters())
    yield Finding(OK, name, f"a {read_json(place / 'config.json')['_class_name']} of {count:,} parameters, all of them")


def _scheduler(place: Path, name: str, opening: Opening) -> Iterator[Finding]:
    config = read_json(place / SCHEDULER)
    read = read_scheduler(config)
    yield Finding(OK, name, f"a {config['_class_name']}, of a model that predicts {read.parameterisation}")


def _tokenizer(place: Path, name: str, opening: Opening) -> Iterator[Finding]:
    yield Finding(OK, name, f"knows {load_tokenizer(place).size:,} tokens")


def _text(place: Path, name: str, opening: Opening) -> Iterator[Finding]:
    beside = place.with_name(place.name.replace("text_encoder", "tokenizer").replace("bert", "tokenizer"))
    config, weights = read_json(place / "config.json"), read_weights(place, "model", opening.variant_in(place, "model"))
    if not beside.is_dir() or beside == place:
        yield Finding(NOTE, name, f"{len(weights)} tensors; no tokenizer is beside it to read a text with")
        return
    try:
        tokenizer = load_tokenizer(beside)
    except NeblinaError:  # said of the tokenizer itself
        yield Finding(NOTE, name, f"{len(weights)} tensors; its tokenizer cannot be read, so it was not tried")
        return
    encoder = make_text_encoder(config, weights, tokenizer, what=str(place), dtype=opening.dtype)
    yield Finding(OK, name, f"a {config['architectures'][0]}: {encoder.layers} layers, {encoder.width} wide")
