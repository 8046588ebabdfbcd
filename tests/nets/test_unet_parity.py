"""Suite 7 for the network: every field of UNet2DModel's configuration is honoured, or refused by name."""

import inspect
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel
from models import CONFIG

from neblina.core.errors import SettingError
from neblina.nets.unet import UNet, UNetConfig

SMALL: dict[str, Any] = {**CONFIG, "in_channels": 2, "out_channels": 2}
# one mutation or more of every field; None marks a mutation that must be refused
HONOURED: dict[str, list[dict[str, Any]]] = {
    "sample_size": [{"sample_size": (8, 16)}, {"sample_size": None}],
    "in_channels": [{"in_channels": 3}],
    "out_channels": [{"out_channels": 4}],
    "center_input_sample": [{"center_input_sample": True}],
    "time_embedding_type": [
        {"time_embedding_type": "fourier"},
        {"time_embedding_type": "learned", "num_train_timesteps": 1000},
    ],
    "num_train_timesteps": [{"num_train_timesteps": 500, "time_embedding_type": "learned"}],
    "time_embedding_dim": [{"time_embedding_dim": 24}],
    "freq_shift": [{"freq_shift": 1}],
    "flip_sin_to_cos": [{"flip_sin_to_cos": False}],
    "down_block_types": [
        {"down_block_types": ("AttnDownBlock2D", "DownBlock2D")},
        {"down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D")},
    ],
    "mid_block_type": [{"mid_block_type": None}],
    "up_block_types": [
        {"up_block_types": ("UpBlock2D", "AttnUpBlock2D")},
        {"up_block_types": ("ResnetUpsampleBlock2D", "UpBlock2D")},
    ],
    "block_out_channels": [{"block_out_channels": (24, 48), "attention_head_dim": 12}],
    "layers_per_block": [{"layers_per_block": 1}, {"layers_per_block": 3}],
    "mid_block_scale_factor": [{"mid_block_scale_factor": 1.7}],
    "downsample_padding": [{"downsample_padding": 0}],
    "downsample_type": [{"downsample_type": "resnet", "down_block_types": ("AttnDownBlock2D", "DownBlock2D")}],
    "upsample_type": [
        {"upsample_type": "resnet"},
        {"upsample_type": "resnet", "resnet_time_scale_shift": "scale_shift"},
    ],
    "dropout": [{"dropout": 0.3}],
    "act_fn": [{"act_fn": name} for name in ("swish", "mish", "gelu", "relu", "SiLU")],
    "attention_head_dim": [{"attention_head_dim": 16}, {"attention_head_dim": None}],
    "norm_num_groups": [{"norm_num_groups": 4}],
    "attn_norm_num_groups": [{"attn_norm_num_groups": 2}],
    "norm_eps": [{"norm_eps": 0.1}],
    "resnet_time_scale_shift": [
        {"resnet_time_scale_shift": "scale_shift"},
        {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 4},
    ],
    "add_attention": [{"add_attention": False}],
    "class_embed_type": [
        {"class_embed_type": "timestep"},
        {"class_embed_type": "timestep", "time_embedding_type": "fourier"},
        {"class_embed_type": "identity"},
    ],
    "num_class_embeds": [{"num_class_embeds": 5}],
}
REFUSED: dict[str, list[dict[str, Any]]] = {
    "downsample_type": [{"downsample_type": "mean"}],
    "upsample_type": [{"upsample_type": "mean"}],
    "class_embed_type": [{"class_embed_type": "projection"}],
    "resnet_time_scale_shift": [{"resnet_time_scale_shift": "spatial"}],
    "time_embedding_type": [{"time_embedding_type": "sinusoid"}, {"time_embedding_type": "learned"}],
    "down_block_types": [
        {"down_block_types": ("DownBlock2D", "SkipDownBlock2D")},
        {"down_block_types": ("DownBlock2D",)},
    ],
    "up_block_types": [{"up_block_types": ("UpBlock2D", "KUpBlock2D")}],
    "mid_block_type": [{"mid_block_type": "UNetMidBlock2DCrossAttn"}],
    "act_fn": [{"act_fn": "tanh"}],
    "norm_num_groups": [{"norm_num_groups": 5}],
    "attention_head_dim": [{"attention_head_dim": 64}],
    "sample_size": [{"sample_size": 9}, {"sample_size": (8, 3)}],
}


