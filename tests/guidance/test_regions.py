"""Places of one canvas: the closed form, what is covered, and what is the same however it is said."""

from dataclasses import dataclass, field

import pytest
import torch
from models import small_bundle
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.errors import SettingError
from neblina.core.plan import Plan, Query, answer, conditional, evaluate
from neblina.core.posterior import Gaussian, Posterior
from neblina.core.windows import cover, cover_of, touching
from neblina.guidance.affine import classifier_free
from neblina.guidance.crops import crops, windowed
from neblina.guidance.regions import Area, joined, owners, regions

RANDOM = 1000
many = pytest.mark.parametrize(
    "numbers", [range(100), pytest.param(range(100, RANDOM), marks=pytest.mark.slow)], ids=["some", "many"]
)


@dataclass
class Says:
    """Believes in a picture by the label alone, moved by what is beside every place; counts what it is asked."""

    asked: list[int] = field(default_factory=list)

    def posterior(self, x: Tensor, t: Tensor, condition: Condition) -> Posterior:
        self.asked.append(len(x))
        label = torch.zeros(len(x)) if condition.labels is None else condition.labels.to(x.dtype)
        beside = x.roll(1, -1) + x.roll(1, -2)
        return Gaussian(torch.tanh(x * (label + 2).reshape(-1, 1, 1, 1) + 0.3 * beside))


def labelled(denoiser: Says, label: int, count: int) -> Plan:
    return conditional(denoiser, Condition(torch.full((count,), label)))


def drawn(number: int) -> tuple[torch.Generator, list[int]]:
    generator = torch.Generator().manual_seed(number)
    return generator, torch.randint(0, 10_000, (12,), generator=generator).tolist()


def some_masks(generator: torch.Generator, count: int, height: int, width: int) -> list[Tensor]:
    """Boxes, single cells and soft blots, each with something in it."""
    masks = []
    for number in range(count):
        top, left = (int(torch.randint(0, side, (), generator=generator)) for side in (height, width))
        tall = 1 + int(torch.randint(0, height - top, (), generator=generator))
        wide = 1 + int(torch.randint(0, width - left, (), generator=generator))
        mask = torch.zeros(height, width, dtype=torch.float64)
        soft = torch.rand(tall, wide, generator=generator, dtype=torch.float64)
        mask[top : top + tall, left : left + wide] = soft if number % 3 == 2 else 1
        masks.append(mask)
    return masks


def test_the_belief_is_what_minimises_the_objective_of_multidiffusion() -> None:
    """argmin Σ_i ‖√W_i ⊙ (x − x_i)‖², by a solver that knows nothing of its closed form."""
    generator, _ = drawn(0)
    shape, query = (3, 4), Query(torch.randn(1, 1, 3, 4, dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64))
    masks = some_masks(generator, 4, *shape)
    denoiser = Says()
    areas = [Area(labelled(denoiser, n + 1, 1), mask, 0.5 + n) for n, mask in enumerate(masks)]
    found = evaluate(regions(labelled(denoiser, 0, 1), areas), query).mean.flatten()
    counts = joined(masks) * torch.tensor([1.0, 0.5, 1.5, 2.5, 3.5])[:, None, None]
    views = [evaluate(labelled(denoiser, n, 1), query).mean.flatten() for n in range(5)]
    weights = [one.flatten().sqrt() for one in counts]
    matrix = torch.cat([torch.diag(one) for one in weights])
    right = torch.cat([one * view for one, view in zip(weights, views, strict=True)])
    solved = torch.linalg.lstsq(matrix, right[:, None]).solution[:, 0]
    assert torch.allclose(found, solved, atol=1e-10)


@many
def test_windows_of_any_canvas_cover_every_cell_and_their_shares_sum_to_one(numbers: range) -> None:
    for number in numbers:
        _, draws = drawn(number)
        height, width, side = 1 + draws[0] % 40, 1 + draws[1] % 40, 3 + draws[2] % 14
        overlap = draws[3] % (side - 1)
        shares = cover((height, width), side, overlap, around=bool(draws[4] % 2), even=bool(draws[5] % 2))
        total = torch.zeros(height, width, dtype=torch.float64)
        for share in shares:
            assert bool((share.weight > 0).all())
            assert share.weight.shape == (min(side, height), min(side, width))
            share.window.add(total, share.weight)
        assert torch.allclose(total, torch.ones_like(total), atol=1e-12)


def test_around_a_canvas_that_one_window_holds_there_are_two() -> None:
    for width in (33, 34, 40, 64):
        assert len(cover((64, width), 64, 32, around=True)) == 2


