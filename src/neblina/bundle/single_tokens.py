"""A model of tokens from a `.pth` of VQ-Diffusion's original release: its components, and a CLIP from elsewhere."""

from pathlib import Path
from typing import Any

from torch import Tensor

from neblina.bundle.components import Opening, build_module
from neblina.bundle.files import read_json
from neblina.bundle.pipelines import pipelines
from neblina.bundle.single_file.read import OPEN_CLIP_PAD, Component
from neblina.bundle.single_file.vq_diffusion import read_release
from neblina.bundle.single_file.vq_diffusion_yaml import ReleaseSettings, read_release_settings
from neblina.bundle.texts import Texts
from neblina.bundle.tokens import TokenBundle, TokenSampling, scheduled_kernel
from neblina.bundle.weights import load_into, read_weights
from neblina.codecs.vq import VQCodec
from neblina.core.errors import CheckpointError, SettingError
from neblina.encoders.text import make_text_encoder
from neblina.encoders.tokens import load_tokenizer, padded_with
from neblina.nets.learned_null import LearnedNull, LearnedNullConfig

_ENCODER, _TOKENIZER, _CLASS = "text_encoder", "tokenizer", "CLIPTextModel"


def token_bundle_of_file(place: Path, opening: Opening, *, text_encoder: Path | None = None) -> TokenBundle:
    """Open a `.pth` with its yaml beside it.

    Args:
        text_encoder: a folder of CLIP with its tokenizer, for a model that reads text.
    Raises:
        CheckpointError: there is no yaml, or several, something is cut short, lacking or does not fit the others, or a
            model of text is given no text encoder.
        SettingError: a kind of model that is not opened, or an argument that such a file has no use for.
    """
    if opening.variant is not None:
        raise SettingError(f"variant {opening.variant!r} is of a folder's weight files, and {place} is one file")
    settings = read_release_settings(place)
    texts = _texts(place, settings, text_encoder, opening)
    release = read_release(place, settings)
    null = None if release.null is None else _null(release.null, opening, str(place))
    if null is not None and texts is not None and null.config.length != texts.encoders[_ENCODER].window:
        raise CheckpointError(
            f"{place}: the text that says nothing is {null.config.length} tokens long, and {text_encoder} reads "
            f"{texts.encoders[_ENCODER].window}"
        )
    pipeline = pipelines["TokenPipeline" if texts is None else "VQDiffusionPipeline"]
    kernel, steps = scheduled_kernel(
        {"num_vec_classes": settings.tokens + 1, "num_train_timesteps": settings.steps}, str(place)
    )
    guidance = 1.0 if null is None else pipeline.guidance
    parts: dict[str, Any] = {
        "net": _built(release.network, opening, f"{place} (transformer)"),
        "codec": VQCodec(_built(release.codec, opening, f"{place} (codec)")),
        "text": texts,
        "null": null,
        "label_names": tuple(map(str, range(settings.classes or 0))),
        "null_label": settings.classes,
    }
    sampling = TokenSampling(steps=steps, guidance=guidance)
    return TokenBundle(kernel=kernel, clock_steps=steps, sampling=sampling, pipeline=pipeline, **parts)


def _built(component: Component, opening: Opening, where: str) -> Any:
    module = build_module(component.config, where)
    load_into(module, component.state, where, dtype=opening.dtype, device=opening.device)
    return module


def _null(null: Tensor, opening: Opening, where: str) -> LearnedNull:
    if null.ndim != 2:
        raise CheckpointError(f"{where}: the text that says nothing has shape {tuple(null.shape)}, not (L, D)")
    module = LearnedNull(LearnedNullConfig(learnable=True, hidden_size=null.shape[1], length=null.shape[0]))
    load_into(module, {"embeddings": null}, where, dtype=opening.dtype, device=opening.device)
    return module.eval()


def _texts(place: Path, settings: ReleaseSettings, folder: Path | None, opening: Opening) -> Texts | None:
    """The reader of prompts: the given CLIP, its texts padded as the release pads them, with token 0."""
    pipeline = pipelines["VQDiffusionPipeline"]
    if settings.text_width is None:
        if folder is not None:
            raise SettingError(f"a text encoder is for prompts, and {place} reads none: leave text_encoder out")
        return None
    if folder is None:
        raise CheckpointError(
            f"{place} reads text with a CLIP whose tokenizer it does not hold: pass text_encoder=, a folder or hub id "
            "of that CLIP with its tokenizer; the release's is openai/clip-vit-base-patch32"
        )
    words, net = (folder / name if (folder / name).is_dir() else folder for name in (_TOKENIZER, _ENCODER))
    config = read_json(net / "config.json")
    weights = read_weights(net, "model")
    if config.get("architectures") == ["CLIPModel"]:  # with the half that reads pictures
        config = {**config.get("text_config", {}), "architectures": [_CLASS]}
        weights = {name: tensor for name, tensor in weights.items() if name.startswith("text_model.")}
    encoder = make_text_encoder(
        config,
        weights,
        padded_with(load_tokenizer(words), OPEN_CLIP_PAD),
        what=str(net),
        dtype=opening.dtype,
        device=opening.device,
    )
    if encoder.width != settings.text_width:
        raise CheckpointError(f"{place} reads texts {settings.text_width} wide, and {net} writes them {encoder.width}")
    assert pipeline.family is not None
    written = {_ENCODER: ("transformers", _CLASS), _TOKENIZER: ("transformers", "CLIPTokenizer")}
    return Texts(pipeline.family, {_ENCODER: encoder}, {_ENCODER: _TOKENIZER}, written)
