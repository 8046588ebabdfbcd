"""The transformer over lines and grids that knows labels: beside diffusers' own, and beside the released block."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neblina.core.conditions import Wants
from neblina.core.errors import SettingError
from neblina.nets.token_config import SequenceTransformerConfig, TokenTransformerConfig
from neblina.nets.token_transformer import TokenTransformer

SMALL: dict[str, Any] = {
    "num_vector_embeds": 7,
    "sample_size": 6,
    "num_attention_heads": 2,
    "attention_head_dim": 4,
    "num_layers": 2,
    "num_embeds_ada_norm": 5,
}
RELEASED: dict[str, Any] = {**SMALL, "sample_size": (2, 3), "num_class_embeds": 4, "convolutional": True}
GRID: dict[str, Any] = {
    **{name: value for name, value in SMALL.items() if name != "sample_size"},
    "sample_size": 3,
    "cross_attention_dim": 5,
    "attention_bias": True,
    "activation_fn": "geglu-approximate",
}
TIME = torch.tensor([0.0, 4.0, 2.0])
LABELS = torch.tensor([3, 0, 1])


def network(**config: Any) -> TokenTransformer:
    torch.manual_seed(0)
    return randomised(TokenTransformer(SequenceTransformerConfig(**config)))


def randomised(net: TokenTransformer) -> TokenTransformer:
    for parameter in net.parameters():  # gains of 1 and biases of 0 would hide mistakes
        nn.init.normal_(parameter, std=0.3)
    return net.eval().requires_grad_(False)


def tokens(places: int = 6) -> Tensor:
    return torch.randint(7, (3, places), generator=torch.Generator().manual_seed(1))


def test_a_line_is_a_grid_whose_places_are_told_by_number() -> None:
    """Equal weights, with a place's vector the sum of its row's and its column's."""
    grid = randomised(TokenTransformer(TokenTransformerConfig(**GRID)))
    line = network(**{**GRID, "sample_size": 9})
    weights = grid.state_dict()
    rows, columns = (weights.pop(f"latent_image_embedding.{name}_emb.weight") for name in ("height", "width"))
    places = torch.stack([rows[place // 3] + columns[place % 3] for place in range(9)])
    line.load_state_dict({**weights, "latent_image_embedding.position_emb.weight": places}, strict=True)
    x, text = tokens(9), torch.randn(3, 4, 5)
    assert torch.allclose(line(x, TIME, text=text), grid(x, TIME, text=text), atol=1e-5)


def modulated(hidden: Tensor, row: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    told = F.silu(weights[f"{name}.emb.weight"][row]) @ weights[f"{name}.linear.weight"].T
    scale, shift = (told + weights[f"{name}.linear.bias"]).chunk(2)
    spread = hidden - hidden.mean(1, keepdim=True)
    return spread / (spread.square().mean(1, keepdim=True) + 1e-5).sqrt() * (1 + scale) + shift


def attended(hidden: Tensor, weights: dict[str, Tensor], name: str, heads: int) -> Tensor:
    q, k, v = (hidden @ weights[f"{name}.to_{one}.weight"].T + weights[f"{name}.to_{one}.bias"] for one in "qkv")
    width = q.shape[1] // heads
    mixed = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        mixed.append((q[:, part] @ k[:, part].T / width**0.5).softmax(1) @ v[:, part])
    return torch.cat(mixed, 1) @ weights[f"{name}.to_out.0.weight"].T + weights[f"{name}.to_out.0.bias"]


def convolved(hidden: Tensor, weight: Tensor, bias: Tensor, grid: tuple[int, int]) -> Tensor:
    """Three by three places, written as a sum over the neighbours that there are."""
    out = bias.expand(len(hidden), -1).clone()
    for place in range(len(hidden)):
        row, column = divmod(place, grid[1])
        for down in (-1, 0, 1):
            for across in (-1, 0, 1):
                if 0 <= row + down < grid[0] and 0 <= column + across < grid[1]:
                    neighbour = hidden[(row + down) * grid[1] + column + across]
                    out[place] += weight[:, :, down + 1, across + 1] @ neighbour
    return out


def test_the_label_modulates_before_a_convolution_as_in_the_released_models_of_classes() -> None:
    """h += attention(AdaLN(h, time)); h += convolutions(AdaLN(h, label)): sample by sample, written out."""
    net, x = network(**RELEASED), tokens()
    weights = dict(net.state_dict())
    answer = net(x, TIME, labels=LABELS)
    for sample in range(3):
        embedding = "latent_image_embedding"
        hidden = weights[f"{embedding}.emb.weight"][x[sample]] + weights[f"{embedding}.position_emb.weight"]
        for number in range(2):
            block = f"transformer_blocks.{number}"
            hidden = hidden + attended(
                modulated(hidden, TIME[sample].long(), weights, f"{block}.norm1"), weights, f"{block}.attn1", 2
            )
            bent = modulated(hidden, LABELS[sample], weights, f"{block}.norm3")
            bent = convolved(bent, weights[f"{block}.ff.conv1.weight"], weights[f"{block}.ff.conv1.bias"], (2, 3))
            bent = bent * torch.sigmoid(1.702 * bent)
            bent = convolved(bent, weights[f"{block}.ff.conv2.weight"], weights[f"{block}.ff.conv2.bias"], (2, 3))
            hidden = hidden + bent
        said = F.layer_norm(hidden, (8,), weights["norm_out.weight"], weights["norm_out.bias"])
        wanted = said @ weights["out.weight"].T + weights["out.bias"]
        assert torch.allclose(answer[sample], wanted, atol=1e-5)


@pytest.mark.parametrize("change", [{}, {"cross_attention_dim": 5}, {"sample_size": (2, 3)}, RELEASED], ids=str)
def test_each_sample_has_a_label_and_a_step_of_its_own(change: dict[str, Any]) -> None:
    net, x = network(**{**SMALL, "num_class_embeds": 4, **change}), tokens()
    given = {"time": TIME, "labels": LABELS}
    if net.config.wants.text is not None:
        given["text"] = torch.randn(3, 2, 5)
    together = net(x, **given)
    for row in range(3):
        alone = net(x[row, None], **{name: value[row, None] for name, value in given.items()})
        assert torch.allclose(together[row], alone[0], atol=1e-5)
    for name, other in {"time": TIME.flip(0), "labels": LABELS.flip(0)}.items():
        assert not torch.allclose(net(x, **{**given, name: other}), together, atol=1e-3)


def test_a_network_of_no_steps_is_not_told_the_time() -> None:
    net, x = network(**{**SMALL, "num_embeds_ada_norm": None}), tokens()
    assert torch.equal(net(x, TIME), net(x, TIME + 1000))


def test_every_token_may_change_what_is_said_of_every_other() -> None:
    net, x = network(**SMALL), tokens()[:1]
    before = net(x, TIME[:1])
    for place in range(6):
        changed = x.clone()
        changed[0, place] = (x[0, place] + 1) % 7
        moved = (net(changed, TIME[:1]) - before).abs().amax((0, 2))
        assert float(moved.min()) > 1e-6


def test_training_begins_with_small_weights() -> None:
    torch.manual_seed(0)
    net = TokenTransformer(SequenceTransformerConfig(num_vector_embeds=500, sample_size=100)).requires_grad_(False)
    for name in ("out.weight", "latent_image_embedding.emb.weight", "transformer_blocks.0.norm1.emb.weight"):
        assert float(net.get_parameter(name).std()) == pytest.approx(0.02, rel=0.05)
    assert float(net.get_parameter("out.bias").abs().max()) == 0


def test_the_configuration_says_what_the_network_reads() -> None:
    line, grid = SequenceTransformerConfig(**SMALL), SequenceTransformerConfig(**RELEASED, cross_attention_dim=5)
    assert (line.num_categories, line.places, line.grid, line.num_labels) == (6, 6, None, 0)
    assert (grid.num_categories, grid.places, grid.grid, grid.num_labels) == (6, 6, (2, 3), 4)
    assert (line.wants, grid.wants) == (Wants(), Wants(text=5))


@pytest.mark.parametrize("config", [SMALL, RELEASED], ids=["line", "grid"])
def test_a_configuration_is_read_as_it_was_written(config: dict[str, Any]) -> None:
    written = SequenceTransformerConfig(**config)
    assert SequenceTransformerConfig.from_dict(written.to_dict()) == written
    assert written.to_dict()["_class_name"] == "SequenceTransformer"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_vector_embeds": 1}, "num_vector_embeds = 1 leaves no value beside the mask"),
        ({"sample_size": 0}, "sample_size = 0 is not 1 or more"),
        ({"sample_size": (4, 0)}, "sample_size"),
        ({"num_class_embeds": 0}, "num_class_embeds = 0 is no table"),
        ({"convolutional": True}, "sample_size = 6 is a line: give height and width"),
        ({**RELEASED, "activation_fn": "geglu"}, "activation_fn = 'geglu' has a gate"),
        ({"activation_fn": "tanh"}, "activation_fn"),
        ({"num_layers": 0}, "num_layers = 0 is less than 1"),
        ({"num_embeds_ada_norm": 0}, "num_embeds_ada_norm = 0 is less than 1"),
    ],
    ids=str,
)
def test_what_cannot_be_built_is_refused_by_name(change: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        SequenceTransformerConfig(**{**SMALL, **change})


def test_a_field_that_is_missing_is_named() -> None:
    with pytest.raises(SettingError, match="SequenceTransformer config: sample_size is missing"):
        SequenceTransformerConfig.from_dict({"num_vector_embeds": 7})


def test_wrong_inputs_are_refused() -> None:
    net, x = network(**RELEASED), tokens()
    with pytest.raises(SettingError, match="needs labels"):
        net(x, TIME)
    with pytest.raises(SettingError, match="label 4 is out of range: this network knows 0 … 3"):
        net(x, TIME, labels=LABELS + 1)
    with pytest.raises(SettingError, match="has places for 6 tokens, and 5 are given"):
        net(x[:, :5], TIME, labels=LABELS)
    with pytest.raises(SettingError, match="takes no text"):
        net(x, TIME, labels=LABELS, text=torch.zeros(3, 1, 5))
