"""The transformer of discrete diffusion equals diffusers': shapes, texts, and every field of its configuration."""

import inspect
from dataclasses import fields
from typing import Any

import pytest
import torch
from diffusers import Transformer2DModel
from torch import Tensor

from neblina.core.conditions import Wants
from neblina.core.errors import SettingError
from neblina.nets.token_config import TokenTransformerConfig
from neblina.nets.token_transformer import TokenTransformer

SMALL: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "num_layers": 2,
    "cross_attention_dim": 6,
    "attention_bias": True,
    "sample_size": 4,
    "num_vector_embeds": 11,
    "activation_fn": "geglu-approximate",
    "num_embeds_ada_norm": 10,
    "norm_type": "ada_norm",
}
TIMELESS: dict[str, Any] = {"num_embeds_ada_norm": None, "norm_type": "layer_norm"}
# one mutation or more of every field: of SMALL, or of SMALL with the second part
HONOURED: dict[str, list[dict[str, Any] | tuple[dict[str, Any], dict[str, Any]]]] = {
    "num_attention_heads": [{"num_attention_heads": 4}, {"num_attention_heads": 4, "attention_head_dim": 4}],
    "attention_head_dim": [{"attention_head_dim": 5}, {"attention_head_dim": 16, "num_attention_heads": 1}],
    "num_layers": [{"num_layers": 1}, {"num_layers": 3}],
    "cross_attention_dim": [{"cross_attention_dim": 9}, {"cross_attention_dim": None}],
    "attention_bias": [{"attention_bias": False}],
    "sample_size": [{"sample_size": 1}, {"sample_size": 5}],
    "num_vector_embeds": [{"num_vector_embeds": 2}, {"num_vector_embeds": 300}],
    "activation_fn": [
        {"activation_fn": name} for name in ("gelu", "gelu-approximate", "geglu", "swiglu", "linear-silu")
    ],
    "num_embeds_ada_norm": [{"num_embeds_ada_norm": 100}, TIMELESS, {**TIMELESS, "cross_attention_dim": None}],
    # with the text as wide as the tokens, the keys are equal
    "only_cross_attention": [
        {"only_cross_attention": True},
        ({"only_cross_attention": True}, {"cross_attention_dim": 16}),
    ],
    "norm_elementwise_affine": [{"norm_elementwise_affine": False}, ({"norm_elementwise_affine": False}, TIMELESS)],
    "norm_eps": [{"norm_eps": 0.1}, ({"norm_eps": 0.1}, TIMELESS)],
}
# what diffusers reads only in training or in half precision, or nowhere
SILENT: dict[str, dict[str, Any]] = {
    "dropout": {"dropout": 0.3},
    "norm_num_groups": {"norm_num_groups": 7},
    "upcast_attention": {"upcast_attention": True},
    "norm_type": {"norm_type": "layer_norm"},
}
REFUSED: dict[str, list[dict[str, Any]]] = {
    "in_channels": [{"in_channels": 4}],
    "out_channels": [{"out_channels": 4}],
    "patch_size": [{"patch_size": 2}],
    "use_linear_projection": [{"use_linear_projection": True}],
    "double_self_attention": [{"double_self_attention": True}],
    "attention_type": [{"attention_type": "gated"}],
    "caption_channels": [{"caption_channels": 8}],
    "interpolation_scale": [{"interpolation_scale": 2.0}],
    "use_additional_conditions": [{"use_additional_conditions": True}],
    "norm_type": [{"norm_type": "ada_norm_zero"}, {"norm_type": "ada_norm_single"}],
    "num_embeds_ada_norm": [{"num_embeds_ada_norm": None}, {"num_embeds_ada_norm": 0}],
    "activation_fn": [{"activation_fn": "tanh"}],
    "sample_size": [{"sample_size": None}, {"sample_size": 0}, {"sample_size": [4, 8]}],
    "num_vector_embeds": [{"num_vector_embeds": None}, {"num_vector_embeds": 1}],
    "num_layers": [{"num_layers": 0}],
    "attention_head_dim": [{"attention_head_dim": 0}],
    "cross_attention_dim": [{"cross_attention_dim": 0}],
}


def random_weights(config: dict[str, Any]) -> Transformer2DModel:
    torch.manual_seed(0)
    theirs = Transformer2DModel(**config).eval()
    for parameter in theirs.parameters():  # diffusers starts gains at 1 and some biases at 0, which would hide mistakes
        torch.nn.init.normal_(parameter, std=0.3)
    return theirs


def ours_of(theirs: Transformer2DModel) -> TokenTransformer:
    ours = TokenTransformer(TokenTransformerConfig.from_dict(dict(theirs.config))).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours


