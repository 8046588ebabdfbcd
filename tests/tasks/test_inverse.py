"""Restoring pictures: the measurement is met, whatever the batch, and what does not fit is refused."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from models import small_bundle

from neblina.core.errors import SettingError
from neblina.guidance.operators import AveragePool, Mask, Operator
from neblina.nets.unet import UNet
from neblina.tasks.inverse import restore
from neblina.tasks.model import Model

CPU = torch.device("cpu")
HALF = torch.arange(8).expand(8, 8) < 4
PICTURES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def model_of(**settings: Any) -> Model:
    return Model(small_bundle(**{"schedule": "cosine", "parameterisation": "v", **settings}), CPU)


@pytest.mark.parametrize("method", ["moment-matching", "posterior-sampling"])
def test_a_restored_picture_belongs_to_its_measurement_whatever_the_batch(method: str) -> None:
    model, operator = model_of(), AveragePool(2)
    y = operator(PICTURES)
    at_once = restore(model, y, operator, method=method, steps=4, seed=5)
    assert at_once.shape == (3, 3, 8, 8)
    assert bool(at_once.isfinite().all())
    assert not at_once.requires_grad
    one_by_one = restore(model, y, operator, method=method, steps=4, seed=5, batch=1)
    assert torch.allclose(one_by_one, at_once, atol=1e-3)
    other = restore(model, y.flip(0), operator, method=method, steps=4, seed=5)
    assert not torch.allclose(other, at_once, atol=1e-2)


class Exact(torch.nn.Module):
    """The exact network of pixels that are N(0, 0.5²), under straight lines: it predicts clean data."""

    def __init__(self, net: UNet) -> None:
        super().__init__()
        self.config = net.config
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor, time: torch.Tensor, *rest: Any, **given: Any) -> torch.Tensor:
        t = (time / 1000).reshape(-1, 1, 1, 1)
        return x * (1 - t) * 0.25 / ((1 - t) ** 2 * 0.25 + t**2)


def unsaid(x: torch.Tensor, operator: Operator) -> torch.Tensor:
    """What a measurement leaves open of pictures."""
    if isinstance(operator, Mask):
        return x[..., ~HALF]
    return x - operator(x).repeat_interleave(2, -1).repeat_interleave(2, -2)


@pytest.mark.parametrize("operator", [AveragePool(2), Mask(HALF)], ids=["pooled", "masked"])
@pytest.mark.parametrize("method", ["moment-matching", "posterior-sampling"])
def test_the_measurement_is_met_and_what_it_leaves_open_is_what_it_would_have_been(
    method: str, operator: Operator
) -> None:
    """White Gaussian pictures: what is measured of them says nothing about the rest."""
    bundle = small_bundle(schedule="flow", parameterisation="x0")
    model = Model(replace(bundle, net=Exact(bundle.net).eval()), CPU)
    y = operator(0.5 * torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(1)))
    free = model.generate(n=16, sampler="ddpm", steps=50, seed=2)
    made = restore(model, y, operator, method=method, steps=50, seed=2)
    assert torch.allclose(unsaid(made, operator), unsaid(free, operator), atol=1e-4)
    missed, by_chance = (operator(x) - operator.seen(y) for x in (made, free))
    measured = by_chance != 0
    assert float(missed[measured].square().mean().sqrt()) < 0.05  # the noise that moment matching takes it to have
    assert float(by_chance[measured].square().mean().sqrt()) > 0.25


def test_the_pixels_outside_a_mask_are_not_looked_at() -> None:
    model, operator = model_of(), Mask(HALF)
    blanked = torch.where(HALF, PICTURES, torch.nan)
    one, other = (restore(model, y, operator, steps=3) for y in (PICTURES, blanked))
    assert torch.equal(one, other)


def test_a_model_with_labels_restores_with_and_without_them() -> None:
    model, operator = model_of(classes=3), AveragePool(2)
    y = operator(PICTURES)
    without = restore(model, y, operator, steps=3)
    given = restore(model, y, operator, steps=3, labels=torch.tensor([0, 1, 2]))
    assert not torch.allclose(without, given, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"operator": AveragePool(3)}, "blocks of 3"),
        ({"operator": AveragePool(4)}, r"it is \(N, 3, 2, 2\)"),
        ({"operator": Mask(HALF[:4])}, "does not fit"),
        ({"measurement": torch.zeros(0, 3, 4, 4)}, "N at least 1"),
        ({"measurement": torch.full((1, 3, 4, 4), torch.nan)}, "not finite"),
        ({"method": "posterior-samplin"}, "Did you mean posterior-sampling"),
        ({"method": "moment-matching", "noise": 0.0}, "little noise"),
        ({"method": "moment-matching", "iterations": 0}, "at least 1 iteration"),
        ({"strength": -1.0}, "at least 0"),
        ({"strength": math.inf}, "a finite number, at least 0, and inf is not"),
        ({"method": "moment-matching", "noise": math.inf}, "a finite noise above 0"),
        ({"noise": 0.1}, "'noise' is not a setting of posterior-sampling"),
        ({"sampler": "ddmp"}, "Did you mean ddpm"),
        ({"labels": torch.zeros(2)}, "3 measurements and labels of shape"),
        ({"batch": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_restored_is_refused(settings: dict[str, Any], said: str) -> None:
    given = {"measurement": AveragePool(2)(PICTURES), "operator": AveragePool(2), **settings}
    with pytest.raises(SettingError, match=said):
        restore(model_of(), **given)
