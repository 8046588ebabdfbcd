"""The diffusion transformer equals diffusers': sizes, labels, and every field of its configuration."""

import inspect
from typing import Any

import pytest
import torch
from diffusers import DiTTransformer2DModel
from torch import Tensor

from neblina.core.conditions import Wants
from neblina.core.errors import SettingError
from neblina.nets.dit import DiT, DiTConfig

SMALL: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 2,
    "sample_size": 8,
    "num_embeds_ada_norm": 5,
}
AFFINE: dict[str, Any] = {"norm_elementwise_affine": True}
HONOURED: dict[str, list[dict[str, Any]]] = {
    "num_attention_heads": [{"num_attention_heads": 4}, {"num_attention_heads": 4, "attention_head_dim": 4}],
    "attention_head_dim": [{"attention_head_dim": 6}, {"attention_head_dim": 16, "num_attention_heads": 1}],
    "in_channels": [{"in_channels": 3}],
    "out_channels": [{"out_channels": None}, {"out_channels": 3}],
    "num_layers": [{"num_layers": 1}, {"num_layers": 3}],
    "attention_bias": [{"attention_bias": False}],
    "sample_size": [{"sample_size": 16}, {"sample_size": 6}],
    "patch_size": [{"patch_size": 4}, {"patch_size": 1}],
    "activation_fn": [
        {"activation_fn": name} for name in ("gelu", "geglu", "geglu-approximate", "swiglu", "linear-silu")
    ],
    "num_embeds_ada_norm": [{"num_embeds_ada_norm": 7}],
    "norm_elementwise_affine": [AFFINE],
    "norm_eps": [{"norm_eps": 0.1}],
}
# what diffusers reads only in training or in half precision, or nowhere
SILENT: dict[str, dict[str, Any]] = {
    "dropout": {"dropout": 0.3},
    "norm_num_groups": {"norm_num_groups": 7},
    "upcast_attention": {"upcast_attention": True},
}
REFUSED: dict[str, list[dict[str, Any]]] = {
    "norm_type": [{"norm_type": "ada_norm_single"}],
    "num_embeds_ada_norm": [{"num_embeds_ada_norm": None}],
    "activation_fn": [{"activation_fn": "tanh"}],
    "attention_head_dim": [{"attention_head_dim": 7, "num_attention_heads": 1}, {"attention_head_dim": 0}],
    "patch_size": [{"patch_size": 0}, {"patch_size": 16}],
}


def random_weights(config: dict[str, Any]) -> DiTTransformer2DModel:
    torch.manual_seed(0)
    theirs = DiTTransformer2DModel(**config).eval()
    for parameter in theirs.parameters():  # diffusers starts biases and gains at 0 and 1, which would hide mistakes
        torch.nn.init.normal_(parameter, std=0.2)
    return theirs


def asked(channels: int, side: int = 8) -> dict[str, Tensor]:
    made = torch.Generator().manual_seed(1)
    x = torch.randn(3, channels, side, side, generator=made)
    return {"x": x, "time": torch.tensor([1.0, 250.0, 999.0]), "labels": torch.tensor([0, 5, 2])}