def asked(config: dict[str, Any], *, length: int | None = None, text: int = 5) -> dict[str, Tensor]:
    """Three samples at steps of their own; masks among the tokens."""
    made, values = torch.Generator().manual_seed(1), config["num_vector_embeds"]
    x = torch.randint(values, (3, length or config["sample_size"] ** 2), generator=made)
    x[:, ::3] = values - 1
    inputs = {"x": x, "time": torch.tensor([3.0, 0.0, 9.0])}
    if config["cross_attention_dim"] is not None:
        inputs["text"] = torch.randn(3, text, config["cross_attention_dim"], generator=made)
    return inputs


def their_answer(theirs: Transformer2DModel, inputs: dict[str, Tensor]) -> Tensor:
    """Log-probabilities with the class axis last. diffusers takes one step for a whole batch: one sample at a time."""
    answers = [
        theirs(
            inputs["x"][row, None],
            encoder_hidden_states=inputs["text"][row, None] if "text" in inputs else None,
            timestep=inputs["time"][row].long(),
        ).sample
        for row in range(len(inputs["x"]))
    ]
    return torch.cat(answers).transpose(1, 2)


def our_answer(ours: TokenTransformer, inputs: dict[str, Tensor]) -> Tensor:
    answer: Tensor = ours(**inputs).log_softmax(dim=2)
    return answer


def agree(config: dict[str, Any], **shape: Any) -> Transformer2DModel:
    """Assert that equal weights, loaded both ways, give equal answers."""
    theirs = random_weights(config)
    ours, inputs = ours_of(theirs), asked(config, **shape)
    with torch.no_grad():
        expected, answer = their_answer(theirs, inputs), our_answer(ours, inputs)
        assert answer.shape == expected.shape == (*inputs["x"].shape, config["num_vector_embeds"] - 1)
        assert float((answer - expected).abs().max()) <= 1e-5
        back = Transformer2DModel.from_config(ours.config.to_dict()).eval()
        back.load_state_dict(ours.state_dict(), strict=True)
        assert torch.equal(their_answer(back, inputs), expected)
    return theirs


def test_every_field_of_diffusers_configuration_is_mutated_here() -> None:
    theirs = inspect.signature(Transformer2DModel.__init__).parameters
    assert set(theirs) - {"self"} == set(HONOURED) | set(SILENT) | set(REFUSED)
    for field in fields(TokenTransformerConfig):
        assert field.default == theirs[field.name].default


@pytest.mark.parametrize("change", [one for many in HONOURED.values() for one in many], ids=str)
def test_a_mutated_field_is_honoured_and_it_matters(
    change: dict[str, Any] | tuple[dict[str, Any], dict[str, Any]],
) -> None:
    change, others = change if isinstance(change, tuple) else (change, {})
    config = {**SMALL, **others}
    mutated, model = agree({**config, **change}), random_weights(config)
    shapes, new_shapes = ({key: value.shape for key, value in one.state_dict().items()} for one in (model, mutated))
    if shapes == new_shapes:
        mutated.load_state_dict(model.state_dict())
        inputs = asked(config)
        with torch.no_grad():
            far = (their_answer(mutated, inputs) - their_answer(model, inputs)).abs().max()
        assert float(far) > 1e-4, "this mutation cannot fail"


@pytest.mark.parametrize("field", SILENT)
def test_a_field_without_effect_has_none_in_diffusers_either(field: str) -> None:
    mutated, model = agree({**SMALL, **SILENT[field]}), random_weights(SMALL)
    mutated.load_state_dict(model.state_dict(), strict=True)
    inputs = asked(SMALL)
    with torch.no_grad():
        assert torch.equal(their_answer(mutated, inputs), their_answer(model, inputs))


@pytest.mark.parametrize(
    ("field", "change"), [(field, one) for field, many in REFUSED.items() for one in many], ids=str
)
def test_what_cannot_be_honoured_is_refused_by_name(field: str, change: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=field):
        TokenTransformerConfig.from_dict({**SMALL, **change})


def test_an_unknown_field_is_refused_with_the_closest_name() -> None:
    with pytest.raises(SettingError, match="Did you mean num_vector_embeds"):
        TokenTransformerConfig.from_dict({"num_vector_embedz": 4})


@pytest.mark.parametrize("shape", [{"text": 1}, {"text": 77}, {"length": 7}, {"length": 1, "text": 2}], ids=str)
def test_other_shapes_give_what_diffusers_gives(shape: dict[str, Any]) -> None:
    """Fewer tokens than places are the first of them."""
    agree(SMALL, **shape)


def test_without_a_text_tokens_look_at_one_another_whatever_only_cross_attention_says() -> None:
    agree({**SMALL, "cross_attention_dim": None, "only_cross_attention": True})


