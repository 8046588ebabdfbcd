"""Suite 7 for the vector-quantised autoencoder: every field of VQModel's configuration is honoured, or refused by
name."""

import inspect
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import VQModel as Theirs
from torch import Tensor

from neblina.codecs.vq import VQCodec
from neblina.core.errors import SettingError
from neblina.nets.vq_autoencoder import VQAutoencoder, VQConfig

SMALL: dict[str, Any] = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownEncoderBlock2D", "DownEncoderBlock2D"),
    "up_block_types": ("UpDecoderBlock2D", "UpDecoderBlock2D"),
    "norm_num_groups": 4,
    "num_vq_embeddings": 32,
}
HONOURED: dict[str, list[dict[str, Any]]] = {
    "in_channels": [{"in_channels": 1}],
    "out_channels": [{"out_channels": 4}],
    "down_block_types": [{"down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D")}],
    "up_block_types": [{"up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D")}],
    "block_out_channels": [{"block_out_channels": (16, 8)}],
    "layers_per_block": [{"layers_per_block": 2}],
    "act_fn": [{"act_fn": name} for name in ("mish", "gelu", "relu", "SiLU")],
    "latent_channels": [{"latent_channels": 5}],
    "sample_size": [{"sample_size": 64}],
    "num_vq_embeddings": [{"num_vq_embeddings": 7}],
    "norm_num_groups": [{"norm_num_groups": 2}],
    "vq_embed_dim": [{"vq_embed_dim": 6}],
    "scaling_factor": [{"scaling_factor": 1.0}],
    "mid_block_add_attention": [{"mid_block_add_attention": False}],
    "lookup_from_codebook": [{"lookup_from_codebook": True}],
    "force_upcast": [{"force_upcast": True}],
}
# change nothing that diffusers computes in float32; of the look-up there is a test of its own
SILENT = {"sample_size", "force_upcast", "lookup_from_codebook"}
REFUSED: dict[str, list[dict[str, Any]]] = {
    "norm_type": [{"norm_type": "spatial"}],
    "down_block_types": [{"down_block_types": ("DownEncoderBlock2D", "DownBlock2D")}],
    "up_block_types": [{"up_block_types": ("UpDecoderBlock2D",)}],
    "act_fn": [{"act_fn": "tanh"}],
    "norm_num_groups": [{"norm_num_groups": 3}],
    "scaling_factor": [{"scaling_factor": -1.0}],
    "num_vq_embeddings": [{"num_vq_embeddings": 0}],
}


def both(change: dict[str, Any]) -> tuple[Theirs, VQCodec]:
    """diffusers' autoencoder of random weights, and ours of the same."""
    torch.manual_seed(0)
    theirs = Theirs(**{**SMALL, **change}).eval()
    for parameter in theirs.parameters():  # diffusers starts biases and gains at 0 and 1, which would hide mistakes
        torch.nn.init.normal_(parameter, std=0.2)
    net = VQAutoencoder(VQConfig.from_dict(dict(theirs.config))).eval()
    net.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(net.state_dict())
    return theirs, VQCodec(net)


def outputs(theirs: Theirs, pictures: Tensor, latents: Tensor) -> dict[str, Tensor]:
    """What diffusers' autoencoder says, at the scale that LDMTextToImagePipeline diffuses."""
    scale = theirs.config.scaling_factor
    found = {
        "encoded": theirs.encode(pictures).latents * scale,
        "decoded": theirs.decode(latents / scale).sample,
    }
    if not theirs.config.lookup_from_codebook:
        found["not quantised"] = theirs.decode(latents / scale, force_not_quantize=True).sample
    return found


def inputs(codec: VQCodec) -> tuple[Tensor, Tensor]:
    """Three pictures of an odd number of cells, and latents of theirs."""
    torch.manual_seed(1)
    pictures = torch.randn(3, codec.picture_channels, 5 * codec.factor, 7 * codec.factor)
    return pictures, torch.randn(3, codec.channels, 5, 7)


def close(ours: Tensor, theirs: Tensor) -> bool:
    return ours.shape == theirs.shape and float((ours - theirs).abs().max()) <= 1e-5 * max(
        1.0, float(theirs.abs().max())
    )


def test_every_field_of_diffusers_configuration_is_mutated_here() -> None:
    theirs = set(inspect.signature(Theirs.__init__).parameters) - {"self"}
    assert theirs == set(HONOURED) | set(REFUSED) == set(VQConfig.__dataclass_fields__)


