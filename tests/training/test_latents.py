"""What is kept of a codebook in training: running averages as in the paper, and codes that come back to life."""

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor

from neblina.nets.vq_autoencoder import VQAutoencoder, VQConfig
from neblina.training.latents import Codes
from neblina.training.recipe import Codec


def codes(**settings: Any) -> Codes:
    torch.manual_seed(0)
    config = VQConfig(
        in_channels=1,
        out_channels=1,
        block_out_channels=(8,),
        norm_num_groups=4,
        latent_channels=2,
        num_vq_embeddings=4,
    )
    return Codes(VQAutoencoder(config), Codec(entries=4, channels=2, **settings), contextlib.nullcontext())


def step(kept: Codes, rows: Tensor, numbers: Tensor) -> None:
    kept.follow(rows, numbers, torch.bincount(numbers, minlength=4))


@torch.no_grad()
def far_away(kept: Codes, which: int | slice) -> None:
    """Put codes where no latent is near."""
    kept.net.quantize.embedding.weight[which] += 100
    kept.sums[which] += 100


def test_two_steps_of_the_running_averages_are_the_papers_by_hand() -> None:
    kept = codes(decay=0.9)
    before = kept.net.quantize.embedding.weight.clone()
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    step(kept, rows, torch.tensor([0, 0, 2]))
    step(kept, 2 * rows, torch.tensor([2, 0, 2]))
    near = {0: [([4, 6], 2), ([6, 8], 1)], 2: [([5, 6], 1), ([12, 16], 2)], 1: [([0, 0], 0), ([0, 0], 0)]}
    for code, batches in near.items():
        size, total = 1.0, before[code]
        for added, count in batches:
            size = 0.9 * size + 0.1 * count
            total = 0.9 * total + 0.1 * torch.tensor(added)
        assert float(kept.sizes[code]) == pytest.approx(size)
        assert torch.allclose(kept.net.quantize.embedding.weight[code], total / size, atol=1e-6)
    assert torch.allclose(kept.net.quantize.embedding.weight[1], before[1])  # nobody was near: it stays


def test_a_code_that_is_never_used_stays_finite_for_ever() -> None:
    kept = codes(decay=0.5, revive=0)
    before = kept.net.quantize.embedding.weight.clone()
    for _ in range(200):  # 2^-200 is no float32
        step(kept, torch.ones(2, 2), torch.tensor([0, 0]))
    assert torch.allclose(kept.net.quantize.embedding.weight[1:], before[1:])
    assert torch.allclose(kept.net.quantize.embedding.weight[0], torch.ones(2))


def test_codes_that_follow_the_gradient_have_one_and_those_that_are_averages_have_none() -> None:
    for settings, wanted in (({}, False), ({"codebook": "gradient"}, True)):
        kept = codes(**settings)
        coded = kept.through(torch.randn(2, 1, 8, 8), torch.Generator())
        (coded.made.square().mean() + coded.loss).backward()
        assert (kept.net.quantize.embedding.weight.grad is not None) == wanted
        encoder = kept.net.encoder.conv_in.weight.grad
        assert encoder is not None
        assert float(encoder.abs().sum()) > 0


def test_the_first_batch_puts_codes_where_latents_are() -> None:
    kept = codes()
    far_away(kept, slice(None))
    average = codes().net
    kept.through(torch.randn(2, 1, 8, 8), torch.Generator())
    kept.settle(torch.optim.SGD(kept.net.parameters()), average, torch.Generator().manual_seed(0))
    weight = kept.net.quantize.embedding.weight
    revived = weight.abs().max(1).values < 10
    assert int(revived.sum()) == 3  # all but the one that took everything
    assert len(torch.unique(weight, dim=0)) == 4
    assert torch.equal(average.quantize.embedding.weight[revived], weight[revived])


def test_a_code_unused_for_long_enough_comes_back_at_a_latent_of_the_batch() -> None:
    kept = codes(revive=3)
    kept.unused.zero_()
    weight = kept.net.quantize.embedding.weight
    far_away(kept, 3)
    optimizer = torch.optim.SGD(kept.net.parameters())
    for number in range(3):
        assert float(weight[3].min()) > 50, number
        kept.through(torch.randn(4, 1, 8, 8), torch.Generator())
        assert kept._found is not None
        rows = kept._found.latents.detach().movedim(1, -1).flatten(0, -2)
        kept.settle(optimizer, torch.nn.Identity(), torch.Generator().manual_seed(7))
    assert bool((rows == weight[3]).all(1).any())
    assert int(kept.unused[3]) == 0
    assert float(kept.sizes[3]) == 1
    assert torch.equal(kept.sums[3], weight[3])


def test_which_latents_revive_codes_is_a_function_of_the_seed() -> None:
    rows = torch.randn(50, 2)
    first, same, other = codes(), codes(), codes()
    first.revive(rows, torch.Generator().manual_seed(1))
    same.revive(rows, torch.Generator().manual_seed(1))
    other.revive(rows, torch.Generator().manual_seed(2))
    weights = [each.net.quantize.embedding.weight for each in (first, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_where_more_codes_are_dead_than_there_are_latents_the_rest_waits() -> None:
    kept = codes()
    assert kept.revive(torch.randn(3, 2), torch.Generator()).tolist() == [0, 1, 2]
    assert kept.revive(torch.randn(3, 2), torch.Generator()).tolist() == [3]
    assert kept.revive(torch.randn(3, 2), torch.Generator()).tolist() == []


def test_a_revived_code_that_follows_the_gradient_forgets_its_momentum() -> None:
    kept = codes(codebook="gradient", revive=1)
    weight = kept.net.quantize.embedding.weight
    far_away(kept, 3)
    optimizer = torch.optim.AdamW(kept.net.parameters())
    optimizer.state[weight] = {name: torch.ones_like(weight) for name in ("exp_avg", "exp_avg_sq")}
    kept.through(torch.randn(4, 1, 8, 8), torch.Generator())
    kept.settle(optimizer, torch.nn.Identity(), torch.Generator())
    for name in ("exp_avg", "exp_avg_sq"):
        assert optimizer.state[weight][name][3].tolist() == [0, 0]
        assert float(optimizer.state[weight][name].sum()) > 0


def test_figures_are_of_the_codes_since_the_last_time() -> None:
    kept = codes()
    kept.counts.copy_(torch.tensor([5, 5, 0, 0]))
    assert kept.figures() == {"codebook_usage": 0.5, "perplexity": pytest.approx(2)}
    kept.counts += torch.tensor([0, 8, 8, 16])
    assert kept.figures() == {"codebook_usage": 0.75, "perplexity": pytest.approx(2**1.5)}
