"""A weighting means the same whatever the network predicts, and is what its paper says."""

import math
from collections.abc import Callable

import pytest
import torch
from exact import SCHEDULES

from neblina.core.conditions import Condition
from neblina.core.errors import SettingError
from neblina.denoisers.denoiser import NetworkDenoiser
from neblina.denoisers.oracles import gaussian_denoiser
from neblina.denoisers.parameterisations import SIGMA_DATA, parameterisations
from neblina.objectives.simple import compare
from neblina.objectives.weightings import make_weighting, weightings
from neblina.processes.gaussian import GaussianProcess

T = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)
OURS = [name for name in weightings if name != "simple"]


@pytest.mark.parametrize("schedule", ["linear", "cosine", "vp", "ve", "flow", "edm", "sub-vp"])
@pytest.mark.parametrize("name", OURS)
def test_the_loss_of_one_belief_is_the_same_whatever_it_was_predicted_as(schedule: str, name: str) -> None:
    """One wrong belief about the data, told as eps, x0, v, score, flow and edm, costs the same."""
    process = GaussianProcess(SCHEDULES[schedule])
    wrong = gaussian_denoiser(process, 0.3, 0.7)
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, len(T), 1, generator=generator, dtype=torch.float64)
    costs = {}
    for predicted, row in parameterisations.items():

        class Tells(torch.nn.Module):
            def forward(self, x: torch.Tensor, time: torch.Tensor, row=row) -> torch.Tensor:  # type: ignore[no-untyped-def]
                x = process.diffuse(x0, noise, T)
                belief = wrong.posterior(x, T, Condition()).mean
                alpha, sigma = process.schedule.alpha(T)[:, None], process.schedule.sigma(T)[:, None]
                target: torch.Tensor = row.target(process.schedule, belief, (x - alpha * belief) / sigma, T)
                return target

        denoiser = NetworkDenoiser(Tells(), process, predicted)
        costs[predicted] = compare(denoiser, x0, noise, T, Condition(), make_weighting(name)).loss
    for predicted, cost in costs.items():
        assert torch.allclose(cost, costs["x0"], rtol=2e-4), (predicted, cost, costs["x0"])


def weight(name: str, predicted: str, schedule: str = "vp", **settings: float) -> torch.Tensor:
    return make_weighting(name, settings)(SCHEDULES[schedule], parameterisations[predicted], T)


def snr(schedule: str) -> torch.Tensor:
    return (SCHEDULES[schedule].alpha(T) / SCHEDULES[schedule].sigma(T)) ** 2


PUBLISHED: list[tuple[str, str, Callable[[torch.Tensor], torch.Tensor]]] = [
    ("snr", "eps", torch.ones_like),
    ("snr", "x0", lambda s: s),
    ("snr", "v", lambda s: s / (s + 1)),
    ("truncated-snr", "x0", lambda s: s.clamp(min=1)),
    ("min-snr", "eps", lambda s: s.clamp(max=5) / s),
    ("min-snr", "x0", lambda s: s.clamp(max=5)),
    ("min-snr", "v", lambda s: s.clamp(max=5) / (s + 1)),
    ("p2", "eps", lambda s: 1 / (1 + s)),
    ("p2", "v", lambda s: s / (1 + s) ** 2),
    ("edm", "x0", lambda s: 1 / SIGMA_DATA**2 + s),
]


@pytest.mark.parametrize(("name", "predicted", "published"), PUBLISHED)
@pytest.mark.parametrize("schedule", ["vp", "linear", "cosine"])
def test_weights_are_the_published_ones(
    name: str, predicted: str, published: Callable[[torch.Tensor], torch.Tensor], schedule: str
) -> None:
    assert torch.allclose(weight(name, predicted, schedule), published(snr(schedule)), rtol=1e-9)


@pytest.mark.parametrize("schedule", ["edm", "ve", "vp", "flow"])
def test_edm_s_weighting_times_c_out_squared_is_one(schedule: str) -> None:
    """Karras et al. 2022, table 1 and section 5: λ(σ) c_out(σ)² = 1, so the network's own error is unweighted."""
    assert torch.allclose(weight("edm", "edm", schedule), torch.ones_like(T))


def test_edm_s_weighting_is_lambda_of_sigma() -> None:
    sigma = SCHEDULES["edm"].sigma(T)
    wanted = (sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2
    assert torch.allclose(weight("edm", "x0", "edm"), wanted)


def test_settings_reach_the_weighting_and_unknown_ones_are_refused() -> None:
    assert torch.allclose(weight("min-snr", "x0", gamma=1.0), snr("vp").clamp(max=1))
    assert torch.allclose(weight("p2", "eps", k=2.0, gamma=0.5), (2 + snr("vp")) ** -0.5)
    with pytest.raises(SettingError, match=r"Did you mean gamma\?"):
        make_weighting("min-snr", {"gama": 5})
    with pytest.raises(SettingError, match=r"Did you mean min-snr\?"):
        make_weighting("minsnr")


@pytest.mark.parametrize(
    ("name", "setting", "value", "said"),
    [
        ("min-snr", "gamma", 0, "above 0, and 0 is not"),
        ("min-snr", "gamma", -5, "above 0, and -5 is not"),
        ("min-snr", "gamma", math.nan, "above 0, and nan is not"),
        ("min-snr", "gamma", math.inf, "above 0, and inf is not"),
        ("p2", "k", 0, "above 0, and 0 is not"),
        ("p2", "k", -1, "above 0, and -1 is not"),
        ("p2", "gamma", -0.5, "at least 0, and -0.5 is not"),
        ("p2", "gamma", math.nan, "at least 0, and nan is not"),
    ],
)
def test_a_setting_that_makes_no_weight_of_the_error_is_refused(
    name: str, setting: str, value: float, said: str
) -> None:
    """A weight of 0 teaches nothing, a negative one the opposite."""
    with pytest.raises(SettingError, match=f"{setting} of the {name} weighting is a finite number {said}"):
        make_weighting(name, {setting: value})


def test_p2_of_power_zero_weighs_the_error_of_the_noise_alike_at_all_times() -> None:
    assert torch.allclose(weight("p2", "v", gamma=0.0), weight("snr", "v"))


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("predicted", ["v", "x0", "flow", "edm"])
def test_weights_are_finite_where_nothing_is_left_of_the_data(name: str, predicted: str) -> None:
    end = torch.ones(1, dtype=torch.float64)
    for schedule in ("flow", "zero-snr"):
        value = make_weighting(name)(SCHEDULES[schedule], parameterisations[predicted], end)
        assert bool(value.isfinite().all())
