"""Suite 7 for the KL autoencoder: every field of AutoencoderKL's configuration is honoured, or refused by name."""

import inspect
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL as Theirs
from torch import Tensor

from neblina.codecs.kl import KLCodec
from neblina.core.errors import DivergenceError, SettingError
from neblina.nets.autoencoder import AutoencoderKL, AutoencoderKLConfig

SMALL: dict[str, Any] = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownEncoderBlock2D", "DownEncoderBlock2D"),
    "up_block_types": ("UpDecoderBlock2D", "UpDecoderBlock2D"),
    "norm_num_groups": 4,
}
# mutations of every field; those in SILENT change nothing that float32 computes, in diffusers neither
HONOURED: dict[str, list[dict[str, Any]]] = {
    "in_channels": [{"in_channels": 1}],
    "out_channels": [{"out_channels": 4}],
    "down_block_types": [{"down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D")}],
    "up_block_types": [{"up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D")}],
    "block_out_channels": [
        {"block_out_channels": (16, 8)},
        {
            "block_out_channels": (8, 16, 12),
            "down_block_types": ("DownEncoderBlock2D",) * 3,
            "up_block_types": ("UpDecoderBlock2D",) * 3,
        },
    ],
    "layers_per_block": [{"layers_per_block": 2}],
    "act_fn": [{"act_fn": name} for name in ("mish", "gelu", "relu", "SiLU")],
    "latent_channels": [{"latent_channels": 3}],
    "norm_num_groups": [{"norm_num_groups": 2}],
    "sample_size": [{"sample_size": 64}],
    "scaling_factor": [{"scaling_factor": 0.13025}],
    "shift_factor": [{"shift_factor": 0.1159}],
    "latents_mean": [{"latents_mean": (-1.6, 2.1, 0.3, 0.0), "latents_std": (8.4, 6.6, 3.1, 0.5)}],
    "force_upcast": [{"force_upcast": False}],
    "use_quant_conv": [{"use_quant_conv": False}],
    "use_post_quant_conv": [{"use_post_quant_conv": False}],
    "mid_block_add_attention": [{"mid_block_add_attention": False}],
}
SILENT = {"sample_size", "force_upcast"}
REFUSED: dict[str, list[dict[str, Any]]] = {
    "down_block_types": [
        {"down_block_types": ("DownEncoderBlock2D", "DownBlock2D")},
        {"down_block_types": ("DownEncoderBlock2D",)},
    ],
    "up_block_types": [{"up_block_types": ("UpDecoderBlock2D", "UpBlock2D")}],
    "act_fn": [{"act_fn": "tanh"}],
    "norm_num_groups": [{"norm_num_groups": 3}],
    "scaling_factor": [{"scaling_factor": 0.0}],
    "latents_mean": [
        {"latents_mean": (0.0,) * 4},
        {"latents_mean": (0.0,) * 3, "latents_std": (1.0,) * 3},
        {"latents_mean": (0.5,) * 4, "latents_std": (1.0,) * 4, "shift_factor": 0.5},
    ],
    "latents_std": [{"latents_std": (1.0,) * 4}, {"latents_std": (0.0,) * 4, "latents_mean": (0.0,) * 4}],
}


def both(change: dict[str, Any]) -> tuple[Theirs, KLCodec]:
    """diffusers' autoencoder of random weights, and ours of the same."""
    torch.manual_seed(0)
    theirs = Theirs(**{**SMALL, **change}).eval()
    for parameter in theirs.parameters():  # diffusers starts biases and gains at 0 and 1, which would hide mistakes
        torch.nn.init.normal_(parameter, std=0.2)
    net = AutoencoderKL(AutoencoderKLConfig.from_dict(dict(theirs.config))).eval()
    net.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(net.state_dict())
    return theirs, KLCodec(net)


