"""A model from wherever it is: a folder, one file, or a repository on the hub."""

from dataclasses import replace
from pathlib import Path

from neblina.bundle.bundle import Bundle
from neblina.bundle.components import Opening, codec_of, kinds, read_component
from neblina.bundle.files import read_json
from neblina.bundle.folder import load_bundle
from neblina.bundle.single import bundle_of_file, codec_of_file
from neblina.bundle.sources import resolve
from neblina.codecs.codec import Codec
from neblina.core.errors import CheckpointError, SettingError


def open_bundle(
    model: str | Path,
    opening: Opening,
    *,
    revision: str | None = None,
    prediction: str | None = None,
    ema: bool = False,
    tokenizer: str | Path | None = None,
    vae: str | Path | None = None,
) -> Bundle:
    """Open a model.

    Args:
        model: a folder, a single file, or the id of a repository.
        opening: how components are opened.
        revision: branch, tag or commit of a repository.
        prediction: what a single file's network predicts (eps, v or x0), where it does not say.
        ema: take a single file's averaged weights.
        tokenizer: for a single file, which holds none: a folder, or CLIP's published merges.
        vae: an autoencoder in place of the model's own: a component's folder, a model's, or a file.
    Raises:
        CheckpointError: nothing is there, or it is incomplete, damaged or of a kind that is not opened here.
        SettingError: something is asked for that has no effect, or a configuration that is not followed here.
    """
    place = resolve(model, revision=revision, variant=opening.variant)
    codec = None if vae is None else open_codec(vae, opening)
    if place.is_file():
        words = None if tokenizer is None else Path(tokenizer)
        return bundle_of_file(place, opening, prediction=prediction, ema=ema, tokenizer=words, codec=codec)
    for name, value in {"prediction": prediction, "ema": ema, "tokenizer": tokenizer}.items():
        if value:
            raise SettingError(f"{name} is for a single file, and {model} is a folder, which says it itself")
    return load_bundle(place, opening, codec=codec)


def open_codec(vae: str | Path, opening: Opening) -> Codec:
    """An autoencoder from a component's folder, a model's folder or a single file.

    Raises:
        CheckpointError: there is none.
    """
    place = resolve(vae, variant=opening.variant)
    if place.is_file():
        return codec_of_file(place, opening)
    for folder in (place, place / "vae", place / "vqvae"):
        config = folder / "config.json"
        name = str(read_json(config).get("_class_name")) if config.exists() else ""
        if name in iter(kinds) and kinds[name].codec is not None:
            return codec_of(read_component(folder, replace(opening, mixed=True)), name)  # the variant is the model's
    raise CheckpointError(f"{place} holds no autoencoder (vae/config.json)")
