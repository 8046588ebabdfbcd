"""From a recipe, captioned pictures and a codec to an untrained model that makes latents of texts."""

from collections.abc import Sequence

import torch

from neblina.bundle.bundle import Bundle
from neblina.bundle.codec import load_codec
from neblina.bundle.pipelines import pipelines
from neblina.bundle.schedulers import Sampling
from neblina.bundle.texts import Texts
from neblina.codecs.kl import KLCodec
from neblina.core.errors import SettingError
from neblina.data.captions import Caption, words_of
from neblina.data.pictures import Pictures, inventory
from neblina.denoisers.parameterisations import check_end
from neblina.encoders.families import STABLE_DIFFUSION
from neblina.encoders.learning import check_tokenizer, learn_tokenizer, new_text_encoder
from neblina.processes.grids import make_grid
from neblina.processes.schedules import make_schedule
from neblina.samplers import samplers
from neblina.training.draft import check_draft
from neblina.training.frozen import Reader
from neblina.training.joint import JointNetwork
from neblina.training.networks import new_text_network
from neblina.training.recipe import Recipe
from neblina.training.unused import EVERY, OF_ENCODER, Unused, refuse_unused

_UNUSED: Unused = {
    "codec": EVERY,
    "reconstruction": EVERY,
    "discriminator": EVERY,
    "tokens": EVERY,
    "data": ("labels", "flip"),
    "objective": ("loss", "vlb_weight"),
    "training": ("snapshots_every",),
}
_READER = ("text_encoder", "tokenizer")
_PIPELINES = {"unet": "StableDiffusionPipeline", "dit": "TextDiTPipeline"}  # of network.kind


def new_text_model(
    recipe: Recipe,
    pictures: Pictures,
    captions: Sequence[Caption],
    codec: KLCodec,
    size: tuple[int, int],
    reader: Reader | None = None,
    *,
    drafted: Texts | None = None,
) -> Bundle:
    """The untrained model that a recipe describes, weights drawn from its seed.

    Its network and its text encoder are one, unless the encoder is there already.

    Args:
        pictures: that it is trained on.
        captions: of every picture, which the tokenizer is learned from.
        codec: between pictures and latents.
        size: (height, width) of the latents.
        reader: of the captions, which stays as it is; None for a text encoder that is trained.
        drafted: such a one, where it learned something before; None for a random one.
    Raises:
        SettingError: settings that mean nothing to it, an unknown name, or a network that does not fit the latents.
        DataError: captions that there is nothing to learn from.
    """
    refuse_unused(recipe, _UNUSED, "a model that reads text")
    if reader is not None:
        refuse_unused(recipe, {"text": OF_ENCODER, "draft": EVERY}, "a model whose text encoder is trained already")
    if recipe.draft.images:
        check_draft(recipe, size)
    schedule = make_schedule(recipe.process.schedule, **recipe.process.settings)
    check_end(recipe.process.parameterisation, recipe.process.clock, schedule)
    sampler = samplers[recipe.sampling.sampler]
    make_grid(recipe.sampling.grid or sampler.grid, schedule, recipe.sampling.steps)
    if recipe.sampling.guidance != 1 and recipe.training.label_dropout == 0:
        raise SettingError(
            f"sampling.guidance {recipe.sampling.guidance:g} needs training.label_dropout > 0, so that the model "
            "learns the empty prompt; set it to 1"
        )
    said = [part for caption in captions for part in caption.everything()] + list(recipe.data.styles)
    torch.manual_seed(recipe.training.seed % 2**63)
    texts = drafted or (_new_texts(recipe, said) if reader is None else reader.texts)
    (encoder,) = texts.encoders.values()
    check_tokenizer(encoder.tokenizer, said)
    net = new_text_network(recipe, codec.channels, size, encoder.width)
    pipeline = pipelines[_PIPELINES[recipe.network.kind]]
    return Bundle(
        net if reader is not None else JointNetwork(net, encoder),
        schedule,
        recipe.process.parameterisation,
        recipe.process.clock,
        sampling=Sampling(**recipe.sampling.model_dump()),
        card={
            "recipe": recipe.model_dump(mode="json"),
            "trained_on": inventory(pictures),
            "words": sorted({word for text in said for word in words_of(text)}),
        },
        pipeline=pipeline,
        own_codec=codec,
        text=texts,
        settings=dict.fromkeys(pipeline.settings, False),
    )


def open_latents(recipe: Recipe) -> KLCodec:
    """The codec whose latents a recipe's model makes.

    Raises:
        CheckpointError: it cannot be opened.
        SettingError: it has no Gaussian latents.
    """
    place = str(recipe.latents.codec)
    codec = load_codec(place)
    if not isinstance(codec, KLCodec):
        raise SettingError(
            f"{place} is a codec of codes, and latents.codec wants one of Gaussian latents: train one "
            "(neblina train emoji-codec)"
        )
    return codec


def _new_texts(recipe: Recipe, said: list[str]) -> Texts:
    """An untrained text encoder, and a tokenizer that is learned from what the captions say."""
    chosen, (name, words) = recipe.text, _READER
    tokenizer = learn_tokenizer(said, chosen.tokens, chosen.window)
    encoder = new_text_encoder(tokenizer, width=chosen.width, layers=chosen.layers, heads=chosen.heads)
    written = {name: ("transformers", "CLIPTextModel"), words: ("transformers", "CLIPTokenizer")}
    return Texts(STABLE_DIFFUSION, {name: encoder}, {name: words}, written)