def as_their_pipelines_do(theirs: Theirs, z: Tensor, *, back: bool) -> Tensor:
    """To the diffused scale and back, as in StableDiffusion(XL|3)(Img2Img)Pipeline."""
    config = theirs.config
    if config.latents_mean is not None and config.latents_std is not None:
        mean = torch.tensor(config.latents_mean).view(1, -1, 1, 1)
        std = torch.tensor(config.latents_std).view(1, -1, 1, 1)
        return z * std / config.scaling_factor + mean if back else (z - mean) * config.scaling_factor / std
    shift = config.shift_factor or 0.0
    return z / config.scaling_factor + shift if back else (z - shift) * config.scaling_factor


def outputs(theirs: Theirs, pictures: Tensor, latents: Tensor, noise: Tensor) -> dict[str, Tensor]:
    """Everything diffusers' autoencoder says of the pictures and of the latents."""
    said = theirs.encode(pictures).latent_dist
    return {
        "mode": as_their_pipelines_do(theirs, said.mode(), back=False),
        "sample": as_their_pipelines_do(theirs, said.mean + said.std * noise, back=False),
        "decoded": theirs.decode(as_their_pipelines_do(theirs, latents, back=True)).sample,
    }


def close(ours: Tensor, theirs: Tensor) -> bool:
    return ours.shape == theirs.shape and float((ours - theirs).abs().max()) <= 1e-5 * max(
        1.0, float(theirs.abs().max())
    )


def inputs(codec: KLCodec) -> tuple[Tensor, Tensor, Tensor]:
    """Three pictures of an odd number of cells, and latents and noise of theirs."""
    torch.manual_seed(1)
    pictures = torch.randn(3, codec.picture_channels, 5 * codec.factor, 7 * codec.factor)
    latents, noise = torch.randn(2, 3, codec.channels, 5, 7)
    return pictures, latents, noise


def test_every_field_of_diffusers_configuration_is_mutated_here() -> None:
    theirs = set(inspect.signature(Theirs.__init__).parameters) - {"self"}
    assert theirs == set(HONOURED) | set(REFUSED) == set(AutoencoderKLConfig.__dataclass_fields__)


@pytest.mark.parametrize("change", [{}, *(one for many in HONOURED.values() for one in many)], ids=str)
@torch.no_grad()
def test_equal_weights_give_equal_latents_and_pictures(change: dict[str, Any]) -> None:
    theirs, codec = both(change)
    pictures, latents, noise = inputs(codec)
    expected = outputs(theirs, pictures, latents, noise)
    assert close(codec.encode(pictures), expected["mode"])
    assert close(codec.encode(pictures, noise), expected["sample"])
    assert close(codec.decode(latents), expected["decoded"])


@pytest.mark.parametrize("field", sorted(set(HONOURED) - SILENT))
@torch.no_grad()
def test_the_mutations_matter(field: str) -> None:
    """A test of a field that changes nothing in diffusers would prove nothing."""
    theirs, codec = both({})
    changed, other = both(HONOURED[field][0])
    before = outputs(theirs, *inputs(codec))
    after = outputs(changed, *inputs(other))
    assert any(
        before[name].shape != after[name].shape or not torch.allclose(before[name], after[name], atol=1e-3)
        for name in before
    )


@pytest.mark.parametrize("change", [one for many in REFUSED.values() for one in many], ids=str)
def test_what_cannot_be_honoured_is_refused_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=next(iter(change))):
        AutoencoderKLConfig(**{**SMALL, **change})


def test_unknown_fields_are_refused_with_the_closest_name() -> None:
    with pytest.raises(SettingError, match="Did you mean scaling_factor"):
        AutoencoderKLConfig.from_dict({"scaling_facto": 1})


def test_diffusers_opens_the_configuration_that_is_written() -> None:
    config = AutoencoderKLConfig(**{**SMALL, **HONOURED["latents_mean"][0], "act_fn": "mish"})
    assert AutoencoderKLConfig.from_dict(Theirs.from_config(config.to_dict()).config) == config
    assert AutoencoderKLConfig.from_dict(config.to_dict()) == config