def test_windows_of_a_place_cover_all_of_it_and_hold_it_whole_where_it_fits() -> None:
    for number in range(RANDOM):
        generator, draws = drawn(number)
        height, width, side = 1 + draws[0] % 40, 1 + draws[1] % 40, 3 + draws[2] % 14
        (place,) = some_masks(generator, 1, height, width)
        shares = cover_of(place, side, draws[3] % (side - 1))
        total = torch.zeros(height, width, dtype=torch.float64)
        for share in shares:
            assert bool((share.window.of(place) > 0).any())
            share.window.add(total, share.weight)
        assert torch.allclose(total[place > 0], torch.ones(()).double(), atol=1e-12)
        rows, columns = (place > 0).any(1).sum(), (place > 0).any(0).sum()
        if max(rows, columns) <= side:
            assert len(shares) == 1


def test_every_cell_is_claimed_and_the_claims_sum_to_one_whatever_the_masks() -> None:
    for number in range(RANDOM):
        generator, draws = drawn(number)
        masks = some_masks(generator, 1 + draws[2] % 6, 1 + draws[0] % 24, 1 + draws[1] % 24)
        behind = torch.rand(masks[0].shape, generator=generator) if draws[3] % 2 else None
        claimed = joined(masks, behind)
        shares, alone = claimed / claimed.sum(0), owners(claimed, claimed)
        for each in (shares, alone):
            assert bool(each.isfinite().all())
            assert torch.allclose(each.sum(0), torch.ones_like(each[0]), atol=1e-12)


@many
def test_what_is_believed_is_the_same_in_any_order_nested_or_flat_and_in_any_batches(numbers: range) -> None:
    for number in numbers:
        generator, draws = drawn(number)
        height, width, side = 2 + draws[0] % 8, 2 + draws[1] % 8, 3 + draws[2] % 6
        masks = some_masks(generator, 1 + draws[3] % 3, height, width)
        query = Query(torch.randn(2, 1, height, width, generator=generator), torch.tensor([0.7, 0.2]).double())
        denoiser, grid = Says(), cover((height, width), side, draws[4] % 2)
        until = 0.5 if draws[5] % 2 else 1.0

        def placed(number: int, mask: Tensor, denoiser: Says = denoiser, side: int = side) -> Area:
            guided = classifier_free(denoiser, Condition(torch.full((2,), number)), 2.0)
            return Area(windowed(guided, cover_of(mask, side, 0)), mask, 1.0 + number)

        areas = [placed(n, mask) for n, mask in enumerate(masks)]
        background = windowed(labelled(denoiser, 9, 2), touching(grid, joined(masks)[0]))
        plan = regions(background, areas, until=until)
        denoiser.asked.clear()
        (one,) = answer([(plan, query)])
        calls = len(denoiser.asked)
        assert isinstance(one, Posterior)
        (turned,) = answer([(regions(background, areas[::-1], until=until), query)])
        (cut,) = answer([(plan, query)], max_batch=1 + draws[6] % 3)
        leaves, combine = plan(query)
        nested = combine([leaf.denoiser.posterior(leaf.x, leaf.t, leaf.given) for leaf in leaves])
        for other in (turned, cut, nested):
            assert isinstance(other, Posterior)
            assert torch.allclose(one.mean, other.mean, atol=1e-5)
        assert calls == len({tuple(leaf.x.shape) for leaf in leaves})  # one a shape


def test_a_place_that_covers_everything_is_no_place_to_the_last_bit() -> None:
    bundle = small_bundle(classes=3, schedule="cosine", parameterisation="v")
    query = Query(torch.randn(2, 3, 8, 8), torch.tensor([0.3, 0.9], dtype=torch.float64))
    denoiser, everywhere = bundle.denoiser(), torch.ones(8, 8)
    plan = classifier_free(denoiser, Condition(torch.tensor([1, 2])), 3.0)
    other = conditional(denoiser, Condition(torch.tensor([0, 0])))
    assert torch.equal(evaluate(regions(other, [Area(plan, everywhere)]), query).mean, evaluate(plan, query).mean)
    # beside a place of no cells of its own as well: it is not asked, so nothing is multiplied by 0
    with pytest.raises(SettingError, match="above 0"):
        regions(other, [Area(plan, everywhere), Area(other, everywhere, 0.0)])


def test_where_one_place_alone_is_asked_its_belief_is_its_own_to_the_last_bit() -> None:
    denoiser = Says()
    query = Query(torch.randn(2, 1, 6, 6), torch.tensor([0.3, 0.9], dtype=torch.float64))
    left = torch.zeros(6, 6)
    left[:, :3] = 1
    believed = evaluate(regions(labelled(denoiser, 0, 2), [Area(labelled(denoiser, 1, 2), left)]), query).mean
    assert torch.equal(believed[..., :3], evaluate(labelled(denoiser, 1, 2), query).mean[..., :3])
    assert torch.equal(believed[..., 3:], evaluate(labelled(denoiser, 0, 2), query).mean[..., 3:])


