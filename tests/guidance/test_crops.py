"""A canvas asked about crop by crop is the canvas, wherever what is asked looks at one place at a time."""

from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
import torch
from models import small_bundle
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.errors import SettingError
from neblina.core.plan import Query, conditional, evaluate
from neblina.core.posterior import Gaussian, Posterior
from neblina.core.tiles import spans, weights
from neblina.guidance.crops import crops
from neblina.guidance.settings import GuidanceSettings

T = torch.tensor([0.4, 0.7], dtype=torch.float64)


@dataclass
class PlaceByPlace:
    """Believes in a function of every place alone, and counts how often and about what it is asked."""

    asked: list[tuple[int, ...]] = field(default_factory=list)

    def posterior(self, x: Tensor, t: Tensor, condition: Condition) -> Posterior:
        self.asked.append(tuple(x.shape))
        wide = t.to(x.dtype).reshape(-1, 1, 1, 1)
        return Gaussian(torch.tanh(x) * wide, unclipped_mean=x**2, variance_fraction=torch.sigmoid(x))


def noisy(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(height * 1000 + width))


@pytest.mark.parametrize("overlap", [0, 1, 3, 7])
def test_crops_of_every_length_have_the_size_asked_for_and_cover_it(overlap: int) -> None:
    for length in range(1, 70):
        tiles = spans(length, 8, overlap, whole=True)
        assert tiles[0].start == 0
        assert tiles[-1].stop == length
        assert all(tile.stop - tile.start == min(8, length) for tile in tiles)
        assert all(after.start + overlap <= before.stop for before, after in pairwise(tiles))
        total = torch.zeros(length)
        for tile, weight in zip(tiles, weights(tiles, 1, total), strict=True):
            assert bool((weight > 0).all())
            total[tile.start : tile.stop] += weight
        assert torch.allclose(total, torch.ones(length))


@pytest.mark.parametrize("size", [(9, 8), (8, 20), (17, 31), (5, 40), (64, 9)])
@pytest.mark.parametrize("overlap", [0, 2, 6])
def test_what_looks_at_one_place_at_a_time_is_believed_whole(size: tuple[int, int], overlap: int) -> None:
    denoiser = PlaceByPlace()
    query = Query(noisy(*size), T)
    whole = evaluate(conditional(denoiser, Condition()), query)
    cropped = evaluate(crops(conditional(denoiser, Condition()), size=8, overlap=overlap), query)
    for one, other in zip(vars(whole).values(), vars(cropped).values(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_the_crops_of_a_step_are_one_call() -> None:
    denoiser = PlaceByPlace()
    evaluate(crops(conditional(denoiser, Condition()), size=8, overlap=2), Query(noisy(20, 14), T))
    assert denoiser.asked == [(2 * 3 * 2, 3, 8, 8)]


def test_a_canvas_no_larger_than_a_crop_is_asked_about_as_it_is() -> None:
    bundle = small_bundle()
    plan = conditional(bundle.denoiser(), Condition())
    for size in ((8, 8), (4, 8)):
        query = Query(noisy(*size), T)
        assert torch.equal(evaluate(crops(plan, size=8, overlap=2), query).mean, evaluate(plan, query).mean)


def test_a_crop_in_the_middle_is_what_the_network_says_of_it() -> None:
    """Where one crop alone covers, its own answer stands."""
    bundle = small_bundle()
    plan = conditional(bundle.denoiser(), Condition())
    x = noisy(8, 14)  # two crops, the first six columns are the first one's alone
    whole = evaluate(crops(plan, size=8, overlap=2), Query(x, T)).mean
    assert torch.allclose(whole[..., :6], evaluate(plan, Query(x[..., :8], T)).mean[..., :6], atol=1e-5)
    assert torch.allclose(whole[..., 8:], evaluate(plan, Query(x[..., 6:], T)).mean[..., 2:], atol=1e-5)


def test_guidance_goes_into_the_crops_and_what_is_known_stays() -> None:
    """Two branches about two crops are one call; what is known of the canvas is believed outright."""
    bundle = small_bundle(classes=3, schedule="cosine", parameterisation="v")
    denoiser, x = bundle.denoiser(), noisy(8, 14)
    condition = Condition(torch.tensor([0, 2]))
    data, free = torch.rand(2, 3, 8, 14), torch.zeros(1, 1, 8, 14)
    free[..., :5] = 1
    guiding = GuidanceSettings(3.0, clip=1.0, crops=(8, 2), known=(data, free))
    sizes: list[int] = []
    hook = bundle.net.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    believed = evaluate(guiding.plan(denoiser, condition), Query(x, T)).mean
    hook.remove()
    assert sizes == [2 * 2 * 2]
    assert torch.equal(believed[..., 5:], data[..., 5:])
    alone = replace(guiding, crops=None, known=None).plan(denoiser, condition)
    assert torch.allclose(believed[..., :5], evaluate(alone, Query(x[..., :8], T)).mean[..., :5], atol=1e-5)


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (8, 8), (8, -1)])
def test_crops_that_are_none_are_refused(size: int, overlap: int) -> None:
    with pytest.raises(SettingError, match="windows of side"):
        crops(conditional(PlaceByPlace(), Condition()), size=size, overlap=overlap)