@pytest.mark.parametrize("change", [{}, *(one for many in HONOURED.values() for one in many)], ids=str)
@torch.no_grad()
def test_equal_weights_give_equal_latents_and_pictures(change: dict[str, Any]) -> None:
    theirs, codec = both(change)
    pictures, latents = inputs(codec)
    expected = outputs(theirs, pictures, latents)
    assert close(codec.encode(pictures), expected["encoded"])
    assert close(codec.decode(latents), expected["decoded"])
    if "not quantised" in expected:
        assert close(VQCodec(codec.net, quantise=False).decode(latents), expected["not quantised"])
        assert not torch.allclose(expected["not quantised"], expected["decoded"], atol=1e-3)


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
        VQConfig(**{**SMALL, **change})


def test_unknown_fields_are_refused_with_the_closest_name() -> None:
    with pytest.raises(SettingError, match="Did you mean vq_embed_dim"):
        VQConfig.from_dict({"vq_embedd_dim": 1})


def test_diffusers_opens_the_configuration_that_is_written() -> None:
    config = VQConfig(**SMALL, vq_embed_dim=6, mid_block_add_attention=False, act_fn="mish")
    assert VQConfig.from_dict(Theirs.from_config(config.to_dict()).config) == config


@torch.no_grad()
def test_the_pipeline_that_enlarges_diffuses_latents_as_they_are() -> None:
    """LDMSuperResolutionPipeline decodes what its network made without dividing by the scaling factor."""
    theirs, codec = both({})
    pictures, latents = inputs(codec)
    plain = replace(codec, scaled=False)
    assert close(plain.decode(latents), theirs.decode(latents).sample)
    assert close(plain.encode(pictures), theirs.encode(pictures).latents)


@torch.no_grad()
def test_numbers_of_codes_decode_as_diffusers_looks_them_up() -> None:
    theirs, codec = both({"lookup_from_codebook": True})
    codes = torch.randint(32, (2, 5, 7))
    expected = theirs.decode(codes, force_not_quantize=True, shape=(2, 5, 7, 3)).sample
    assert close(codec.decode_codes(codes), expected)
    with pytest.raises(SettingError, match="use decode_codes"):
        VQCodec(codec.net, quantise=False)


@torch.no_grad()
def test_codes_of_pictures_are_the_ones_diffusers_finds() -> None:
    theirs, codec = both({})
    pictures, _ = inputs(codec)
    _, _, (_, _, found) = theirs.quantize(theirs.encode(pictures).latents)
    codes = codec.codes(pictures)
    assert torch.equal(codes.flatten(), found)
    assert len(codes.unique()) > 1
    assert torch.allclose(codec.decode_codes(codes), codec.decode(codec.encode(pictures)), atol=1e-5)


@torch.no_grad()
def test_more_latents_than_are_compared_at_once_find_the_same_codes() -> None:
    theirs, codec = both({})
    latents = torch.randn(2, 3, 50, 61)
    _, _, (_, _, found) = theirs.quantize(latents)
    assert torch.equal(codec.net.quantize.nearest(latents).flatten(), found)


def test_codes_that_there_are_not_are_refused() -> None:
    _, codec = both({})
    with pytest.raises(SettingError, match="code 32 is not in a codebook of 0 … 31"):
        codec.decode_codes(torch.tensor([[[3, 32]]]))
    with pytest.raises(SettingError, match=r"shape \(B, height, width\), not \(4,\)"):
        codec.decode_codes(torch.zeros(4, dtype=torch.long))
    with pytest.raises(SettingError, match="multiples of 2"):
        codec.encode(torch.zeros(1, 3, 7, 8))


@torch.no_grad()
def test_float16_that_must_be_upcast_runs_in_float32() -> None:
    theirs, codec = both({"force_upcast": True})
    codec.net.half()
    theirs.half().float()  # rounds the weights once
    pictures, latents = inputs(codec)
    expected = outputs(theirs, pictures, latents)
    assert close(codec.decode(latents), expected["decoded"])
    assert close(codec.encode(pictures), expected["encoded"])


def test_the_gradient_passes_the_codebook() -> None:
    _, codec = both({})
    _, latents = inputs(codec)
    codec.decode(latents.requires_grad_()).square().sum().backward()
    assert latents.grad is not None
    assert float(latents.grad.abs().max()) > 0


@torch.no_grad()
def test_a_preview_is_the_picture_at_half_the_resolution() -> None:
    _, codec = both({})
    flat = torch.randn(1, 3, 1, 1).expand(1, 3, 4, 6)
    assert torch.equal(codec.preview(flat), codec.decode(flat[..., :2, :3]))