def test_what_is_dropped_in_training_is_what_diffusers_drops() -> None:
    """With nothing kept there is no chance in it."""
    theirs = random_weights({**SMALL, "dropout": 1.0})
    ours, inputs = ours_of(theirs), asked(SMALL)
    with torch.no_grad():
        before = our_answer(ours, inputs)
        dropped = our_answer(ours.train(), inputs)
        assert torch.allclose(dropped, their_answer(theirs.train(), inputs), atol=1e-5)
    assert not torch.allclose(dropped, before, atol=1e-2)


def test_files_from_before_norm_types_open() -> None:
    """diffusers 0.42 fails on them for want of the field."""
    old = {name: value for name, value in SMALL.items() if name != "norm_type"} | {"in_channels": None}
    config = TokenTransformerConfig.from_dict({"_class_name": "Transformer2DModel", **old})
    assert config.to_dict()["norm_type"] == "ada_norm"
    assert TokenTransformerConfig(**{**SMALL, **TIMELESS}).to_dict()["norm_type"] == "layer_norm"
    assert TokenTransformer(config).state_dict().keys() == random_weights(SMALL).state_dict().keys()


def test_steps_of_one_batch_are_those_of_samples_alone() -> None:
    ours, inputs = ours_of(random_weights(SMALL)), asked(SMALL)
    with torch.no_grad():
        together = ours(**inputs)
        alone = torch.cat([ours(**{name: value[row, None] for name, value in inputs.items()}) for row in range(3)])
    assert torch.allclose(together, alone, atol=1e-5)
    assert not torch.allclose(together, ours(**{**inputs, "time": inputs["time"].flip(0)}), atol=1e-2)


def test_a_time_between_two_steps_is_the_nearest() -> None:
    ours, inputs = ours_of(random_weights(SMALL)), asked(SMALL)
    with torch.no_grad():
        for time, step in ((2.4, 2), (2.6, 3), (9.4, 9), (-0.9, 0)):  # the last is between the data and its first step
            told, wanted = (ours(**{**inputs, "time": torch.full((3,), float(one))}) for one in (time, step))
            assert torch.equal(told, wanted)
    with pytest.raises(SettingError, match=r"time 10 is out of range: this network knows 0 … 9"):
        ours(**{**inputs, "time": torch.tensor([1.0, 10.0, 2.0])})


def test_gradients_equal_diffusers() -> None:
    theirs = random_weights({**SMALL, "activation_fn": "geglu"})
    ours, inputs = ours_of(theirs), asked(SMALL)
    our_answer(ours, inputs).square().mean().backward()
    their_answer(theirs, inputs).square().mean().backward()
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    rounding = 1e-6 * max(float(gradient.abs().max()) for gradient in expected.values())  # a key's bias has none
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, expected[name], rtol=1e-3, atol=rounding), name


def test_half_precision_stays_near() -> None:
    ours, inputs = ours_of(random_weights(SMALL)), asked(SMALL)
    with torch.no_grad():
        exact = ours(**inputs)
        half = ours.bfloat16()(**{**inputs, "text": inputs["text"].bfloat16()})
    assert half.dtype == torch.bfloat16
    assert float((half - exact).norm() / exact.norm()) < 0.03


def test_the_configuration_says_what_the_network_reads() -> None:
    config = TokenTransformerConfig(**SMALL)
    assert (config.wants, config.num_labels) == (Wants(text=6), 0)
    assert (config.num_categories, config.places, config.grid) == (10, 16, (4, 4))


def test_wrong_inputs_are_refused() -> None:
    net, inputs = TokenTransformer(TokenTransformerConfig(**SMALL)), asked(SMALL)
    changes: tuple[tuple[dict[str, Any], str], ...] = (
        ({"x": inputs["x"] + 1}, "token 11 is out of range: this network knows 0 … 10"),
        ({"x": inputs["x"] - 11}, "token -1 is out of range"),
        ({"x": torch.zeros(3, 17, dtype=torch.long)}, "has places for 16 tokens, and 17 are given"),
        ({"x": torch.zeros(3, 16)}, r"int64 of shape \(B, N\), not float32 of shape \(3, 16\)"),
        ({"x": torch.zeros(3, 4, 4, dtype=torch.long)}, r"not int64 of shape \(3, 4, 4\)"),
        ({"text": None}, "needs text"),
        ({"text": torch.zeros(3, 5, 7)}, "reads texts 6 wide, not 7"),
        ({"labels": torch.zeros(3, dtype=torch.long)}, "takes no labels"),
    )
    for change, said in changes:
        with pytest.raises(SettingError, match=said):
            net(**{**inputs, **change})