def test_every_field_of_diffusers_configuration_is_mutated_here() -> None:
    theirs = set(inspect.signature(UNet2DModel.__init__).parameters) - {"self"}
    assert theirs == set(HONOURED) | set(REFUSED)
    assert theirs == set(UNetConfig.__dataclass_fields__)


@pytest.mark.parametrize("change", [one for many in HONOURED.values() for one in many], ids=str)
def test_equal_weights_give_equal_outputs(change: dict[str, Any]) -> None:
    config = {**SMALL, **change}
    torch.manual_seed(0)
    theirs = UNet2DModel(**config).eval()
    for parameter in theirs.parameters():  # diffusers starts biases and gains at 0 and 1, which would hide mistakes
        torch.nn.init.normal_(parameter, std=0.2)
    ours = UNet(UNetConfig.from_dict(dict(theirs.config))).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(3, config["in_channels"], 8, 16)
    time = torch.tensor([1.0, 250.0, 499.0])
    labels = {
        "timestep": torch.tensor([1.0, 40.0, 980.0]),
        "identity": torch.randn(3, 4 * config["block_out_channels"][0]),
        None: torch.tensor([0, 4, 2]) if "num_class_embeds" in config else None,
    }[config.get("class_embed_type")]
    asked = time.long() if config.get("time_embedding_type") == "learned" else time
    with torch.no_grad():
        difference = (theirs(x, asked, labels).sample - ours(x, time, labels)).abs().max()
        scale = theirs(x, asked, labels).sample.abs().max()
    assert float(difference) <= 1e-5 * max(1.0, float(scale))


@pytest.mark.parametrize("change", [one for many in REFUSED.values() for one in many], ids=str)
def test_what_cannot_be_honoured_is_refused_by_name(change: dict[str, Any]) -> None:
    field, value = next(iter(change.items()))
    with pytest.raises(SettingError) as refusal:
        UNetConfig(**{**SMALL, **change})
    said = str(refusal.value)
    assert field in said or (field == "sample_size" and "x" in said)
    wrong = (
        len(value) != 2 or any(str(part) in said for part in value) if isinstance(value, tuple) else str(value) in said
    )
    assert wrong, said


def test_unknown_fields_are_refused_with_the_closest_name() -> None:
    with pytest.raises(SettingError, match="Did you mean norm_eps"):
        UNetConfig.from_dict({"norm_epz": 1})


def test_the_cifar_network_of_the_paper_has_its_size() -> None:
    """Ho et al. 2020, appendix B: 35.7 million parameters."""
    with torch.device("meta"):
        net = UNet(cifar())
    assert sum(parameter.numel() for parameter in net.parameters()) == pytest.approx(35.7e6, rel=0.01)


def cifar() -> UNetConfig:
    return UNetConfig(
        sample_size=32,
        block_out_channels=(128, 256, 256, 256),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=None,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
    )


def test_labels_are_wanted_if_and_only_if_there_is_an_embedding() -> None:
    net = UNet(UNetConfig(**SMALL))
    x, time = torch.zeros(1, 2, 8, 8), torch.zeros(1)
    with pytest.raises(SettingError, match="takes no labels"):
        net(x, time, torch.zeros(1, dtype=torch.long))
    with pytest.raises(SettingError, match="needs labels"):
        UNet(UNetConfig(**SMALL, num_class_embeds=3))(x, time)


def test_a_picture_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(SettingError, match="7x8 is no multiple of 2"):
        UNet(UNetConfig(**SMALL))(torch.zeros(1, 2, 7, 8), torch.zeros(1))


def test_channels_last_changes_the_layout_and_not_the_numbers() -> None:
    torch.manual_seed(0)
    net = UNet(UNetConfig(**SMALL)).eval()
    x, time = torch.randn(2, 2, 8, 8), torch.tensor([3.0, 700.0])
    with torch.no_grad():
        before = net(x, time)
        net.channels_last()
        assert torch.allclose(net(x, time), before, atol=1e-5)
