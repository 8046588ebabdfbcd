"""From a recipe to the networks that it describes, untrained."""

from collections.abc import Callable
from typing import TypedDict

from neblina.core.errors import SettingError
from neblina.data.tokens import Rows
from neblina.nets.network import Network as Denoising
from neblina.nets.network import TokenNetwork
from neblina.nets.pixel_unet import READ, PixelUNet, PixelUNetConfig, said
from neblina.nets.text_dit import TextDiT
from neblina.nets.text_dit_config import TextDiTConfig
from neblina.nets.token_config import SequenceTransformerConfig, TokenTransformerConfig
from neblina.nets.token_transformer import TokenTransformer
from neblina.nets.unet import UNetConfig
from neblina.nets.unet_condition import UNetCondition
from neblina.nets.unet_condition_config import UNetConditionConfig
from neblina.training.recipe import Network, Recipe
from neblina.training.unused import EVERY, PATCHES, refuse_unused


def unet_config(net: Network, size: tuple[int, int], *, read: int, made: int, labels: int) -> UNetConfig:
    """The configuration of the U-Net of a recipe.

    Args:
        size: height and width that it is for.
        read, made: channels in and out.
        labels: rows of its class embedding, the null's included; 0 for none.
    Raises:
        SettingError: a network that does not fit the size.
    """
    return UNetConfig(
        sample_size=size[0] if size[0] == size[1] else size,
        in_channels=read,
        out_channels=made,
        **_blocks(_attended(net, size), "Attn"),
        block_out_channels=net.channels,
        layers_per_block=net.blocks,
        dropout=net.dropout,
        attention_head_dim=net.head_dim,
        norm_num_groups=net.groups,
        resnet_time_scale_shift="scale_shift" if net.scale_shift else "default",
        num_class_embeds=labels or None,
    )


def _attended(net: Network, size: tuple[int, int]) -> list[bool]:
    """Which levels attend, from the full resolution down."""
    return [max(size) // 2**level <= net.attention for level in range(len(net.channels))]


class _Blocks(TypedDict):
    down_block_types: tuple[str, ...]
    up_block_types: tuple[str, ...]


def _blocks(attended: list[bool], kind: str) -> _Blocks:
    """The names of the blocks down and up, of those that attend with their kind in front."""
    return {
        "down_block_types": tuple(f"{kind}DownBlock2D" if one else "DownBlock2D" for one in attended),
        "up_block_types": tuple(f"{kind}UpBlock2D" if one else "UpBlock2D" for one in attended[::-1]),
    }


def new_text_network(recipe: Recipe, channels: int, size: tuple[int, int], text: int) -> Denoising:
    """The network that denoises latents and reads a text.

    Args:
        channels, size: of the latents, height before width.
        text: width of the text's vectors.
    Raises:
        SettingError: settings that mean nothing to it, or that do not fit the latents.
    """
    return _READING[recipe.network.kind](recipe, channels, size, text).eval()


def _text_unet(recipe: Recipe, channels: int, size: tuple[int, int], text: int) -> Denoising:
    refuse_unused(recipe, {"network": ("fold", "layers", "width", "patch")}, "a U-Net that reads text")
    net = recipe.network
    reads = _attended(net, size)
    if not any(reads):
        raise SettingError(
            f"network.attention = {net.attention} leaves no level of latents of {size[1]}x{size[0]} that reads the "
            f"text: set it to {max(size) // 2 ** (len(net.channels) - 1)} or more"
        )
    heads = tuple(max(1, width // (net.head_dim or width)) for width in net.channels)
    return UNetCondition(
        UNetConditionConfig(
            sample_size=size[0] if size[0] == size[1] else size,
            in_channels=channels,
            out_channels=channels,
            **_blocks(reads, "CrossAttn"),
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


def _text_dit(recipe: Recipe, channels: int, size: tuple[int, int], text: int) -> Denoising:
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


_READING: dict[str, Callable[[Recipe, int, tuple[int, int], int], Denoising]] = {"unet": _text_unet, "dit": _text_dit}


def new_token_network(recipe: Recipe, rows: Rows, labels: int, text: int | None = None) -> TokenNetwork:
    """The network that denoises tokens.

    Args:
        labels: as of `unet_config`.
        text: width of the vectors of a text that it reads, None for one that reads none.
    Raises:
        SettingError: settings that mean nothing to it, or that do not fit the rows.
    """
    if text is not None:
        return _reader(recipe, rows, text).eval()
    return _NETWORKS[recipe.tokens.net](recipe, rows, labels).eval()


def _transformer(recipe: Recipe, rows: Rows, labels: int) -> TokenNetwork:
    refuse_unused(recipe, {"network": EVERY, "tokens": ("says",)}, "a transformer over tokens")
    chosen = recipe.tokens
    return TokenTransformer(
        SequenceTransformerConfig(
            num_vector_embeds=rows.classes + 1,
            sample_size=rows.shape[0] if len(rows.shape) == 1 else (rows.shape[0], rows.shape[1]),
            num_attention_heads=chosen.width // chosen.head,
            attention_head_dim=chosen.head,
            num_layers=chosen.layers,
            dropout=chosen.dropout,
            num_embeds_ada_norm=chosen.steps,
            num_class_embeds=labels or None,
        )
    )


def _reader(recipe: Recipe, rows: Rows, text: int) -> TokenNetwork:
    """VQ-Diffusion's transformer, as diffusers has it."""
    refuse_unused(recipe, {"network": EVERY, "tokens": ("says", "net")}, "a transformer over tokens that reads text")
    chosen, (height, width) = recipe.tokens, rows.shape
    if height != width:
        raise SettingError(
            f"a model of codes that reads text makes squares, and these are {height}x{width} codes: set data.resolution"
        )
    return TokenTransformer(
        TokenTransformerConfig(
            num_vector_embeds=rows.classes + 1,
            sample_size=height,
            num_attention_heads=chosen.width // chosen.head,
            attention_head_dim=chosen.head,
            num_layers=chosen.layers,
            dropout=chosen.dropout,
            cross_attention_dim=text,
            attention_bias=True,
            num_embeds_ada_norm=chosen.steps,
        )
    )


def _unet(recipe: Recipe, rows: Rows, labels: int) -> TokenNetwork:
    unused = {"network": ("fold", *PATCHES), "tokens": ("layers", "width", "head", "dropout")}
    refuse_unused(recipe, unused, "a U-Net over levels")
    if recipe.tokens.of != "levels":
        raise SettingError(
            f"tokens.net: unet reads levels of pixels as numbers, and {recipe.tokens.of} are none: take the transformer"
        )
    logistic = recipe.tokens.says == "logistic"
    size, made = (rows.shape[0], rows.shape[1]), said(rows.classes, logistic)
    config = unet_config(recipe.network, size, read=READ, made=made, labels=labels)
    return PixelUNet(PixelUNetConfig(config, rows.classes, logistic))


_NETWORKS: dict[str, Callable[[Recipe, Rows, int], TokenNetwork]] = {"transformer": _transformer, "unet": _unet}
