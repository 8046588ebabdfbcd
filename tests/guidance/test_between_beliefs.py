"""Interval, rescale, autoguidance, thresholding: what each does to beliefs, and in which order."""

import math
from dataclasses import dataclass, field, replace

import pytest
import torch
from exact import mixture
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.errors import SettingError
from neblina.core.plan import Plan, Query, conditional, evaluate
from neblina.core.posterior import Gaussian
from neblina.denoisers.oracles import MixtureDenoiser, gaussian_denoiser
from neblina.guidance.affine import classifier_free, extrapolated
from neblina.guidance.clipping import clip, threshold
from neblina.guidance.interval import interval
from neblina.guidance.rescaling import rescaled
from neblina.processes.continuous import EDM, VP
from neblina.processes.gaussian import Eta, GaussianProcess

PROCESS = GaussianProcess(VP())
LABELS = Condition(torch.tensor([0, 1, 2, 0]))
TIMES = torch.tensor([0.05, 0.3, 0.5, 0.9], dtype=torch.float64)
LEVELS = PROCESS.schedule.sigma(TIMES) / PROCESS.schedule.alpha(TIMES)
QUERY = Query(torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3), TIMES)


@dataclass(frozen=True)
class Recorded:
    """An exact denoiser of three-pixel pictures that remembers what it was asked."""

    inner: MixtureDenoiser = field(
        default_factory=lambda: replace(
            mixture(PROCESS), means=torch.tensor([[-1.0, 0, 1], [0.2, 0.3, -0.4], [0.9, -0.9, 0]]).double()
        )
    )
    asked: list[list[int]] = field(default_factory=list)

    def posterior(self, x: Tensor, t: Tensor, condition: Condition) -> Gaussian:
        assert condition.labels is not None
        self.asked.append(condition.labels.tolist())
        return self.inner.posterior(x, t, condition)


@dataclass(frozen=True)
class Tripled:
    """Believes in three times what it is shown, with a learned variance."""

    def posterior(self, x: Tensor, t: Tensor, condition: Condition) -> Gaussian:
        return Gaussian(3 * x, variance_fraction=torch.full_like(x, 0.3))


def branches(denoiser: Recorded) -> tuple[Plan, Plan, Plan]:
    """The conditional plan, the null plan, and guidance of weight 4 by the two."""
    plain, null = conditional(denoiser, LABELS), conditional(denoiser, LABELS.null())
    return plain, null, extrapolated(plain, null, weight=4.0)


def test_between_two_noise_levels_there_is_guidance_and_elsewhere_none() -> None:
    denoiser = Recorded()
    plain, _, guided = branches(denoiser)
    limited = evaluate(interval(guided, plain, PROCESS.schedule, low=0.2, high=5.0), QUERY).mean
    inside = (LEVELS >= 0.2) & (LEVELS <= 5.0)
    assert inside.tolist() == [False, True, True, False]
    assert torch.allclose(limited[inside], evaluate(guided, QUERY).mean[inside])
    assert torch.allclose(limited[~inside], evaluate(plain, QUERY).mean[~inside])


def test_the_null_branch_is_asked_for_the_samples_inside_and_for_no_other() -> None:
    denoiser = Recorded()
    plain, _, guided = branches(denoiser)
    evaluate(interval(guided, plain, PROCESS.schedule, low=0.2, high=5.0), QUERY)
    (labels,) = denoiser.asked
    assert sorted(labels) == [-1, -1, 0, 0, 1, 2]
    evaluate(interval(guided, plain, PROCESS.schedule, low=1e-9, high=1e-8), QUERY)
    assert denoiser.asked[1] == LABELS.labels.tolist()  # type: ignore[union-attr]


def test_the_interval_is_in_noise_levels_that_mean_the_same_for_every_schedule() -> None:
    edm = GaussianProcess(EDM())
    t = torch.tensor([1.5, 2.5], dtype=torch.float64) / 80
    plain, other = (conditional(gaussian_denoiser(edm, mean, 1.0), Condition()) for mean in (0.0, 5.0))
    query = Query(torch.zeros(2, 1, dtype=torch.float64), t)
    limited = evaluate(interval(other, plain, edm.schedule, low=1.0, high=2.0), query).mean
    assert torch.equal(limited[0], evaluate(other, query).mean[0])
    assert torch.equal(limited[1], evaluate(plain, query).mean[1])


