"""Suite 7 for the tiny autoencoder: every field of AutoencoderTiny's configuration is honoured, or refused by name."""

import inspect
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny as Theirs
from torch import Tensor

from neblina.codecs.tiny import TinyCodec
from neblina.core.errors import DivergenceError, SettingError
from neblina.nets.tiny_autoencoder import AutoencoderTiny, AutoencoderTinyConfig

SMALL: dict[str, Any] = {
    "encoder_block_out_channels": (8, 8, 8),
    "decoder_block_out_channels": (8, 8, 8),
    "num_encoder_blocks": (1, 2, 1),
    "num_decoder_blocks": (2, 1, 1),
}
HONOURED: dict[str, list[dict[str, Any]]] = {
    "in_channels": [{"in_channels": 1}],
    "out_channels": [{"out_channels": 4}],
    "encoder_block_out_channels": [{"encoder_block_out_channels": (12, 12, 12)}],
    "decoder_block_out_channels": [{"decoder_block_out_channels": (12, 12, 12)}],
    "act_fn": [{"act_fn": name} for name in ("gelu", "mish", "silu", "ReLU")],
    "upsample_fn": [{"upsample_fn": name} for name in ("bilinear", "bicubic", "nearest-exact", "area")],
    "latent_channels": [{"latent_channels": 3}],
    "upsampling_scaling_factor": [
        {"upsampling_scaling_factor": 4, "num_decoder_blocks": (2, 1), "decoder_block_out_channels": (8, 8)}
    ],
    "num_encoder_blocks": [{"num_encoder_blocks": (2, 1, 0)}],
    "num_decoder_blocks": [{"num_decoder_blocks": (0, 3, 1)}],
    "latent_magnitude": [{"latent_magnitude": 2}],
    "latent_shift": [{"latent_shift": 0.3}],
    "force_upcast": [{"force_upcast": True}],
    "scaling_factor": [{"scaling_factor": 0.3}],
    "shift_factor": [{"shift_factor": 0.2}],
}
SILENT = {"force_upcast"}  # diffusers sets it to false itself
REFUSED: dict[str, list[dict[str, Any]]] = {
    "encoder_block_out_channels": [
        {"encoder_block_out_channels": (8, 16, 8)},
        {"encoder_block_out_channels": (8, 8)},
    ],
    "decoder_block_out_channels": [{"decoder_block_out_channels": (8, 8, 16)}],
    "num_decoder_blocks": [{"num_decoder_blocks": (1, 1)}],
    "act_fn": [{"act_fn": "tanh"}],
    "upsample_fn": [{"upsample_fn": "linear"}, {"upsample_fn": "trilinear"}],
    "upsampling_scaling_factor": [{"upsampling_scaling_factor": 0}],
    "latent_magnitude": [{"latent_magnitude": 0}],
    "scaling_factor": [{"scaling_factor": 0.0}],
    "block_out_channels": [{"block_out_channels": (4, 4, 4)}],
}


def both(change: dict[str, Any]) -> tuple[Theirs, TinyCodec]:
    """diffusers' autoencoder of random weights, and ours of the same."""
    torch.manual_seed(0)
    theirs = Theirs(**{**SMALL, **change}).eval()
    net = AutoencoderTiny(AutoencoderTinyConfig.from_dict(dict(theirs.config))).eval()
    net.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(net.state_dict())
    return theirs, TinyCodec(net)


def outputs(theirs: Theirs, pictures: Tensor, latents: Tensor) -> dict[str, Tensor]:
    """What diffusers' autoencoder says, at the scale that StableDiffusion(3)Pipeline diffuses."""
    scale, shift = theirs.config.scaling_factor, theirs.config.shift_factor
    return {
        "encoded": (theirs.encode(pictures).latents - shift) * scale,
        "decoded": theirs.decode(latents / scale + shift).sample,
        "stored": theirs.scale_latents(latents),
        "read": theirs.unscale_latents(latents),
    }


def inputs(codec: TinyCodec) -> tuple[Tensor, Tensor]:
    """Three pictures of an odd number of cells, and latents that reach where they are squashed and clamped."""
    torch.manual_seed(1)
    pictures = torch.randn(3, codec.picture_channels, 5 * codec.factor, 7 * codec.factor)
    return pictures, 4 * torch.randn(3, codec.channels, 5, 7)


def close(ours: Tensor, theirs: Tensor) -> bool:
    return ours.shape == theirs.shape and float((ours - theirs).abs().max()) <= 1e-5


def test_every_field_of_diffusers_configuration_is_mutated_here() -> None:
    theirs = set(inspect.signature(Theirs.__init__).parameters) - {"self"}
    assert theirs == set(HONOURED)
    assert theirs | {"block_out_channels"} == set(AutoencoderTinyConfig.__dataclass_fields__)


@pytest.mark.parametrize("change", [{}, *(one for many in HONOURED.values() for one in many)], ids=str)
@torch.no_grad()
def test_equal_weights_give_equal_latents_and_pictures(change: dict[str, Any]) -> None:
    theirs, codec = both(change)
    pictures, latents = inputs(codec)
    expected = outputs(theirs, pictures, latents)
    assert close(codec.encode(pictures), expected["encoded"])
    assert close(codec.decode(latents), expected["decoded"])
    assert close(codec.net.to_unit(latents), expected["stored"])
    assert close(codec.net.from_unit(latents), expected["read"])
    assert torch.equal(codec.preview(latents), codec.decode(latents))


@pytest.mark.parametrize("field", sorted(set(HONOURED) - SILENT))
@torch.no_grad()
def test_the_mutations_matter(field: str) -> None:
    """A test of a field that changes nothing in diffusers would prove nothing."""
    theirs, codec = both({})
    changed, other = both(HONOURED[field][0])
    before, after = outputs(theirs, *inputs(codec)), outputs(changed, *inputs(other))
    assert any(
        before[name].shape != after[name].shape or not torch.allclose(before[name], after[name], atol=1e-3)
        for name in before
    )


@pytest.mark.parametrize("change", [one for many in REFUSED.values() for one in many], ids=str)
def test_what_cannot_be_honoured_is_refused_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=next(iter(change))):
        AutoencoderTinyConfig(**{**SMALL, **change})


def test_unknown_fields_are_refused_with_the_closest_name() -> None:
    with pytest.raises(SettingError, match="Did you mean upsample_fn"):
        AutoencoderTinyConfig.from_dict({"upsample_fun": 1})


def test_diffusers_opens_the_configuration_that_is_written() -> None:
    config = AutoencoderTinyConfig(**SMALL, scaling_factor=0.3, upsample_fn="bilinear")
    again = AutoencoderTinyConfig.from_dict(Theirs.from_config(config.to_dict()).config)
    assert again.to_dict() == config.to_dict()


def test_halves_that_do_not_undo_each_other_are_no_codec() -> None:
    net = AutoencoderTiny(AutoencoderTinyConfig(**SMALL, upsampling_scaling_factor=3))
    with pytest.raises(SettingError, match="upsampling_scaling_factor enlarge them 9 times"):
        TinyCodec(net)


@torch.no_grad()
def test_inputs_that_do_not_fit_are_refused() -> None:
    _, codec = both({})
    with pytest.raises(SettingError, match="multiples of 4, and 8x6 is none"):
        codec.encode(torch.zeros(1, 3, 6, 8))
    with pytest.raises(DivergenceError, match="was given values that are not finite"):
        codec.decode(torch.full((1, 4, 2, 2), torch.inf - torch.inf))
