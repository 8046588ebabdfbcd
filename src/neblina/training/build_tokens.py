"""From a recipe and its data to rows of tokens, and to an untrained model of them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neblina.bundle.codec import load_codec, weights_digest
from neblina.bundle.pipelines import pipelines
from neblina.bundle.tokens import TokenBundle, TokenSampling, scheduled_kernel
from neblina.codecs.levels import Levels
from neblina.codecs.vq import VQCodec
from neblina.core.errors import SettingError, choose
from neblina.data.pictures import Pictures, to_float
from neblina.data.tokens import Rows, Stacked
from neblina.nets.learned_null import LearnedNull, LearnedNullConfig
from neblina.processes.grids import token_grid
from neblina.processes.kernels import Kernel, kernels, make_kernel
from neblina.samplers import token_samplers
from neblina.training.frozen import Reader
from neblina.training.networks import new_token_network
from neblina.training.recipe import Recipe
from neblina.training.unused import EVERY, OF_ENCODER, OF_TEXT, Unused, refuse_unused

_UNUSED: Unused = {
    "process": EVERY,
    "objective": ("loss", "weighting", "settings", "vlb_weight", "smallest_time"),
    "sampling": EVERY,
    "training": ("snapshots_every",),
    **OF_TEXT,
}
_UNUSED_OF_TEXT: Unused = {
    "data": ("labels", "flip", "styles", "plain"),
    "text": ("encoder", *OF_ENCODER),
}
_AT_ONCE = 64  # pictures that are encoded together

TokenCodec = VQCodec | Levels


def open_codec(recipe: Recipe, folder: str | Path | None = None) -> TokenCodec:
    """What makes tokens of a recipe's pictures.

    Args:
        folder: of a trained codec; None for the one that the recipe names.
    Raises:
        SettingError: codes without a codec.
        CheckpointError: a codec that cannot be opened, or that has no codes.
    """
    if recipe.tokens.of == "levels":
        return Levels(recipe.tokens.levels)
    place = folder or recipe.tokens.codec
    if place is None:
        raise SettingError(
            "tokens.of: codes needs a codec: train one (neblina train mnist-vq), give its folder as tokens.codec, or "
            "name its recipe as tokens.codec_recipe"
        )
    codec = load_codec(place)
    if not isinstance(codec, VQCodec):
        raise SettingError(f"{place} is a codec of Gaussian latents, which has no codes: train one of codes")
    return codec


def tokens_of(pictures: Pictures, codec: TokenCodec, on_read: Callable[[int, int], None] | None = None) -> Stacked:
    """All pictures as tokens.

    Args:
        on_read: told how many are done, of how many.
    Raises:
        SettingError: pictures that the codec does not read.
    """
    classes = codec.count if isinstance(codec, Levels) else codec.net.config.num_vq_embeddings
    wanted = 1 if isinstance(codec, Levels) else codec.picture_channels
    if pictures.shape[0] != wanted:
        raise SettingError(f"the codec reads pictures of {wanted} channels, and these have {pictures.shape[0]}")
    parts: list[Tensor] = []
    small = torch.uint8 if classes <= 256 else torch.int32
    for start in range(0, len(pictures), _AT_ONCE):
        some = pictures.read(range(start, min(start + _AT_ONCE, len(pictures))))
        with torch.no_grad():
            parts.append(codec.codes(to_float(some)).to(small))
        if on_read is not None:
            on_read(start + len(some), len(pictures))
    return Stacked(torch.cat(parts), classes, pictures.labels, pictures.label_names)


def new_text_token_model(recipe: Recipe, rows: Rows, codec: TokenCodec | None, reader: Reader) -> TokenBundle:
    """The untrained model that a recipe describes for codes of captioned pictures.

    Args:
        reader: of the captions.
    Raises:
        SettingError: as `new_token_model`.
    """
    bundle = _new_bundle(recipe, rows, codec, {**_UNUSED, **_UNUSED_OF_TEXT}, text=reader.encoder.width)
    return replace(
        bundle,
        text=reader.texts,
        null=LearnedNull(LearnedNullConfig(learnable=False)),
        pipeline=pipelines["VQDiffusionPipeline"],
    )


def new_kernel(recipe: Recipe, classes: int, codec: TokenCodec | None) -> Kernel:
    """The kernel that a recipe describes.

    Raises:
        SettingError: an unknown name or setting.
    """
    chosen = recipe.tokens
    choose("kernel", chosen.kernel, kernels)
    settings: dict[str, Any] = dict(chosen.settings)
    if chosen.text is not None and chosen.kernel == "mask-and-replace" and not settings:
        published = {"num_vec_classes": classes + 1, "num_train_timesteps": chosen.steps}
        return scheduled_kernel(published, "the recipe")[0]
    if chosen.kernel == "nearest-neighbours":
        if not isinstance(codec, VQCodec):
            raise SettingError("the kernel nearest-neighbours moves codes to codes nearby: it needs tokens.of: codes")
        return make_kernel(chosen.kernel, embeddings=codec.net.quantize.embedding.weight.detach(), **settings)
    if chosen.kernel == "discretised-gaussian":
        settings.setdefault("steps", chosen.steps)
    return make_kernel(chosen.kernel, classes=classes, **settings)


def new_token_model(recipe: Recipe, rows: Rows, codec: TokenCodec | None) -> TokenBundle:
    """The untrained model that a recipe describes for these rows, weights drawn from its seed.

    Raises:
        SettingError: settings that mean nothing to it, an unknown name, or a number out of range.
    """
    return _new_bundle(recipe, rows, codec, {**_UNUSED, "tokens": ("text",)}, text=None)


def _new_bundle(
    recipe: Recipe, rows: Rows, codec: TokenCodec | None, unused: Unused, *, text: int | None
) -> TokenBundle:
    refuse_unused(recipe, unused, "a model of tokens")
    chosen = recipe.tokens
    kernel = new_kernel(recipe, rows.classes, codec)
    if kernel.steps not in (None, chosen.steps):
        raise SettingError(f"tokens.steps is {chosen.steps}, and the kernel has {kernel.steps} steps: make them equal")
    classes = len(rows.label_names) if recipe.data.labels and rows.labels is not None and text is None else 0
    hidden = classes > 0 and recipe.training.label_dropout > 0
    guided = hidden or (text is not None and recipe.training.label_dropout > 0)
    token_samplers[chosen.sampler]
    token_grid(chosen.evaluations, chosen.steps)
    torch.manual_seed(recipe.training.seed % 2**63)
    return TokenBundle(
        new_token_network(recipe, rows, classes + hidden if classes else 0, text),
        kernel,
        chosen.steps,
        codec,
        rows.alphabet,
        rows.label_names if classes else (),
        classes if hidden else None,
        sampling=TokenSampling(chosen.sampler, chosen.evaluations, chosen.guidance if guided else 1.0),
        codec_digest=weights_digest(codec.net) if isinstance(codec, VQCodec) else None,
    )