def their_answer(theirs: DiTTransformer2DModel, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        answer: Tensor = theirs(inputs["x"], inputs["time"], inputs["labels"]).sample
    return answer


def tolerance(expected: Tensor) -> float:
    return 1e-5 * max(1.0, float(expected.abs().max()))


def agree(config: dict[str, Any], side: int = 8) -> DiTTransformer2DModel:
    """Assert that equal weights, loaded both ways, give equal answers."""
    theirs = random_weights(config)
    ours = DiT(DiTConfig.from_dict(dict(theirs.config))).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    inputs = asked(config["in_channels"], side)
    expected = their_answer(theirs, inputs)
    with torch.no_grad():
        answer = ours(**inputs)
    assert answer.shape == expected.shape
    assert float((answer - expected).abs().max()) <= tolerance(expected)
    back = DiTTransformer2DModel.from_config(ours.config.to_dict()).eval()
    back.load_state_dict(ours.state_dict(), strict=True)
    assert torch.equal(their_answer(back, inputs), expected)
    return theirs


def test_every_field_of_diffusers_configuration_is_mutated_here() -> None:
    theirs = inspect.signature(DiTTransformer2DModel.__init__).parameters
    assert set(theirs) - {"self"} == set(HONOURED) | set(SILENT) | set(REFUSED)
    assert {name: one.default for name, one in theirs.items() if name != "self"} == {
        name: getattr(DiTConfig(), name) for name in DiTConfig.__dataclass_fields__
    }


@pytest.mark.parametrize("change", [one for many in HONOURED.values() for one in many], ids=str)
def test_a_mutated_field_is_honoured_and_it_matters(change: dict[str, Any]) -> None:
    mutated, model = agree({**SMALL, **change}), random_weights(SMALL)
    shapes, new_shapes = ({key: value.shape for key, value in one.state_dict().items()} for one in (model, mutated))
    if shapes == new_shapes:
        mutated.load_state_dict(model.state_dict())
        inputs = asked(SMALL["in_channels"])
        after, before = their_answer(mutated, inputs), their_answer(model, inputs)
        assert float((after - before).abs().max()) > 10 * tolerance(before), "this mutation cannot fail"


@pytest.mark.parametrize("field", SILENT)
def test_a_field_without_effect_has_none_in_diffusers_either(field: str) -> None:
    mutated, model = agree({**SMALL, **SILENT[field]}), random_weights(SMALL)
    mutated.load_state_dict(model.state_dict(), strict=True)
    inputs = asked(SMALL["in_channels"])
    assert torch.equal(their_answer(mutated, inputs), their_answer(model, inputs))


@pytest.mark.parametrize(
    ("field", "change"), [(field, one) for field, many in REFUSED.items() for one in many], ids=str
)
def test_what_cannot_be_honoured_is_refused_by_name(field: str, change: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=field):
        DiTConfig(**{**SMALL, **change})


@pytest.mark.parametrize("side", [4, 12, 2])
def test_other_sizes_give_what_diffusers_gives(side: int) -> None:
    agree(SMALL, side)


def test_folders_of_the_former_name_open() -> None:
    theirs = dict(random_weights(SMALL).config)
    former = {**theirs, "_class_name": "Transformer2DModel", "cross_attention_dim": None, "num_vector_embeds": None}
    former |= {"use_linear_projection": False, "only_cross_attention": False, "double_self_attention": False}
    assert DiTConfig.from_dict(former) == DiTConfig.from_dict(theirs)
    with pytest.raises(SettingError, match="cross_attention_dim = 16"):
        DiTConfig.from_dict({**former, "cross_attention_dim": 16})
    with pytest.raises(SettingError, match="norm_type 'layer_norm'"):
        DiTConfig.from_dict({"_class_name": "Transformer2DModel"})
    with pytest.raises(SettingError, match="Did you mean patch_size"):
        DiTConfig.from_dict({"patch_sise": 2})


def test_an_oblong_picture_is_put_together_patch_by_patch() -> None:
    """diffusers computes its tokens, and then puts them together as if it were square."""
    theirs = random_weights(SMALL)
    ours = DiT(DiTConfig.from_dict(dict(theirs.config))).eval()
    ours.load_state_dict(theirs.state_dict())
    tokens: list[Tensor] = []
    theirs.proj_out_2.register_forward_hook(lambda module, given, made: tokens.append(made))
    inputs = {**asked(4), "x": torch.randn(3, 4, 4, 16)}
    their_answer(theirs, inputs)
    with torch.no_grad():
        answer = ours(**inputs)
    for row in range(2):
        for column in range(8):
            expected = tokens[0][:, 8 * row + column].reshape(3, 2, 2, 8).permute(0, 3, 1, 2)
            made = answer[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            assert torch.allclose(made, expected, atol=1e-5)


def test_the_configuration_says_what_the_network_reads() -> None:
    config = DiTConfig(**SMALL)
    assert (config.wants, config.num_labels, config.null_label) == (Wants(), 6, 5)


def test_wrong_inputs_are_refused() -> None:
    net = DiT(DiTConfig(**SMALL))
    time = torch.zeros(1)
    with pytest.raises(SettingError, match="needs labels"):
        net(torch.zeros(1, 4, 8, 8), time)
    with pytest.raises(SettingError, match="7x8 cannot be cut into patches of 2"):
        net(torch.zeros(1, 4, 7, 8), time, labels=torch.zeros(1, dtype=torch.long))
    with pytest.raises(SettingError, match="takes 4 channels, not 3"):
        net(torch.zeros(1, 3, 8, 8), time, labels=torch.zeros(1, dtype=torch.long))


def test_gradients_equal_diffusers() -> None:
    theirs = random_weights({**SMALL, "activation_fn": "geglu"})
    ours = DiT(DiTConfig.from_dict(dict(theirs.config))).eval()
    ours.load_state_dict(theirs.state_dict())
    inputs = asked(4)
    ours(**inputs).square().mean().backward()
    theirs(inputs["x"], inputs["time"], inputs["labels"]).sample.square().mean().backward()
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    rounding = 1e-6 * max(float(gradient.abs().max()) for gradient in expected.values())  # a key's bias has none
    for name, parameter in ours.named_parameters():
        assert torch.allclose(parameter.grad, expected[name], rtol=1e-4, atol=rounding), name
