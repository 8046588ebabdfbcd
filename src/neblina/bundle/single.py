"""A model from one file: the components of a folder, built from what the file says and its family assumes."""

from pathlib import Path

from torch import nn

from neblina.bundle.bundle import Bundle
from neblina.bundle.components import Opening, build_module, codec_in, codec_of, labelled
from neblina.bundle.parts import Parts, foreign_bundle
from neblina.bundle.pipelines import Pipeline, pipelines
from neblina.bundle.schedulers import read_scheduler
from neblina.bundle.single_file.read import Component, SingleFile, read_single_file
from neblina.bundle.sources import cached_file
from neblina.bundle.texts import Texts, family_of
from neblina.bundle.weights import load_into
from neblina.codecs.codec import Codec
from neblina.core.errors import CheckpointError, SettingError
from neblina.encoders.text import TextEncoder, make_text_encoder
from neblina.encoders.tokens import Tokenizer, load_tokenizer, padded_with
from neblina.nets.network import Network

_TOKENIZERS = {"bert": "bert-base-uncased"}  # whose vocabulary the encoder was trained on; CLIP's for all others
_CLIP = "openai/clip-vit-large-patch14"


def bundle_of_file(
    place: Path,
    opening: Opening,
    *,
    prediction: str | None = None,
    ema: bool = False,
    tokenizer: Path | None = None,
    codec: Codec | None = None,
) -> Bundle:
    """Open an original checkpoint: `.safetensors`, `.ckpt` or `.pt`.

    Args:
        prediction: what the model predicts (eps, v or x0), where the file does not say or is wrong.
        ema: take the averaged weights that training checkpoints hold beside the last.
        tokenizer: a tokenizer's folder, a folder of several, or CLIP's published merges; None looks in the hub's cache.
        codec: in place of the file's own, or where it has none.
    Raises:
        CheckpointError: no family that is known, cut short, or something that such a file does not hold is not given,
            or is another model's.
        SettingError: a prediction that there is not, or something that such a file has no use for.
    """
    if opening.variant is not None:
        raise SettingError(f"variant {opening.variant!r} is of a folder's weight files, and {place} is one file")
    single = read_single_file(place, prediction=prediction, ema=ema)
    try:
        pipeline = pipelines[single.pipeline]
    except SettingError as error:
        raise CheckpointError(
            f"{place} is no model that makes pictures: it is {single.family}. Give it beside one, with --vae"
        ) from error
    if tokenizer is not None and pipeline.family is None:
        raise SettingError(
            f"a tokenizer is for prompts, and {place} is {single.family}, which reads none: leave it out"
        )
    where = str(place)
    network = _built(single.components[pipeline.network], opening, where)
    if pipeline.embedder is not None:
        network = labelled(network, _built(single.components[pipeline.embedder], opening, where), where)
    if not isinstance(network, Network):
        raise CheckpointError(f"{where} holds no network that denoises")
    codec = codec or _codec(single, pipeline, opening, where)
    small = single.components.get("low_res_scheduler")
    parts = Parts(
        pipeline,
        single.settings,
        network,
        None if codec is None else codec_in(pipeline, codec),
        _texts(single, pipeline, opening, tokenizer, where),
        None if small is None else (read_scheduler(small.config).schedule, small.config),
    )
    return foreign_bundle(parts, single.components["scheduler"].config, where)


def codec_of_file(place: Path, opening: Opening) -> Codec:
    """The autoencoder of a file that holds one, alone or in a model.

    Raises:
        CheckpointError: it holds none.
    """
    single = read_single_file(place)
    for name in ("vae", "vqvae"):
        if name in single.components:
            return _wrapped(single.components[name], opening, str(place))
    raise CheckpointError(f"{place} holds no autoencoder")


def _codec(single: SingleFile, pipeline: Pipeline, opening: Opening, where: str) -> Codec | None:
    if pipeline.codec is None:
        return None
    if pipeline.codec not in single.components:
        raise CheckpointError(f"{where} holds no autoencoder: give one with --vae, a folder or a file")
    return _wrapped(single.components[pipeline.codec], opening, where)


def _wrapped(component: Component, opening: Opening, where: str) -> Codec:
    return codec_of(_built(component, opening, where), component.config["_class_name"])


def _built(component: Component, opening: Opening, where: str) -> nn.Module:
    module = build_module(component.config, where)
    load_into(module, component.state, where, dtype=opening.dtype, device=opening.device)
    return module


def _texts(
    single: SingleFile, pipeline: Pipeline, opening: Opening, tokenizer: Path | None, where: str
) -> Texts | None:
    if pipeline.family is None:
        return None
    present = [pair for pair in pipeline.texts if pair[0] in single.components]
    if not present:
        raise CheckpointError(f"{where} holds no text encoder, and {single.family} reads text")
    encoders: dict[str, TextEncoder] = {}
    written: dict[str, tuple[str, str]] = {}
    for name, tokens in present:
        component = single.components[name]
        words = find_tokenizer(tokenizer, tokens, _TOKENIZERS.get(name, _CLIP))
        encoders[name] = make_text_encoder(
            component.config,
            component.state,
            words if component.pad is None else padded_with(words, component.pad),
            what=f"{where} ({name})",
            dtype=opening.dtype,
            device=opening.device,
        )
        said = encoders[name].mismatch
        if tokenizer is not None and said is not None:
            raise CheckpointError(f"{where} ({name}) {said}. Give another --tokenizer than {tokenizer}")
        written[name] = (component.library, component.config["architectures"][0])
        written[tokens] = ("transformers", "BertTokenizer" if name == "bert" else "CLIPTokenizer")
    return Texts(family_of(pipeline.family, single.settings, len(present)), encoders, dict(present), written)


def find_tokenizer(given: Path | None, name: str, hub: str) -> Tokenizer:
    """A tokenizer from where it is given, else from the hub's cache.

    Args:
        given: a tokenizer's folder or file, or a folder that holds one of the component's name.
        name: of the component, such as tokenizer_2.
        hub: the model on the hub that has it.
    Raises:
        CheckpointError: it is not there, in one line with where to get it.
    """
    if given is not None:
        return load_tokenizer(given / name if (given / name).is_dir() else given)
    cached = cached_file(hub, "tokenizer_config.json")
    if cached is None:
        raise CheckpointError(
            f"such a file holds no tokenizer, and {hub} is not in the hub's cache: give a folder with --tokenizer, or "
            f"fetch it with: hf download {hub} vocab.json merges.txt vocab.txt tokenizer_config.json"
        )
    return load_tokenizer(cached.parent)
