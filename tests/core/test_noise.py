"""Noise belongs to a picture: the same bits whatever the batch."""

import pytest
import torch

from neblina.core.noise import SampleNoise, normal


def test_a_draw_is_a_function_of_seed_picture_and_number() -> None:
    one = normal(3, 7, 2, (4, 5))
    assert torch.equal(one, normal(3, 7, 2, (4, 5)))
    for other in (normal(4, 7, 2, (4, 5)), normal(3, 8, 2, (4, 5)), normal(3, 7, 3, (4, 5))):
        assert not torch.equal(one, other)
        assert abs(float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])) < 0.8


def test_the_noise_of_a_picture_does_not_know_its_batch() -> None:
    alone = SampleNoise(1, [5])
    many = SampleNoise(1, range(32))
    some = SampleNoise(1, range(4, 8))
    for _ in range(3):
        rows = [source(torch.empty(len(source.indices), 3, 8, 8)) for source in (alone, many, some)]
        assert torch.equal(rows[0][0], rows[1][5])
        assert torch.equal(rows[0][0], rows[2][1])


def test_it_is_standard_normal_and_independent_across_pictures_draws_and_seeds() -> None:
    draws = torch.stack([normal(seed, k, d, (64,)) for seed in range(10) for k in range(10) for d in range(10)])
    assert abs(float(draws.mean())) < 4 / draws.numel() ** 0.5
    assert abs(float(draws.var()) - 1) < 4 * (2 / draws.numel()) ** 0.5
    assert abs(float((draws**4).mean()) - 3) < 4 * (96 / draws.numel()) ** 0.5
    correlation = draws[:-1] * draws[1:]
    assert abs(float(correlation.mean())) < 4 / correlation.numel() ** 0.5


def test_large_and_negative_numbers_are_seeds_too() -> None:
    assert not torch.equal(normal(-1, 0, 0, (4,)), normal(2**63, 0, 0, (4,)))


def test_it_is_drawn_in_float32_and_then_cast() -> None:
    half = SampleNoise(1, [0])(torch.empty(1, 9, dtype=torch.bfloat16))
    assert torch.equal(half[0], normal(1, 0, 0, (9,)).bfloat16())


def places(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_a_brownian_increment_does_not_know_who_else_asks_or_in_which_order() -> None:
    like = torch.empty(1, 3)
    first, second = SampleNoise(1, [5]), SampleNoise(1, range(4, 7))
    one = first.between(like, places(0.2), places(0.5))
    second.between(torch.empty(3, 3), places(0.9, 0.1, 0.3), places(0.95, 0.7, 0.31))
    two = second.between(torch.empty(3, 3), places(0.2, 0.2, 0.2), places(0.5, 0.5, 0.5))
    assert torch.equal(one[0], two[1])


def test_increments_over_a_whole_are_the_sum_of_those_over_its_parts() -> None:
    noise, like = SampleNoise(2, [0]), torch.empty(1, 1000)
    a, b, c = places(0.13), places(0.37), places(0.371)
    whole = noise.between(like, a, c) * (c - a).sqrt()
    parts = noise.between(like, a, b) * (b - a).sqrt() + noise.between(like, b, c) * (c - b).sqrt()
    assert float((whole - parts).std()) < 0.05 * float(whole.std())
    assert float(noise.between(like, a, a).abs().max()) == 0


def test_increments_of_any_length_are_standard_normal() -> None:
    noise, like = SampleNoise(4, [0]), torch.empty(1, 40000)
    for length in (0.7, 1e-1, 1e-3, 1e-4, 1e-6, 1e-9):
        start = places(0.2345678)
        assert float(noise.between(like, start, start + length).std()) == pytest.approx(1, abs=0.015), length


def test_increments_are_standard_normal_and_those_of_disjoint_intervals_independent() -> None:
    noise, like = SampleNoise(3, [0]), torch.empty(1, 20000)
    ends = places(0.0, 0.0003, 0.01, 0.11, 0.5, 0.50001, 0.9, 1.0)
    pieces = torch.cat([noise.between(like, a, b) for a, b in zip(ends[:-1, None], ends[1:, None], strict=True)])
    covariance = pieces @ pieces.T / 20000
    assert float((covariance - torch.eye(7)).abs().max()) < 5 * (2 / 20000) ** 0.5
