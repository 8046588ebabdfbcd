"""The U-Net of latent diffusion equals diffusers': families, sizes, and every field of its configuration."""

import inspect
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from neblina.core.conditions import Wants
from neblina.core.errors import SettingError
from neblina.nets.unet_condition import UNetCondition
from neblina.nets.unet_condition_config import UNetConditionConfig

SMALL: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (16, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "cross_attention_dim": 12,
    "attention_head_dim": 2,
    "norm_num_groups": 8,
}
ALL_CROSS: dict[str, Any] = {
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}
OWN_ATTENTION: dict[str, Any] = {
    "down_block_types": ("AttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "AttnUpBlock2D"),
}
SDXL: dict[str, Any] = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (2, 4),
    "use_linear_projection": True,
    "transformer_layers_per_block": (1, 2),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "cross_attention_dim": 20,
    "projection_class_embeddings_input_dim": 10 + 6 * 8,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "Stable Diffusion 1": {},
    "Stable Diffusion 2": {"use_linear_projection": True, "attention_head_dim": (2, 4), "upcast_attention": True},
    "SDXL": SDXL,
    "SDXL refiner": {**SDXL, "cross_attention_dim": 10, "projection_class_embeddings_input_dim": 10 + 5 * 8},
    "latent diffusion from text": {"attention_head_dim": 8, "cross_attention_dim": 40, "layers_per_block": 2},
    "latent diffusion of classes": {**ALL_CROSS, "cross_attention_dim": 16, "in_channels": 3, "out_channels": 3},
    "inpainting": {"in_channels": 9},
    "upscaler": {
        "in_channels": 7,
        "num_class_embeds": 1000,
        "only_cross_attention": (True, False),
        "use_linear_projection": True,
    },
    "depth": {"in_channels": 5, "use_linear_projection": True},
    "one level": {
        "block_out_channels": (16,),
        "down_block_types": ("CrossAttnDownBlock2D",),
        "up_block_types": ("CrossAttnUpBlock2D",),
    },
    "one level that attends, in the middle": {
        "block_out_channels": (8, 16, 24),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "mid_block_type": "UNetMidBlock2D",
    },
    "unequal blocks": {
        "block_out_channels": (8, 32, 16),
        "layers_per_block": (1, 3, 2),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"),
        "attention_head_dim": (4, 8, 2),
        "transformer_layers_per_block": (1, 2, 3),
    },
    "heads that do not divide the channels": {"attention_head_dim": 5, "use_linear_projection": True},
    "heads that do not divide the channels, as convolutions": {"attention_head_dim": 3},
    "no text at all": {
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "mid_block_type": None,
    },
}
# one mutation or more of every field: of SMALL, or of SMALL with the second part
HONOURED: dict[str, list[dict[str, Any] | tuple[dict[str, Any], dict[str, Any]]]] = {
    "in_channels": [{"in_channels": 3}],
    "out_channels": [{"out_channels": 8}],
    "center_input_sample": [{"center_input_sample": True}],
    "flip_sin_to_cos": [
        {"flip_sin_to_cos": False},
        ({"flip_sin_to_cos": False}, {"time_embedding_type": "fourier"}),
        ({"flip_sin_to_cos": False}, SDXL),
    ],
    "freq_shift": [{"freq_shift": 1}, ({"freq_shift": 1}, SDXL)],
    "down_block_types": [
        {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D")},
        {"down_block_types": ("AttnDownBlock2D", "DownBlock2D")},
    ],
    "mid_block_type": [{"mid_block_type": None}, {"mid_block_type": "UNetMidBlock2D"}],
    "up_block_types": [
        {"up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")},
        {"up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "attention_head_dim": (8, 4)},
    ],
    "only_cross_attention": [
        {"only_cross_attention": True},
        ({"only_cross_attention": (False, True)}, ALL_CROSS),
        # with the text as wide as the level, the keys are equal
        ({"only_cross_attention": (True, False)}, {"cross_attention_dim": 16}),
    ],
    "block_out_channels": [{"block_out_channels": (24, 8)}],
    "layers_per_block": [{"layers_per_block": 2}, {"layers_per_block": (2, 1)}, {"layers_per_block": (1, 3)}],
    "downsample_padding": [{"downsample_padding": 0}],
    "mid_block_scale_factor": [{"mid_block_scale_factor": 1.7}],
    "act_fn": [
        *({"act_fn": name} for name in ("mish", "gelu", "relu", "ReLU")),
        ({"act_fn": "gelu"}, {"class_embed_type": "timestep"}),
        ({"act_fn": "gelu"}, {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 6}),
        ({"act_fn": "gelu"}, SDXL),
    ],
    "norm_num_groups": [{"norm_num_groups": 4}, {"norm_num_groups": 16}],
    "norm_eps": [{"norm_eps": 0.1}],
    "cross_attention_dim": [{"cross_attention_dim": 20}, {"cross_attention_dim": (20, 20)}],
    "transformer_layers_per_block": [
        {"transformer_layers_per_block": 2},
        {"transformer_layers_per_block": (1, 2)},
        ({"transformer_layers_per_block": (2, 1)}, ALL_CROSS),
        {
            "transformer_layers_per_block": ((2,), (3,)),
            "reverse_transformer_layers_per_block": ((1, 1), (3, 1)),
        },
    ],
    "reverse_transformer_layers_per_block": [{"reverse_transformer_layers_per_block": (1, 2)}],
    "encoder_hid_dim": [{"encoder_hid_dim": 12}, {"encoder_hid_dim": 7}],
    "encoder_hid_dim_type": [{"encoder_hid_dim_type": "text_proj", "encoder_hid_dim": 12}],
    "attention_head_dim": [
        {"attention_head_dim": 4},
        {"attention_head_dim": (4, 2)},
        ({"attention_head_dim": (2, 8)}, ALL_CROSS),
        ({"attention_head_dim": (4, 16)}, OWN_ATTENTION),
        ({"attention_head_dim": (8, 4)}, OWN_ATTENTION),
    ],
    "use_linear_projection": [{"use_linear_projection": True}],
    "class_embed_type": [
        {"class_embed_type": "timestep"},
        {"class_embed_type": "identity"},
        {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 6},
        {"class_embed_type": "simple_projection", "projection_class_embeddings_input_dim": 6},
        ({"class_embed_type": "timestep"}, {"time_embedding_type": "fourier"}),
    ],
    "addition_embed_type": [
        {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": 30,
        }
    ],
    "addition_time_embed_dim": [({"addition_time_embed_dim": 7}, SDXL)],
    "projection_class_embeddings_input_dim": [({"projection_class_embeddings_input_dim": 60}, SDXL)],
    "num_class_embeds": [{"num_class_embeds": 5}],
    "resnet_time_scale_shift": [{"resnet_time_scale_shift": "scale_shift"}],
    "time_embedding_type": [{"time_embedding_type": "fourier"}],
    "time_embedding_dim": [
        {"time_embedding_dim": 24},
        ({"time_embedding_dim": 24}, {"time_embedding_type": "fourier"}),
    ],
    "time_embedding_act_fn": [{"time_embedding_act_fn": "gelu"}, {"time_embedding_act_fn": "Mish"}],
    "timestep_post_act": [{"timestep_post_act": "gelu"}, {"timestep_post_act": "relu"}],
    "conv_in_kernel": [{"conv_in_kernel": 5}, {"conv_in_kernel": 1}],
    "conv_out_kernel": [{"conv_out_kernel": 5}, {"conv_out_kernel": 1}],
    "class_embeddings_concat": [({"class_embeddings_concat": True}, {"num_class_embeds": 5})],
}
# what diffusers reads only in training, in half precision or beside something that is refused, and what changes nothing
SILENT: dict[str, dict[str, Any]] = {
    "sample_size": {"sample_size": (8, 16)},
    "dropout": {"dropout": 0.3},
    "upcast_attention": {"upcast_attention": True},
    "mid_block_only_cross_attention": {"mid_block_only_cross_attention": True},
    "addition_embed_type_num_heads": {"addition_embed_type_num_heads": 2},
}
REFUSED: dict[str, list[dict[str, Any]]] = {
    "num_attention_heads": [{"num_attention_heads": 4}],
    "dual_cross_attention": [{"dual_cross_attention": True}],
    "resnet_skip_time_act": [{"resnet_skip_time_act": True}],
    "resnet_out_scale_factor": [{"resnet_out_scale_factor": 2.0}],
    "time_cond_proj_dim": [{"time_cond_proj_dim": 8}],
    "attention_type": [{"attention_type": "gated"}],
    "cross_attention_norm": [{"cross_attention_norm": "layer_norm"}],
    "down_block_types": [{"down_block_types": ("SimpleCrossAttnDownBlock2D", "DownBlock2D")}],
    "up_block_types": [{"up_block_types": ("UpBlock2D", "KUpBlock2D")}, {"up_block_types": ("UpBlock2D",)}],
    "mid_block_type": [{"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}],
    "only_cross_attention": [{"only_cross_attention": (True,)}],
    "layers_per_block": [{"layers_per_block": (1, 1, 1)}],
    "attention_head_dim": [{"attention_head_dim": None}, {"attention_head_dim": 64}, {"attention_head_dim": (2,)}],
    "cross_attention_dim": [{"cross_attention_dim": (12, 20)}, {"cross_attention_dim": None}],
    "norm_num_groups": [{"norm_num_groups": 5}, {"norm_num_groups": None}],
    "transformer_layers_per_block": [
        {"transformer_layers_per_block": (1, 1, 2)},
        {"transformer_layers_per_block": ((1,), (1,))},
        {"transformer_layers_per_block": ((1, 1), 1), "reverse_transformer_layers_per_block": (1, 1)},
    ],
    "reverse_transformer_layers_per_block": [
        {"reverse_transformer_layers_per_block": (1,)},
        {"reverse_transformer_layers_per_block": (1, (1,))},
    ],
    "encoder_hid_dim_type": [
        {"encoder_hid_dim_type": "image_proj", "encoder_hid_dim": 8},
        {"encoder_hid_dim_type": "text_proj"},
    ],
    "class_embed_type": [{"class_embed_type": "projektion"}, {"class_embed_type": "projection"}],
    "addition_embed_type": [
        {"addition_embed_type": "text"},
        {"addition_embed_type": "text_time"},
        {"addition_embed_type": "text_time", "addition_time_embed_dim": 8},
    ],
    "addition_time_embed_dim": [{**SDXL, "addition_time_embed_dim": 40}],
    "class_embeddings_concat": [
        {"class_embeddings_concat": True},
        {**SDXL, "num_class_embeds": 5, "class_embeddings_concat": True},
    ],
    "resnet_time_scale_shift": [{"resnet_time_scale_shift": "spatial"}],
    "time_embedding_type": [{"time_embedding_type": "learned"}],
    "time_embedding_dim": [{"time_embedding_dim": 25, "time_embedding_type": "fourier"}],
    "time_embedding_act_fn": [{"time_embedding_act_fn": "tanh"}],
    "timestep_post_act": [{"timestep_post_act": "tanh"}],
    "act_fn": [{"act_fn": "tanh"}],
    "conv_in_kernel": [{"conv_in_kernel": 4}],
    "conv_out_kernel": [{"conv_out_kernel": 2}],
}
MUTATIONS = [
    (base, change)
    for many in HONOURED.values()
    for one in many
    for change, base in [one if isinstance(one, tuple) else (one, {})]
]


def asked(config: UNetConditionConfig, size: tuple[int, int] = (8, 8), batch: int = 3) -> dict[str, Tensor]:
    """Random inputs of our network; equal for configurations that take equal ones."""
    made = torch.Generator().manual_seed(1)
    kind, wants = config.class_embed_type, config.wants
    inputs = {
        "x": torch.randn(batch, config.in_channels, *size, generator=made),
        "time": torch.tensor([1.0, 250.0, 999.0, 17.0])[:batch],
        "labels": torch.tensor([0, 4, 2, 1])[:batch],
    }
    if not config.labelled:
        del inputs["labels"]
    elif kind == "timestep":
        inputs["labels"] = torch.tensor([1.0, 20.0, 980.0, 5.0])[:batch]
    elif kind is not None:
        width = config.embedding_channels if kind == "identity" else config.projection_class_embeddings_input_dim
        inputs["labels"] = torch.randn(batch, width or 0, generator=made)
    if wants.text is not None:
        inputs["text"] = torch.randn(batch, 5, wants.text, generator=made)
    if wants.pooled is not None:
        inputs["pooled"] = torch.randn(batch, wants.pooled, generator=made)
        inputs["sizes"] = torch.tensor([[64.0, 96.0, 0.0, 3.0, 1024.0, 512.0][: wants.sizes]] * batch)
    return inputs


def their_answer(theirs: UNet2DConditionModel, inputs: dict[str, Tensor]) -> Tensor:
    added = {"text_embeds": inputs["pooled"], "time_ids": inputs["sizes"]} if "pooled" in inputs else None
    with torch.no_grad():
        answer: Tensor = theirs(
            inputs["x"], inputs["time"], inputs.get("text"), class_labels=inputs.get("labels"), added_cond_kwargs=added
        ).sample
    return answer


def random_weights(config: dict[str, Any]) -> UNet2DConditionModel:
    torch.manual_seed(0)
    theirs = UNet2DConditionModel(**config).eval()
    for parameter in theirs.parameters():  # diffusers starts biases and gains at 0 and 1, which would hide mistakes
        torch.nn.init.normal_(parameter, std=0.2)
    return theirs


REFERENCES: dict[str, tuple[UNet2DConditionModel, Tensor]] = {}


def reference(base: dict[str, Any]) -> tuple[UNet2DConditionModel, Tensor]:
    """diffusers' model of a mutation's base, and its answer."""
    if repr(base) not in REFERENCES:
        theirs = random_weights({**SMALL, **base})
        config = UNetConditionConfig.from_dict(dict(theirs.config))
        REFERENCES[repr(base)] = theirs, their_answer(theirs, asked(config))
    return REFERENCES[repr(base)]


def tolerance(expected: Tensor) -> float:
    return 1e-5 * max(1.0, float(expected.abs().max()))


def agree(config: dict[str, Any], size: tuple[int, int] = (8, 8), batch: int = 3) -> UNet2DConditionModel:
    """Assert that equal weights, loaded both ways, give equal answers."""
    theirs = random_weights(config)
    ours = UNetCondition(UNetConditionConfig.from_dict(dict(theirs.config))).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    inputs = asked(ours.config, size, batch)
    expected = their_answer(theirs, inputs)
    with torch.no_grad():
        answer = ours(**inputs)
    assert float((answer - expected).abs().max()) <= tolerance(expected)
    back = UNet2DConditionModel.from_config(ours.config.to_dict()).eval()
    back.load_state_dict(ours.state_dict(), strict=True)
    assert torch.equal(their_answer(back, inputs), expected)
    return theirs


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_what_diffusers_gives(family: str) -> None:
    agree({**SMALL, **FAMILIES[family]})


@pytest.mark.parametrize("size", [(7, 9), (5, 8), (13, 3), (3, 2)], ids=str)
@pytest.mark.parametrize("padding", [1, 2])
def test_latents_that_cannot_be_halved_evenly_give_what_diffusers_gives(size: tuple[int, int], padding: int) -> None:
    agree({**SMALL, **FAMILIES["unequal blocks"], "downsample_padding": padding}, size, batch=1)


def test_every_field_of_diffusers_configuration_is_mutated_here() -> None:
    theirs = set(inspect.signature(UNet2DConditionModel.__init__).parameters) - {"self"}
    assert theirs == set(HONOURED) | set(SILENT) | set(REFUSED)
    assert theirs == set(UNetConditionConfig.__dataclass_fields__)
    for name, default in inspect.signature(UNet2DConditionModel.__init__).parameters.items():
        assert name == "self" or getattr(UNetConditionConfig(), name) == default.default, name


@pytest.mark.parametrize(("base", "change"), MUTATIONS, ids=str)
def test_a_mutated_field_is_honoured_and_it_matters(base: dict[str, Any], change: dict[str, Any]) -> None:
    mutated = agree({**SMALL, **base, **change})
    model, before = reference(base)
    shapes, new_shapes = ({key: value.shape for key, value in one.state_dict().items()} for one in (model, mutated))
    if shapes == new_shapes:
        mutated.load_state_dict(model.state_dict())
        after = their_answer(mutated, asked(UNetConditionConfig.from_dict(dict(mutated.config))))
        assert float((after - before).abs().max()) > 10 * tolerance(before), "this mutation cannot fail"


@pytest.mark.parametrize("field", SILENT)
def test_a_field_without_effect_has_none_in_diffusers_either(field: str) -> None:
    mutated = agree({**SMALL, **SILENT[field]})
    model, before = reference({})
    mutated.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(their_answer(mutated, asked(UNetConditionConfig(**SMALL))), before)


@pytest.mark.parametrize(
    ("field", "change"), [(field, one) for field, many in REFUSED.items() for one in many], ids=str
)
def test_what_cannot_be_honoured_is_refused_by_name(field: str, change: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=field):
        UNetConditionConfig(**{**SMALL, **change})


def test_unknown_fields_are_refused_with_the_closest_name() -> None:
    with pytest.raises(SettingError, match="Did you mean norm_eps"):
        UNetConditionConfig.from_dict({"norm_epz": 1})


def test_dropout_drops_in_training_only() -> None:
    net = UNetCondition(UNetConditionConfig(**SMALL, dropout=0.5))
    inputs = asked(net.config)
    assert torch.equal(net.eval()(**inputs), net(**inputs))
    assert not torch.equal(net.train()(**inputs), net(**inputs))


@pytest.mark.parametrize(
    ("family", "wants"),
    {
        "Stable Diffusion 1": Wants(text=12),
        "SDXL": Wants(text=20, pooled=10, sizes=6),
        "SDXL refiner": Wants(text=10, pooled=10, sizes=5),
        "no text at all": Wants(),
    }.items(),
)
def test_the_configuration_says_what_the_network_reads(family: str, wants: Wants) -> None:
    assert UNetConditionConfig(**{**SMALL, **FAMILIES[family]}).wants == wants


def test_the_published_sdxl_networks_are_told_apart() -> None:
    released = {"addition_embed_type": "text_time", "addition_time_embed_dim": 256}
    base = {"cross_attention_dim": 2048, "projection_class_embeddings_input_dim": 2816}
    refiner = {"cross_attention_dim": 1280, "projection_class_embeddings_input_dim": 2560}
    assert UNetConditionConfig(**released, **base).wants == Wants(text=2048, pooled=1280, sizes=6)
    assert UNetConditionConfig(**released, **refiner).wants == Wants(text=1280, pooled=1280, sizes=5)


@pytest.mark.parametrize(
    ("published", "parameters"),
    [
        ({"cross_attention_dim": 768}, 860e6),
        ({"cross_attention_dim": 1024, "use_linear_projection": True, "attention_head_dim": (5, 10, 20, 20)}, 865e6),
        (
            {
                "block_out_channels": (320, 640, 1280),
                "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                "transformer_layers_per_block": (1, 2, 10),
                "attention_head_dim": (5, 10, 20),
                "cross_attention_dim": 2048,
                "use_linear_projection": True,
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 256,
                "projection_class_embeddings_input_dim": 2816,
            },
            2.6e9,
        ),
    ],
    ids=["Stable Diffusion 1", "Stable Diffusion 2", "SDXL"],
)
def test_the_published_networks_have_their_sizes(published: dict[str, Any], parameters: float) -> None:
    """Podell et al., SDXL, ICLR 2024, table 1."""
    with torch.device("meta"):
        net = UNetCondition(UNetConditionConfig(**published))
    assert sum(parameter.numel() for parameter in net.parameters()) == pytest.approx(parameters, rel=0.015)


@pytest.mark.parametrize("missing", ["labels", "text", "pooled", "sizes"])
def test_what_is_missing_or_not_wanted_is_named(missing: str) -> None:
    config = UNetConditionConfig(**{**SMALL, **SDXL, "num_class_embeds": 5})
    inputs = asked(config)
    without = {name: value for name, value in inputs.items() if name != missing}
    with pytest.raises(SettingError, match=f"needs {missing}"):
        UNetCondition(config)(**without)
    bare = UNetConditionConfig(**{**SMALL, **FAMILIES["no text at all"]})
    with pytest.raises(SettingError, match=f"takes no {missing}"):
        UNetCondition(bare)(**asked(bare), **{missing: inputs[missing]})


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("text", (3, 5, 9), "20 wide, not 9"),
        ("sizes", (3, 5), "make 50 numbers"),
        ("pooled", (3, 18), "make 66 numbers"),
        ("x", (3, 5, 8, 8), "takes 4 channels, not 5"),
    ],
)
def test_inputs_of_another_width_are_refused(name: str, shape: tuple[int, ...], said: str) -> None:
    net = UNetCondition(UNetConditionConfig(**{**SMALL, **SDXL}))
    with pytest.raises(SettingError, match=said):
        net(**{**asked(net.config), name: torch.zeros(shape)})


def test_a_picture_that_vanishes_on_its_way_down_is_refused() -> None:
    net = UNetCondition(UNetConditionConfig(**SMALL, downsample_padding=0))
    net(**asked(net.config, (2, 3)))
    with pytest.raises(SettingError, match="1x8 is too small"):
        net(**asked(net.config, (1, 8)))


def test_gradients_equal_diffusers() -> None:
    """The way without gradients multiplies in place; the way with them must not."""
    theirs = random_weights(SMALL)
    ours = UNetCondition(UNetConditionConfig.from_dict(dict(theirs.config))).eval()
    ours.load_state_dict(theirs.state_dict())
    inputs = asked(ours.config)
    ours(**inputs).square().mean().backward()
    theirs(inputs["x"], inputs["time"], inputs["text"]).sample.square().mean().backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        wanted = expected[name].grad
        assert torch.allclose(parameter.grad, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max())), name


def test_channels_last_changes_the_layout_and_not_the_numbers() -> None:
    torch.manual_seed(0)
    net = UNetCondition(UNetConditionConfig(**{**SMALL, **FAMILIES["unequal blocks"]})).eval()
    inputs = asked(net.config)
    with torch.no_grad():
        before = net(**inputs)
        net.channels_last()
        assert torch.allclose(net(**inputs), before, atol=1e-5)
