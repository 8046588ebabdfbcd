"""The autoregressive transformer: nothing depends on what comes later, and what is kept changes nothing."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neblina.core.errors import SettingError
from neblina.nets.autoregressive import AutoregressiveConfig, AutoregressiveTransformer

SMALL: dict[str, Any] = {
    "num_categories": 5,
    "sample_size": (2, 3),
    "num_attention_heads": 2,
    "attention_head_dim": 4,
    "num_layers": 2,
}
LABELS = torch.tensor([2, 0, 1])


def network(**change: Any) -> AutoregressiveTransformer:
    torch.manual_seed(0)
    net = AutoregressiveTransformer(AutoregressiveConfig(**{**SMALL, **change}))
    for parameter in net.parameters():  # gains of 1 and biases of 0 would hide mistakes
        nn.init.normal_(parameter, std=0.4)
    return net.eval().requires_grad_(False)


def tokens(places: int = 6) -> Tensor:
    return torch.randint(5, (3, places), generator=torch.Generator().manual_seed(1))


def test_logits_depend_on_all_tokens_before_and_on_no_other() -> None:
    net, x = network(), tokens()
    before = net(x)
    for changed in range(6):
        other = x.clone()
        other[:, changed] = (x[:, changed] + 1) % 5
        moved = (net(other) - before).abs().amax(2)
        assert float(moved[:, : changed + 1].max()) == 0
        assert bool((moved[:, changed + 1 :] > 1e-6).all())


@pytest.mark.parametrize("classes", [None, 4])
@pytest.mark.parametrize("known", [0, 1, 3, 5])
def test_what_is_kept_changes_nothing(classes: int | None, known: int) -> None:
    """Token by token behind a prefix, and all at once."""
    net, x = network(num_class_embeds=classes), tokens()
    labels = None if classes is None else LABELS
    wanted = net(x, labels)
    logits, cache = net.begin(3, labels, x[:, :known] if known else None)
    for place in range(known, 6):
        assert torch.allclose(logits, wanted[:, place], atol=1e-5)
        if place < 5:
            logits, cache = net.step(x[:, place], cache)
    assert cache.length == 6
    with pytest.raises(SettingError, match="has places for 6 tokens, and all are there"):
        net.step(x[:, 5], cache)


def test_a_step_reads_one_token_however_many_were_read() -> None:
    net, x, widths = network(), tokens(), []
    _, cache = net.begin(3, None, x[:, :4])
    net.transformer_blocks[0].register_forward_pre_hook(lambda module, given: widths.append(given[0].shape[1]))
    net.step(x[:, 4], cache)
    assert widths == [1]


def test_it_is_the_block_without_time_over_what_was_read_before() -> None:
    """The last token's logits, written out: attention of the whole sequence, moved one place, without any mask."""
    net, x = network(num_layers=1), tokens()
    w = net.state_dict()
    read = torch.cat([w["begin_emb.weight"][:1], w["emb.weight"][x[0, :-1]]]) + w["position_emb.weight"]
    block = "transformer_blocks.0"

    def normal(hidden: Tensor, name: str) -> Tensor:
        return F.layer_norm(hidden, (8,), w[f"{name}.weight"], w[f"{name}.bias"])

    quiet = normal(read, f"{block}.norm1")
    q, k, v = (quiet @ w[f"{block}.attn1.to_{one}.weight"].T + w[f"{block}.attn1.to_{one}.bias"] for one in "qkv")
    mixed = torch.cat([(q[-1, part] @ k[:, part].T / 2).softmax(0) @ v[:, part] for part in (slice(4), slice(4, 8))])
    hidden = read[-1] + mixed @ w[f"{block}.attn1.to_out.0.weight"].T + w[f"{block}.attn1.to_out.0.bias"]
    inner = normal(hidden, f"{block}.norm3") @ w[f"{block}.ff.net.0.proj.weight"].T + w[f"{block}.ff.net.0.proj.bias"]
    bent = inner * torch.sigmoid(1.702 * inner)
    hidden = hidden + bent @ w[f"{block}.ff.net.2.weight"].T + w[f"{block}.ff.net.2.bias"]
    wanted = normal(hidden, "norm_out") @ w["out.weight"].T + w["out.bias"]
    assert torch.allclose(net(x)[0, -1], wanted, atol=1e-5)


def test_the_label_is_where_each_sample_begins() -> None:
    net, x = network(num_class_embeds=4), tokens()
    together = net(x, LABELS)
    for row in range(3):
        assert torch.allclose(net(x[row, None], LABELS[row, None])[0], together[row], atol=1e-5)
    assert bool(((net(x, LABELS.flip(0)) - together).abs().amax(2)[::2] > 1e-6).all())


def test_a_shorter_sequence_is_the_beginning_of_a_longer_one() -> None:
    net, x = network(sample_size=6), tokens()
    assert torch.allclose(net(x[:, :4]), net(x)[:, :4], atol=1e-6)


def test_it_learns_a_sequence() -> None:
    """Of the two sequences that there are, the first token decides the others."""
    torch.manual_seed(0)
    net = AutoregressiveTransformer(AutoregressiveConfig(**SMALL))
    data = torch.tensor([[0, 1, 2, 3, 4, 0], [4, 4, 3, 1, 0, 2]])
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(100):
        loss = F.cross_entropy(net(data).flatten(0, 1), data.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    per_sequence = 6 * F.cross_entropy(net(data).flatten(0, 1), data.flatten()).item()
    assert per_sequence == pytest.approx(math.log(2), abs=0.1)


def test_a_configuration_is_read_as_it_was_written() -> None:
    written = AutoregressiveConfig(**SMALL, num_class_embeds=3)
    assert AutoregressiveConfig.from_dict(written.to_dict()) == written
    assert (written.places, written.grid, written.num_labels) == (6, (2, 3), 3)
    with pytest.raises(SettingError, match="num_categories is missing"):
        AutoregressiveConfig.from_dict({"sample_size": 3})
    for field in ("num_categories", "sample_size", "num_layers", "num_class_embeds"):
        with pytest.raises(SettingError, match=field):
            AutoregressiveConfig(**{**SMALL, field: 0})


def test_wrong_inputs_are_refused() -> None:
    net, labelled = network(), network(num_class_embeds=3)
    for asked, said in (
        (lambda: net(tokens() + 5), "token [5-9] is out of range: this network knows 0 … 4"),
        (lambda: net(tokens(7)), "has places for 6 tokens, and 7 are given"),
        (lambda: net(tokens(), LABELS), "takes no labels"),
        (lambda: labelled(tokens()), "needs labels"),
        (lambda: labelled(tokens(), LABELS + 1), "label 3 is out of range"),
        (lambda: net.begin(3, None, tokens()), "has places for 5 tokens, and 6 are given"),
    ):
        with pytest.raises(SettingError, match=said):
            asked()