def test_places_that_go_away_from_the_same_ask_about_it_once_and_all_is_one_call() -> None:
    denoiser, count = Says(), 2
    query = Query(torch.randn(count, 1, 8, 8), torch.full((count,), 0.5, dtype=torch.float64))
    away = Condition(torch.full((count,), -1))
    masks = some_masks(torch.Generator().manual_seed(1), 3, 8, 8)
    areas = [
        Area(classifier_free(denoiser, Condition(torch.full((count,), n), unsaid=away), 3.0), mask)
        for n, mask in enumerate(masks)
    ]
    evaluate(regions(labelled(denoiser, 9, count), areas), query)
    assert denoiser.asked == [count * (1 + 3 + 1)]  # the background, three places, and what all three go away from
    # windows of the same canvas are shared too
    denoiser.asked.clear()
    areas = [Area(crops(area.plan, size=5, overlap=2), area.mask) for area in areas]
    evaluate(regions(crops(labelled(denoiser, 9, count), size=5, overlap=2), areas), query)
    assert denoiser.asked == [count * 4 * (1 + 3 + 1)]


def test_maps_of_the_canvas_are_cut_with_its_windows() -> None:
    class Maps:
        def posterior(self, x: Tensor, t: Tensor, condition: Condition) -> Posterior:
            assert condition.spatial is not None
            return Gaussian(condition.spatial + 0 * x)

    maps = torch.arange(2 * 6 * 9.0).reshape(2, 1, 6, 9)
    query = Query(torch.zeros(2, 1, 6, 9), torch.tensor([0.2, 0.8], dtype=torch.float64))
    for around in (False, True):
        plan = crops(conditional(Maps(), Condition(spatial=maps)), size=4, overlap=1, around=around)
        assert torch.allclose(evaluate(plan, query).mean, maps, atol=1e-5)
        picked = Query(query.x[[1, 1]], query.t[[1, 1]], torch.tensor([1, 1]))
        assert torch.allclose(evaluate(plan, picked).mean, maps[[1, 1]], atol=1e-5)


def test_around_a_canvas_nothing_begins_and_nothing_ends() -> None:
    """Turned by a step between windows, what is believed is turned too."""
    denoiser, wide = Says(), 12
    x = torch.randn(1, 1, 4, wide, generator=torch.Generator().manual_seed(0))
    plan = crops(labelled(denoiser, 1, 1), size=4, overlap=1, around=True)
    t = torch.tensor([0.5], dtype=torch.float64)
    assert len(cover((4, wide), 4, 1, around=True)) == 4
    turned = evaluate(plan, Query(x.roll(3, -1), t)).mean
    assert torch.allclose(turned, evaluate(plan, Query(x, t)).mean.roll(3, -1), atol=1e-6)


def test_while_places_are_prepared_they_are_not_mixed() -> None:
    """Of two that overlap the smaller one has the cells, whatever their order; below `until` they share them."""
    large, small = torch.zeros(2, 4, 4, dtype=torch.float64)
    large[:, :3] = 1
    small[1:3, 2:4] = 1
    denoiser, t = Says(), torch.tensor([0.9, 0.1], dtype=torch.float64)
    query = Query(torch.randn(2, 1, 4, 4), t)
    areas = [Area(labelled(denoiser, 1, 2), large), Area(labelled(denoiser, 2, 2), small)]
    of_each = [evaluate(labelled(denoiser, n, 2), query).mean for n in range(3)]
    believed = evaluate(regions(labelled(denoiser, 0, 2), areas, until=0.5), query).mean
    both = (large > 0) & (small > 0)
    assert torch.equal(believed[0, :, both], of_each[2][0, :, both])
    assert torch.allclose(believed[1, :, both], (of_each[1][1, :, both] + of_each[2][1, :, both]) / 2)
    assert torch.equal(owners(joined([large, small]), joined([large, small]))[2] > 0, small > 0)


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        ([], "no place"),
        ([torch.ones(2, 2), torch.ones(3, 2)], "one size"),
        ([torch.full((2, 2), 1.5)], r"\[0, 1\]"),
        ([torch.full((2, 2), torch.nan)], r"\[0, 1\]"),
    ],
)
def test_masks_that_are_none_are_refused(masks: list[Tensor], said: str) -> None:
    denoiser = Says()
    with pytest.raises(SettingError, match=said):
        regions(labelled(denoiser, 0, 1), [Area(labelled(denoiser, 1, 1), mask) for mask in masks])
