"""A codec as a folder: the autoencoder in `vqvae/` or `vae/`, as diffusers opens it, and `neblina.json`."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neblina.bundle.components import Opening, codec_of, read_component, write_component
from neblina.bundle.files import CARD, FORMAT, read_json, refuse_strangers, write_card
from neblina.bundle.index import INDEX
from neblina.codecs.codec import Codec
from neblina.core.atomic import new_folder, recover
from neblina.core.errors import CheckpointError
from neblina.nets.autoencoder import AutoencoderKL
from neblina.nets.vq_autoencoder import VQAutoencoder

KIND = "codec"
PLACES = {"VQModel": "vqvae", "AutoencoderKL": "vae"}  # where diffusers' pipelines have them


@dataclass(frozen=True)
class CodecBundle:
    """Everything a codec's folder says.

    Attributes:
        codec: between pictures and latents, in evaluation mode.
        card: what else is known: the recipe, what it was trained on, the figures it was measured at.
    """

    codec: Codec
    card: Mapping[str, Any] = field(default_factory=dict)


def wrapped(net: VQAutoencoder | AutoencoderKL) -> Codec:
    """The codec around an autoencoder."""
    return codec_of(net, net.config.to_dict()["_class_name"])


def save_codec(net: VQAutoencoder | AutoencoderKL, folder: Path, card: Mapping[str, Any]) -> None:
    """Write the folder, all of it or nothing.

    Raises:
        CheckpointError: something is there that this does not write.
        StorageError: the disk is full or refuses; what was there before is untouched.
    """
    refuse_strangers(folder, {CARD, *PLACES.values()}, "a codec")
    with new_folder(folder) as aside:
        write_component(net, aside / PLACES[net.config.to_dict()["_class_name"]])
        write_card(aside, {"kind": KIND, **card})


def load_codec(folder: str | Path, opening: Opening | None = None) -> Codec:
    """The codec of a folder that `neblina train` made; it is not trained further.

    Args:
        opening: precision and device; None for float32 on the CPU.
    Raises:
        CheckpointError: not a codec's folder, or a file is missing, cut short, or does not fit the configuration.
    """
    return load_codec_bundle(Path(folder), opening).codec


def load_codec_bundle(folder: Path, opening: Opening | None = None) -> CodecBundle:
    """The codec of a folder, and what is known about it; arguments and errors of `load_codec`."""
    recover(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a codec's folder: there is no such folder")
    if (folder / INDEX).exists():
        raise CheckpointError(f"{folder} is a model, not a codec; train one with: train mnist-vq")
    if not (folder / CARD).exists():
        raise CheckpointError(f"{folder} is not a codec's folder: {CARD} is missing")
    card = read_json(folder / CARD)
    if card.get("kind") != KIND or card.get("format") != FORMAT:
        raise CheckpointError(f"{folder / CARD} does not describe a codec that this version reads")
    places = [folder / name for name in PLACES.values() if (folder / name).is_dir()]
    if len(places) != 1:
        there = "both" if places else "neither"
        raise CheckpointError(f"{folder} is not a codec's folder: it holds {there} of {' and '.join(PLACES.values())}")
    module = read_component(places[0], opening or Opening())
    name = read_json(places[0] / "config.json")["_class_name"]
    if PLACES.get(name) != places[0].name:
        raise CheckpointError(f"{places[0]} holds a {name}, which does not belong there")
    known = ("format", "version", "kind")
    return CodecBundle(
        codec_of(module.requires_grad_(False), name), {key: value for key, value in card.items() if key not in known}
    )


def weights_digest(net: nn.Module) -> str:
    """SHA-256 of the weights by name, in float32, in hexadecimal: equal wherever they lie and whoever wrote them."""
    digest = hashlib.sha256()
    for name, value in sorted(net.state_dict().items()):
        plain = value.detach().to("cpu", torch.float32).contiguous().numpy()
        digest.update(f"{name} {plain.shape} ".encode())
        digest.update(plain.tobytes())
    return digest.hexdigest()


def check_codec(net: VQAutoencoder, wanted: str | None, place: Path) -> None:
    """Refuse a codec whose codes are not the tokens that a model was trained on, though there may be as many.

    Args:
        wanted: digest of the one that made the tokens; None where nobody said.
        place: where this one lies.
    Raises:
        CheckpointError: naming both by their digests.
    """
    found = weights_digest(net) if wanted is not None else None
    if wanted != found:
        raise CheckpointError(
            f"{place} holds another codec ({str(found)[:12]}) than the one whose codes this model was trained on "
            f"({str(wanted)[:12]}), and would make noise of its tokens: put that codec back, or train a model of the "
            "tokens of this one"
        )
