"""The diffusion transformer that reads a text equals diffusers': sizes, texts, and every field of its configuration."""

import inspect
from functools import cache
from typing import Any

import pytest
import torch
from diffusers import PixArtTransformer2DModel
from torch import Tensor

from neblina.core.conditions import Wants
from neblina.core.errors import SettingError
from neblina.nets.text_dit import TextDiT
from neblina.nets.text_dit_config import TextDiTConfig

SMALL: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 2,
    "cross_attention_dim": 16,
    "caption_channels": 12,
    "sample_size": 8,
}
BARE: dict[str, Any] = {"caption_channels": None, "cross_attention_dim": 12}
HONOURED: dict[str, list[dict[str, Any]]] = {
    "num_attention_heads": [{"num_attention_heads": 4, "attention_head_dim": 4}, {"num_attention_heads": 3, **BARE}],
    "attention_head_dim": [{"attention_head_dim": 6, **BARE}, {"attention_head_dim": 16, "num_attention_heads": 1}],
    "in_channels": [{"in_channels": 3}],
    "out_channels": [{"out_channels": None}, {"out_channels": 3}],
    "num_layers": [{"num_layers": 1}, {"num_layers": 3}],
    "cross_attention_dim": [BARE, {**BARE, "cross_attention_dim": 20}],
    "attention_bias": [{"attention_bias": False}],
    "sample_size": [{"sample_size": 16}, {"sample_size": 6}, {"sample_size": 7}, {"sample_size": 130}],
    "patch_size": [{"patch_size": 4}, {"patch_size": 1}],
    "activation_fn": [
        {"activation_fn": name} for name in ("gelu", "geglu", "geglu-approximate", "swiglu", "linear-silu")
    ],
    "norm_elementwise_affine": [{"norm_elementwise_affine": True}],
    "norm_eps": [{"norm_eps": 0.1}, {"norm_eps": 0.1, "norm_elementwise_affine": True}],
    "interpolation_scale": [{"interpolation_scale": 2}, {"interpolation_scale": 0.7}],
    "caption_channels": [{"caption_channels": 20}],
}
# what diffusers reads only in training or in half precision, or nowhere
SILENT: dict[str, list[dict[str, Any]]] = {
    "dropout": [{"dropout": 0.3}],
    "norm_num_groups": [{"norm_num_groups": 7}],
    "num_embeds_ada_norm": [{"num_embeds_ada_norm": 7}],
    "upcast_attention": [{"upcast_attention": True}],
    "use_additional_conditions": [{"use_additional_conditions": False}],
    "attention_type": [{"attention_type": None}],
}
REFUSED: dict[str, list[dict[str, Any]]] = {
    "norm_type": [{"norm_type": "ada_norm_zero"}],
    "num_embeds_ada_norm": [{"num_embeds_ada_norm": None}],
    "activation_fn": [{"activation_fn": "tanh"}],
    "attention_head_dim": [
        {"attention_head_dim": 7, "num_attention_heads": 1, "cross_attention_dim": 7},
        {"attention_head_dim": 0},
    ],
    "num_attention_heads": [{"num_attention_heads": 0}],
    "in_channels": [{"in_channels": 0}],
    "out_channels": [{"out_channels": 0}],
    "num_layers": [{"num_layers": 0}],
    "dropout": [{"dropout": 1.5}],
    "patch_size": [{"patch_size": 0}, {"patch_size": 16}],
    "sample_size": [{"sample_size": 0}],
    "cross_attention_dim": [{"cross_attention_dim": None}, {"cross_attention_dim": 0}, {"cross_attention_dim": 12}],
    "caption_channels": [{"caption_channels": 0}],
    "interpolation_scale": [{"interpolation_scale": 0}, {"interpolation_scale": float("nan")}],
    "use_additional_conditions": [{"use_additional_conditions": True}, {"sample_size": 128}],
    "attention_type": [{"attention_type": "gated"}],
}


def random_weights(config: dict[str, Any]) -> PixArtTransformer2DModel:
    torch.manual_seed(0)
    theirs = PixArtTransformer2DModel(**config).eval()
    for parameter in theirs.parameters():  # diffusers starts biases and gains at 0 and 1, which would hide mistakes
        torch.nn.init.normal_(parameter, std=0.2)
    return theirs


