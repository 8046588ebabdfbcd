"""From a recipe and pictures to an untrained autoencoder and its discriminator."""

import torch

from neblina.core.errors import SettingError
from neblina.data.pictures import Pictures
from neblina.nets.autoencoder import AutoencoderKL, AutoencoderKLConfig
from neblina.nets.patch_discriminator import PatchConfig, PatchDiscriminator
from neblina.nets.vq_autoencoder import VQAutoencoder, VQConfig
from neblina.training.recipe import Recipe
from neblina.training.unused import EVERY, OF_TEXT, PATCHES, Unused, refuse_unused

# settings that other recipes have and a codec does not look at
_UNUSED: Unused = {
    "process": EVERY,
    "objective": EVERY,
    "sampling": EVERY,
    "network": ("dropout", "head_dim", "fold", "scale_shift", *PATCHES),
    "training": ("label_dropout", "snapshots_every"),
    **OF_TEXT,
}


def new_autoencoder(recipe: Recipe, pictures: Pictures) -> VQAutoencoder | AutoencoderKL:
    """The untrained autoencoder that a recipe describes for these pictures, weights drawn from its seed.

    Raises:
        SettingError: settings that mean nothing to it, levels that do not fit the pictures, or a codebook of one code.
    """
    _check_unused(recipe)
    net, chosen = recipe.network, recipe.codec
    channels, height, width = pictures.shape
    factor = 2 ** (len(net.channels) - 1)
    if height % factor or width % factor:
        raise SettingError(
            f"network.channels has {len(net.channels)} levels, so a latent cell is {factor} pixels wide, and pictures "
            f"of {width}x{height} are no multiple of that: set data.resolution to one, or give fewer levels"
        )
    attend = [max(height, width) // 2**level <= net.attention for level in range(len(net.channels))]
    shared = {
        "in_channels": channels,
        "out_channels": channels,
        "down_block_types": tuple("AttnDownEncoderBlock2D" if one else "DownEncoderBlock2D" for one in attend),
        "up_block_types": tuple("AttnUpDecoderBlock2D" if one else "UpDecoderBlock2D" for one in attend[::-1]),
        "block_out_channels": net.channels,
        "layers_per_block": net.blocks,
        "latent_channels": chosen.channels,
        "norm_num_groups": net.groups,
        "sample_size": height if height == width else (height, width),
        "mid_block_add_attention": attend[-1],
        "scaling_factor": 1.0,  # measured at the end
    }
    if chosen.latents == "gaussian":
        config = AutoencoderKLConfig.from_dict(shared)
        torch.manual_seed(recipe.training.seed % 2**63)
        return AutoencoderKL(config).eval()
    if chosen.entries < 2:
        raise SettingError(
            f"codec.entries = {chosen.entries}: a codebook of one code says nothing of a picture; give 2 or more"
        )
    book = VQConfig.from_dict({**shared, "num_vq_embeddings": chosen.entries})
    torch.manual_seed(recipe.training.seed % 2**63)
    return VQAutoencoder(book).eval()


def new_discriminator(recipe: Recipe, pictures: Pictures) -> PatchDiscriminator | None:
    """The untrained discriminator that a recipe describes, None where it wants none; weights drawn from its seed.

    Raises:
        SettingError: patches larger than the pictures, or a start that never comes.
    """
    chosen = recipe.discriminator
    if not chosen.layers:
        return None
    channels, height, width = pictures.shape
    config = PatchConfig(channels, chosen.channels, chosen.layers)
    if config.patch > min(height, width):
        fewer = range(1, chosen.layers)
        fitting = [layers for layers in fewer if PatchConfig(layers=layers).patch <= min(height, width)]
        instead = f"set it to {fitting[-1]}" if fitting else "leave the discriminator out (0)"
        raise SettingError(
            f"discriminator.layers = {chosen.layers} looks at patches of {config.patch} pixels, which pictures of "
            f"{width}x{height} do not have: {instead}"
        )
    if chosen.start >= recipe.steps:
        raise SettingError(
            f"discriminator.start = {chosen.start} never comes in a run of {recipe.steps} steps: lower it, raise "
            "training.images, or leave the discriminator out (discriminator.layers 0)"
        )
    torch.manual_seed((recipe.training.seed + 1) % 2**63)
    return PatchDiscriminator(config)


def _check_unused(recipe: Recipe) -> None:
    """Refuse settings that would change nothing.

    Raises:
        SettingError: naming all of them.
    """
    codes = recipe.codec.latents == "codes"
    refuse_unused(recipe, _UNUSED, "a codec")
    if codes:
        refuse_unused(recipe, {"codec": ("kl",)}, "a codec of codes")
    else:
        unused = ("entries", "codebook", "decay", "commitment", "revive")
        refuse_unused(recipe, {"codec": unused}, "a codec of Gaussian latents")
    if codes and recipe.codec.codebook == "gradient":
        refuse_unused(recipe, {"codec": ("decay",)}, "a codebook that follows the gradient")
    if recipe.reconstruction.perceptual is None:
        refuse_unused(recipe, {"reconstruction": ("perceptual_weight",)}, "a loss without reconstruction.perceptual")
    if not recipe.discriminator.layers:
        refuse_unused(recipe, {"discriminator": EVERY}, "a codec without a discriminator (discriminator.layers 0)")