def test_beliefs_keep_what_they_carry_on_both_sides_of_an_interval() -> None:
    plain, _, guided = branches(Recorded())
    kept = clip(guided, 0.5, keep_direction=True)
    belief = evaluate(interval(kept, plain, PROCESS.schedule, low=0.2, high=5.0), QUERY)
    whole = evaluate(interval(guided, plain, PROCESS.schedule, low=0.2, high=5.0), QUERY).mean
    assert belief.unclipped_mean is not None
    assert torch.allclose(belief.unclipped_mean, whole)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(2.0, 0.5, "upside down.*Write 0.5 2"), (1.0, 1.0, "no noise level"), (-1.0, 1.0, "no noise level")],
)
def test_an_interval_that_holds_nothing_is_refused(low: float, high: float, said: str) -> None:
    plain, _, guided = branches(Recorded())
    with pytest.raises(SettingError, match=said):
        interval(guided, plain, PROCESS.schedule, low=low, high=high)


def test_rescaled_wholly_every_picture_has_the_spread_of_the_plain_belief() -> None:
    plain, _, guided = branches(Recorded())
    right = evaluate(plain, QUERY).mean.std(1)
    wide = evaluate(guided, QUERY).mean
    whole = evaluate(rescaled(guided, plain, strength=1.0), QUERY).mean
    assert torch.allclose(whole.std(1), right)
    assert not torch.allclose(wide.std(1), right, rtol=0.05)
    half = evaluate(rescaled(guided, plain, strength=0.5), QUERY).mean
    assert torch.allclose(half, (whole + wide) / 2)


def test_rescaling_asks_nothing_more_than_guidance_does() -> None:
    denoiser = Recorded()
    plain, _, guided = branches(denoiser)
    evaluate(rescaled(guided, plain, strength=0.7), QUERY)
    assert [len(labels) for labels in denoiser.asked] == [8]


@pytest.mark.parametrize("strength", [-0.1, 1.1, math.nan])
def test_a_rescaling_that_is_no_share_is_refused(strength: float) -> None:
    plain, _, guided = branches(Recorded())
    with pytest.raises(SettingError, match="between 0"):
        rescaled(guided, plain, strength=strength)


def test_autoguidance_goes_from_the_weaker_model_through_the_stronger_and_beyond() -> None:
    """A weaker model of N(0, s²) believes in a wider one; going beyond the stronger makes it narrower."""
    strong, weak = (conditional(gaussian_denoiser(PROCESS, 0.0, std), Condition()) for std in (1.0, 1.5))
    query = Query(torch.ones(1, 1, dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64))
    guided, one, other = (evaluate(plan, query).mean for plan in (extrapolated(strong, weak, weight=2.0), strong, weak))
    assert torch.allclose(guided, 2 * one - other)
    assert bool(guided < one) & bool(one < other)


def test_thresholding_is_imagens_formula() -> None:
    """s = max(p-quantile of |x̂_0|, 1) of each picture by itself; clip to [−s, s]; divide by s."""
    wide = conditional(Tripled(), LABELS)
    raw = evaluate(wide, QUERY).mean
    done = evaluate(threshold(wide, 0.5), QUERY).mean
    medians = raw.abs().sort(1).values[:, 1]
    assert bool((medians > 1).any())
    assert bool((medians < 1).any())
    for row, s, made in zip(raw, medians.clamp(min=1), done, strict=True):
        assert torch.allclose(made, row.clamp(-s, s) / s)
    assert float(done.abs().max()) <= 1


def test_thresholding_after_guidance_is_not_guidance_after_thresholding() -> None:
    plain, null, guided = branches(Recorded())
    outside = evaluate(threshold(guided, 0.9), QUERY).mean
    inside = evaluate(extrapolated(threshold(plain, 0.9), threshold(null, 0.9), weight=4.0), QUERY).mean
    assert float(outside.abs().max()) <= 1  # threshold(cfg(…)) holds the range
    assert float(inside.abs().max()) > 1.2  # cfg(threshold(…)) leaves it again


def test_operators_on_the_mean_leave_the_learned_variance_alone() -> None:
    plain = conditional(Tripled(), LABELS)
    for plan in (clip(plain), threshold(plain, 0.9), rescaled(extrapolated(plain, plain, weight=2), plain, strength=1)):
        belief = evaluate(plan, QUERY)
        assert belief.variance_fraction is not None
        assert torch.equal(belief.variance_fraction, torch.full_like(QUERY.x, 0.3))
        step = PROCESS.reverse(QUERY.x, TIMES, TIMES / 2, belief, Eta(1.0))
        assert bool(step.mean.isfinite().all())


@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan])
def test_a_limit_that_leaves_no_range_is_refused(limit: float) -> None:
    plain = conditional(Tripled(), LABELS)
    for clipped in (lambda: clip(plain, limit), lambda: threshold(plain, limit=limit)):
        with pytest.raises(SettingError, match=f"limit of the clean data is above 0, and {limit:g} is not"):
            clipped()


@pytest.mark.parametrize("quantile", [0.0, 99.5, math.nan])
def test_a_threshold_that_is_no_share_is_refused(quantile: float) -> None:
    with pytest.raises(SettingError, match=r"such as 0\.995"):
        threshold(classifier_free(Recorded(), LABELS, 2.0), quantile)