@cache
def plain() -> PixArtTransformer2DModel:
    """diffusers' model that the mutations are of."""
    return random_weights(SMALL)


def of_the_same_weights(theirs: PixArtTransformer2DModel) -> TextDiT:
    ours = TextDiT(TextDiTConfig.from_dict(dict(theirs.config))).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours


def asked(config: TextDiTConfig, size: tuple[int, int] = (8, 8)) -> dict[str, Tensor]:
    """Random inputs of our network; equal for configurations that take equal ones."""
    made = torch.Generator().manual_seed(1)
    x = torch.randn(3, config.in_channels, *size, generator=made)
    text = torch.randn(3, 5, config.wants.text or 0, generator=made)
    return {"x": x, "time": torch.tensor([1.0, 250.0, 999.0]), "text": text}


def their_answer(theirs: PixArtTransformer2DModel, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        answer: Tensor = theirs(inputs["x"], inputs["text"], inputs["time"]).sample
    return answer


def tolerance(expected: Tensor) -> float:
    return 1e-5 * max(1.0, float(expected.abs().max()))


def agree(config: dict[str, Any], size: tuple[int, int] = (8, 8)) -> PixArtTransformer2DModel:
    """Assert that equal weights, loaded both ways, give equal answers."""
    theirs = random_weights(config)
    ours = of_the_same_weights(theirs)
    inputs = asked(ours.config, size)
    expected = their_answer(theirs, inputs)
    with torch.no_grad():
        answer = ours(**inputs)
    assert answer.shape == expected.shape
    assert float((answer - expected).abs().max()) <= tolerance(expected)
    back = PixArtTransformer2DModel.from_config(ours.config.to_dict()).eval()
    back.load_state_dict(ours.state_dict(), strict=True)
    assert torch.equal(their_answer(back, inputs), expected)
    return theirs


def test_every_field_of_diffusers_configuration_is_mutated_here() -> None:
    theirs = inspect.signature(PixArtTransformer2DModel.__init__).parameters
    assert set(theirs) - {"self"} == set(HONOURED) | set(SILENT) | set(REFUSED)
    assert {name: one.default for name, one in theirs.items() if name != "self"} == {
        name: field.default for name, field in TextDiTConfig.__dataclass_fields__.items()
    }


@pytest.mark.parametrize("change", [one for many in HONOURED.values() for one in many], ids=str)
def test_a_mutated_field_is_honoured_and_it_matters(change: dict[str, Any]) -> None:
    mutated, model = agree({**SMALL, **change}), plain()
    shapes, new_shapes = ({key: value.shape for key, value in one.state_dict().items()} for one in (model, mutated))
    if shapes == new_shapes:
        mutated.load_state_dict(model.state_dict())
        inputs = asked(TextDiTConfig(**SMALL))
        after, before = their_answer(mutated, inputs), their_answer(model, inputs)
        assert float((after - before).abs().max()) > 10 * tolerance(before), "this mutation cannot fail"


@pytest.mark.parametrize("change", [one for many in SILENT.values() for one in many], ids=str)
def test_a_field_without_effect_has_none_in_diffusers_either(change: dict[str, Any]) -> None:
    mutated, model = agree({**SMALL, **change}), plain()
    mutated.load_state_dict(model.state_dict(), strict=True)
    inputs = asked(TextDiTConfig(**SMALL))
    assert torch.equal(their_answer(mutated, inputs), their_answer(model, inputs))


@pytest.mark.parametrize(
    ("field", "change"), [(field, one) for field, many in REFUSED.items() for one in many], ids=str
)
def test_what_cannot_be_honoured_is_refused_by_name(field: str, change: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=field):
        TextDiTConfig(**{**SMALL, **change})


def test_an_unknown_field_is_refused_with_the_closest_name() -> None:
    with pytest.raises(SettingError, match="Did you mean caption_channels"):
        TextDiTConfig.from_dict({**SMALL, "caption_chanels": 12})


def test_at_the_size_where_diffusers_tells_sizes_unless_told_not_to_false_must_be_said() -> None:
    agree({**SMALL, "sample_size": 128, "use_additional_conditions": False})


@pytest.mark.parametrize("scale", [None, 2])
@pytest.mark.parametrize("size", [(4, 4), (12, 12), (4, 16), (10, 6), (2, 2)], ids=str)
def test_other_sizes_and_oblong_ones_give_what_diffusers_gives(size: tuple[int, int], scale: int | None) -> None:
    agree({**SMALL, "interpolation_scale": scale}, size)


def test_the_configuration_says_what_the_network_reads() -> None:
    config = TextDiTConfig(**SMALL)
    assert (config.wants, config.num_labels, config.made, config.multiple) == (Wants(text=12), 0, 8, 2)
    assert TextDiTConfig(**{**SMALL, "caption_channels": None}).wants == Wants(text=16)


def test_wrong_inputs_are_refused() -> None:
    net = TextDiT(TextDiTConfig(**SMALL))
    x, time, text = torch.zeros(1, 4, 8, 8), torch.zeros(1), torch.zeros(1, 5, 12)
    with pytest.raises(SettingError, match="needs text"):
        net(x, time)
    with pytest.raises(SettingError, match="reads texts 12 wide, not 16"):
        net(x, time, text=torch.zeros(1, 5, 16))
    with pytest.raises(SettingError, match="takes 4 channels, not 3"):
        net(torch.zeros(1, 3, 8, 8), time, text=text)
    for size in ((7, 8), (8, 7), (8, 0)):
        with pytest.raises(SettingError, match=f"{size[0]}x{size[1]} cannot be cut into patches of 2"):
            net(torch.zeros(1, 4, *size), time, text=text)


@pytest.mark.parametrize("activation", ["gelu-approximate", "geglu"])
def test_gradients_equal_diffusers_for_every_parameter_and_for_the_text(activation: str) -> None:
    """A text encoder that is trained with the network learns through the text."""
    theirs = random_weights({**SMALL, "activation_fn": activation})
    ours = of_the_same_weights(theirs)
    inputs = asked(ours.config)
    texts = [inputs["text"].clone().requires_grad_() for _ in range(2)]
    ours(inputs["x"], inputs["time"], text=texts[0]).square().mean().backward()
    theirs(inputs["x"], texts[1], inputs["time"]).sample.square().mean().backward()
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    rounding = 1e-6 * max(float(gradient.abs().max()) for gradient in expected.values())  # a key's bias has none
    for name, parameter in ours.named_parameters():
        assert torch.allclose(parameter.grad, expected[name], rtol=1e-4, atol=rounding), name
    learned, wanted = (text.grad for text in texts)
    assert learned is not None
    assert wanted is not None
    assert float(wanted.abs().min()) > 0
    assert torch.allclose(learned, wanted, rtol=1e-4, atol=rounding)


def test_dropout_drops_in_training_only() -> None:
    net = of_the_same_weights(random_weights({**SMALL, "dropout": 0.5}))
    inputs = asked(net.config)
    assert torch.equal(net(**inputs), net(**inputs))
    assert not torch.equal(net.train()(**inputs), net(**inputs))


def test_a_new_network_says_zero_and_learns_to_tell_two_texts_apart() -> None:
    torch.manual_seed(0)
    net = TextDiT(TextDiTConfig(**{**SMALL, "out_channels": None, "num_layers": 1}))
    x, time = torch.randn(1, 4, 4, 4).expand(2, -1, -1, -1), torch.full((2,), 500.0)
    text, wanted = torch.randn(2, 5, 12), torch.randn(2, 4, 4, 4)
    assert not net(x, time, text=text).any()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(50):
        loss = (net(x, time, text=text) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # what is as good as can be said without the text
    assert float(loss.detach()) < 0.2 * float((wanted.mean(0) - wanted).square().mean())


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_says_nearly_the_same(autocast: bool) -> None:
    net = of_the_same_weights(random_weights(SMALL))
    inputs = asked(net.config)
    with torch.no_grad():
        exact = net(**inputs)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            if not autocast:
                net.to(torch.bfloat16)
                inputs |= {name: inputs[name].to(torch.bfloat16) for name in ("x", "text")}
            rough = net(**inputs).float()
    assert float((rough - exact).square().mean().sqrt() / exact.std()) < 0.03