@torch.no_grad()
def test_the_log_variance_is_clamped_as_in_diffusers() -> None:
    theirs, codec = both({})
    for moments in (theirs.quant_conv, codec.net.quant_conv):
        moments.bias[4:] += torch.tensor([-400.0, 30.0, 400.0, 0.0])
    expected = outputs(theirs, *inputs(codec))["sample"]
    pictures, _, noise = inputs(codec)
    assert close(codec.encode(pictures, noise), expected)


@torch.no_grad()
def test_what_is_decoded_is_what_was_encoded_at_any_scale() -> None:
    """Encoding with another scale and decoding with it is the same picture: the two directions are inverses."""
    _, plain = both({})
    _, scaled = both(HONOURED["latents_mean"][0])
    pictures, *_ = inputs(plain)
    assert torch.allclose(plain.decode(plain.encode(pictures)), scaled.decode(scaled.encode(pictures)), atol=1e-5)


@torch.no_grad()
def test_float16_that_must_be_upcast_runs_in_float32() -> None:
    theirs, codec = both({})
    halved = KLCodec(codec.net.half())
    theirs.half().float()  # rounds the weights once
    pictures, latents, noise = inputs(codec)
    expected = outputs(theirs, pictures, latents, noise)
    assert close(halved.decode(latents), expected["decoded"])
    assert close(halved.encode(pictures, noise), expected["sample"])
    assert next(halved.net.parameters()).dtype == torch.float16


@torch.no_grad()
def test_an_overflow_in_float16_says_what_to_do() -> None:
    _, codec = both({"force_upcast": False})
    codec.net.decoder.conv_out.weight *= 1e6
    assert bool(codec.decode(torch.ones(1, 4, 3, 3)).isfinite().all())
    codec.net.half()
    with pytest.raises(DivergenceError, match=r"float16 overflowed\. Run it in bfloat16 or float32"):
        codec.decode(torch.ones(1, 4, 3, 3))


@torch.no_grad()
def test_values_that_are_not_finite_are_not_the_autoencoders_fault() -> None:
    _, codec = both({})
    with pytest.raises(DivergenceError, match="was given values that are not finite"):
        codec.decode(torch.full((1, 4, 3, 3), torch.nan))


def test_inputs_that_do_not_fit_are_refused() -> None:
    _, codec = both({})
    with pytest.raises(SettingError, match="multiples of 2, and 9x8 is none"):
        codec.encode(torch.zeros(1, 3, 8, 9))
    with pytest.raises(SettingError, match=r"pictures of shape \(B, 3, height, width\), not \(1, 1, 8, 8\)"):
        codec.encode(torch.zeros(1, 1, 8, 8))
    with pytest.raises(SettingError, match=r"latents of shape \(B, 4, height, width\), not \(4, 4, 4\)"):
        codec.decode(torch.zeros(4, 4, 4))
    with pytest.raises(SettingError, match="noise of shape"):
        codec.encode(torch.zeros(1, 3, 8, 8), torch.zeros(1, 4, 2, 4))
    with pytest.raises(SettingError, match="tile = 7 pixels is too small"):
        replace(codec, tile=7)


@torch.no_grad()
def test_channels_last_changes_the_layout_and_not_the_numbers() -> None:
    _, codec = both({})
    pictures, latents, _ = inputs(codec)
    encoded, decoded = codec.encode(pictures), codec.decode(latents)
    codec.net.channels_last()
    assert close(codec.encode(pictures), encoded)
    assert close(codec.decode(latents), decoded)


@torch.no_grad()
def test_a_preview_is_the_picture_at_half_the_resolution() -> None:
    _, codec = both({})
    flat = torch.randn(1, 4, 1, 1).expand(1, 4, 5, 7)
    small = codec.preview(flat)
    assert small.shape == (1, 3, 6, 8)
    assert torch.equal(small, codec.decode(flat[..., :3, :4]))


def test_gradients_pass_through_both_halves() -> None:
    _, codec = both({})
    pictures, latents, _ = inputs(codec)
    for x, half in ((pictures, codec.encode), (latents, codec.decode)):
        x.requires_grad_()
        half(x).square().sum().backward()
        assert x.grad is not None
        assert float(x.grad.abs().max()) > 0
