"""Tokens written one by one follow the network's own law, whatever is known of them and whoever they are made with."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neblina.core.errors import SettingError
from neblina.nets.autoregressive import AutoregressiveConfig, AutoregressiveTransformer
from neblina.samplers.autoregressive import generate_in_order

COUNT, CLASSES, PLACES, NULL = 12_000, 3, 3, 2
ALL = torch.tensor(list(product(range(CLASSES), repeat=PLACES)))


@pytest.fixture(scope="module")
def net() -> AutoregressiveTransformer:
    torch.manual_seed(0)
    config = AutoregressiveConfig(CLASSES, PLACES, 2, 4, num_layers=1, num_class_embeds=3)
    net = AutoregressiveTransformer(config)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.7)
    return net.eval().requires_grad_(False)


def law(net: AutoregressiveTransformer, guidance: float = 1.0, weights: Tensor | None = None) -> Tensor:
    """Of all sequences under label 1, written out from one pass over each, shape (27,)."""
    told, hidden = (net(ALL, torch.full((len(ALL),), label)).double().log_softmax(-1) for label in (1, NULL))
    each = guidance * told + (1 - guidance) * hidden
    if weights is not None:
        each = each + weights
    whole: Tensor = each.log_softmax(-1).gather(-1, ALL[..., None]).sum((1, 2)).exp()
    return whole


def apart(tokens: Tensor, wanted: Tensor) -> float:
    """Total variation between drawn sequences and a law."""
    numbers = tokens @ torch.tensor([9, 3, 1])
    return float((torch.bincount(numbers, minlength=27) / len(tokens) - wanted).abs().sum() / 2)


def made(net: AutoregressiveTransformer, count: int = COUNT, **settings: Any) -> Tensor:
    return generate_in_order(net, range(count), labels=torch.ones(count, dtype=torch.int64), **settings)


def test_the_law_of_the_whole_is_the_product_of_what_the_network_says(net: AutoregressiveTransformer) -> None:
    assert float(law(net).sum()) == pytest.approx(1)
    assert apart(made(net), law(net)) < 0.03  # 0.02 is what so many draws are off by


def test_guidance_is_in_log_probabilities_of_every_token(net: AutoregressiveTransformer) -> None:
    wanted = law(net, 2.5)
    assert apart(made(net, guidance=2.5, null_label=NULL), wanted) < 0.03
    assert float((wanted - law(net)).abs().sum() / 2) > 0.1


def test_weights_make_each_token_its_posterior_given_those_before_it(net: AutoregressiveTransformer) -> None:
    weights = torch.tensor([[0.0, 1.5, -1.0], [2.0, 0.0, 0.0], [0.0, -2.0, 0.5]])
    wanted = law(net, weights=weights)
    assert apart(made(net, log_weights=weights.expand(COUNT, -1, -1)), wanted) < 0.03
    assert float((wanted - law(net)).abs().sum() / 2) > 0.1


def test_a_prefix_is_kept_and_what_follows_is_conditioned_on_it(net: AutoregressiveTransformer) -> None:
    tokens = made(net, prefix=torch.full((COUNT, 1), 2))
    assert bool((tokens[:, 0] == 2).all())
    wanted = law(net) * (ALL[:, 0] == 2)
    assert apart(tokens, wanted / wanted.sum()) < 0.03


def test_a_sample_does_not_know_what_else_is_made(net: AutoregressiveTransformer) -> None:
    together = made(net, 6, guidance=1.5, null_label=NULL, seed=3)
    alone = generate_in_order(net, [4], labels=torch.ones(1, dtype=torch.int64), guidance=1.5, null_label=NULL, seed=3)
    assert torch.equal(alone[0], together[4])
    assert not torch.equal(made(net, 6, seed=4), made(net, 6, seed=3))


def test_what_does_not_fit_is_refused_before_anything_is_read(net: AutoregressiveTransformer) -> None:
    with pytest.raises(SettingError, match=r"guidance 2 needs labels to go to and a null_label"):
        made(net, 2, guidance=2.0)
    with pytest.raises(SettingError, match=r"log_weights are of shape \(2, 3, 3\) here, not \(2, 3, 4\)"):
        made(net, 2, log_weights=torch.zeros(2, 3, 4))
    with pytest.raises(SettingError, match="this network needs labels"):
        generate_in_order(net, [0])
    with pytest.raises(SettingError, match="this network has places for 2 tokens, and 3 are given"):
        made(net, 2, prefix=torch.zeros(2, 3, dtype=torch.int64))
