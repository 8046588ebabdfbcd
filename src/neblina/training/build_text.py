"""From a recipe, captioned pictures and a codec to an untrained model that makes latents of texts."""

from collections.abc import Callable, Sequence

import torch

from neblina.bundle.bundle import Bundle
from neblina.bundle.codec import load_codec
from neblina.bundle.index import Kept
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
from neblina.nets.network import Network
from neblina.nets.text_dit import TextDiT
from neblina.nets.text_dit_config import TextDiTConfig
from neblina.nets.unet_condition import UNetCondition
from neblina.nets.unet_condition_config import UNetConditionConfig
from neblina.processes.grids import make_grid
from neblina.processes.schedules import make_schedule
from neblina.samplers import samplers
from neblina.training.frozen import Reader
from neblina.training.joint import JointNetwork
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


def new_text_model(
    recipe: Recipe,
    pictures: Pictures,
    captions: Sequence[Caption],
    codec: KLCodec,
    size: tuple[int, int],
    reader: Reader | None = None,
) -> Bundle:
    """The untrained model that a recipe describes, weights drawn from its seed.

    Its network and its text encoder are one, unless the encoder is there already.

    Args:
        pictures: that it is trained on.
        captions: of every picture, which the tokenizer is learned from.
        codec: between pictures and latents.
        size: (height, width) of the latents.
        reader: of the captions, which stays as it is; None for a text encoder that is trained.
    Raises:
        SettingError: settings that mean nothing to it, an unknown name, or a network that does not fit the latents.
        DataError: captions that there is nothing to learn from.
    """
    refuse_unused(recipe, _UNUSED, "a model that reads text")
    if reader is not None:
        refuse_unused(recipe, {"text": OF_ENCODER}, "a model whose text encoder is trained already")
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
    texts = _new_texts(recipe, said) if reader is None else reader.texts
    (encoder,) = texts.encoders.values()
    check_tokenizer(encoder.tokenizer, said)
    name, build = _NETWORKS[recipe.network.kind]
    net = build(recipe, codec.channels, size, encoder.width).eval()
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
        pipeline=pipelines[name],
        own_codec=codec,
        text=texts,
        settings={"requires_safety_checker": False} if name == "StableDiffusionPipeline" else {},
        kept={part: Kept((None, None), None) for part in ("safety_checker", "feature_extractor")}
        if name == "StableDiffusionPipeline"
        else {},
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


def _unet(recipe: Recipe, channels: int, size: tuple[int, int], text: int) -> Network:
    refuse_unused(recipe, {"network": ("fold", "layers", "width", "patch")}, "a U-Net that reads text")
    net = recipe.network
    levels = range(len(net.channels))
    reads = [max(size) // 2**level <= net.attention for level in levels]
    if not any(reads):
        raise SettingError(
            f"network.attention = {net.attention} leaves no level of latents of {size[1]}x{size[0]} that reads the "
            f"text: set it to {max(size) // 2 ** max(levels)} or more"
        )
    heads = tuple(max(1, width // (net.head_dim or width)) for width in net.channels)
    return UNetCondition(
        UNetConditionConfig(
            sample_size=size[0] if size[0] == size[1] else size,
            in_channels=channels,
            out_channels=channels,
            down_block_types=tuple("CrossAttnDownBlock2D" if one else "DownBlock2D" for one in reads),
            up_block_types=tuple("CrossAttnUpBlock2D" if one else "UpBlock2D" for one in reads[::-1]),
            block_out_channels=net.channels,
            layers_per_block=net.blocks,
            dropout=net.dropout,
            cross_attention_dim=text,
            attention_head_dim=heads,
            norm_num_groups=net.groups,
            use_linear_projection=True,
            resnet_time_scale_shift="scale_shift" if net.scale_shift else "default",
        )
    )


def _dit(recipe: Recipe, channels: int, size: tuple[int, int], text: int) -> Network:
    unused = {"network": ("channels", "attention", "blocks", "groups", "fold", "scale_shift")}
    refuse_unused(recipe, unused, "a transformer that reads text")
    net = recipe.network
    if size[0] != size[1] or size[0] % net.patch:
        raise SettingError(
            f"network.patch = {net.patch} does not cut latents of {size[1]}x{size[0]} into a square of patches: set "
            "it to 1, or data.resolution to a size that it does"
        )
    head = net.head_dim or net.width
    if net.width % head:
        raise SettingError(f"network.width = {net.width} is not divided by network.head_dim = {head}")
    return TextDiT(
        TextDiTConfig(
            num_attention_heads=net.width // head,
            attention_head_dim=head,
            in_channels=channels,
            out_channels=channels,
            num_layers=net.layers,
            dropout=net.dropout,
            cross_attention_dim=net.width,
            caption_channels=text,
            sample_size=size[0],
            patch_size=net.patch,
            use_additional_conditions=False,
        )
    )


_NETWORKS: dict[str, tuple[str, Callable[[Recipe, int, tuple[int, int], int], Network]]] = {
    "unet": ("StableDiffusionPipeline", _unet),
    "dit": ("TextDiTPipeline", _dit),
}
