"""Suite 4: every parameterisation, on every schedule, says the same thing in other words."""

import pytest
import torch
from torch import Tensor, nn

from neblina.core.conditions import Condition
from neblina.core.errors import SettingError
from neblina.denoisers.denoiser import NetworkDenoiser
from neblina.denoisers.oracles import gaussian_denoiser
from neblina.denoisers.parameterisations import SIGMA_DATA, check_end, clocks, default_clock, parameterisations
from neblina.objectives.simple import compare, spread_uniforms
from neblina.processes.continuous import EDM, VP
from neblina.processes.gaussian import GaussianProcess
from neblina.processes.schedules import Schedule
from neblina.processes.tables import Linear

EVERY = pytest.mark.parametrize("name", list(parameterisations))
INSIDE = torch.tensor([0.001, 0.02, 0.3, 0.5, 0.7, 0.98], dtype=torch.float64)


class Told(nn.Module):
    """A network that answers what it is given, and remembers what it was asked."""

    def __init__(self, prediction: Tensor) -> None:
        super().__init__()
        self.prediction = prediction
        self.asked: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        self.asked.append((x, time))
        return self.prediction


@EVERY
def test_a_network_that_predicts_the_target_is_read_as_the_clean_data(name: str, schedule: Schedule) -> None:
    x0, noise = torch.randn(2, len(INSIDE), 3, dtype=torch.float64)
    process = GaussianProcess(schedule)
    target = parameterisations[name].target(schedule, x0, noise, INSIDE)
    denoiser = NetworkDenoiser(Told(target), process, name)
    mean = denoiser.posterior(process.diffuse(x0, noise, INSIDE), INSIDE, Condition()).mean
    assert torch.allclose(mean, x0, atol=1e-6)


@EVERY
def test_the_loss_of_a_perfect_prediction_is_zero(name: str, schedule: Schedule) -> None:
    x0, noise = torch.randn(2, len(INSIDE), 3, dtype=torch.float64)
    target = parameterisations[name].target(schedule, x0, noise, INSIDE)
    denoiser = NetworkDenoiser(Told(target), GaussianProcess(schedule), name)
    assert float(compare(denoiser, x0, noise, INSIDE, Condition()).loss.max()) < 1e-9


@EVERY
def test_the_exact_denoiser_in_any_words_is_the_exact_denoiser(name: str, schedule: Schedule) -> None:
    """Written as a network's prediction and read back, E[x_0 | x_t] survives."""
    process, x = GaussianProcess(schedule), torch.randn(len(INSIDE), 1, dtype=torch.float64)
    exact = gaussian_denoiser(process, 0.3, 0.6).posterior(x, INSIDE, Condition()).mean
    alpha, sigma = schedule.alpha(INSIDE)[:, None], schedule.sigma(INSIDE)[:, None]
    prediction = parameterisations[name].target(schedule, exact, (x - alpha * exact) / sigma, INSIDE)
    read = NetworkDenoiser(Told(prediction), process, name).posterior(x, INSIDE, Condition()).mean
    assert torch.allclose(read, exact, atol=1e-6)


def test_the_published_targets() -> None:
    schedule = VP()
    t = torch.tensor([0.3], dtype=torch.float64)
    x0, noise = torch.tensor([[0.4]], dtype=torch.float64), torch.tensor([[-1.3]], dtype=torch.float64)
    alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
    published = {
        "eps": noise,
        "x0": x0,
        "v": alpha * noise - sigma * x0,
        "score": -noise / sigma,
        "flow": noise - x0,
    }
    for name, target in published.items():
        assert torch.allclose(parameterisations[name].target(schedule, x0, noise, t), target), name


def test_edm_is_its_paper_s_preconditioning() -> None:
    """Karras et al. 2022, table 1, at α = 1: D = c_skip x + c_out F(c_in x; c_noise)."""
    schedule, t = EDM(), torch.tensor([0.02], dtype=torch.float64)
    sigma = schedule.sigma(t)
    x, prediction = torch.randn(2, 1, 3, dtype=torch.float64)
    net = Told(prediction)
    ours = NetworkDenoiser(net, GaussianProcess(schedule), "edm").posterior(x, t, Condition()).mean
    c_skip = SIGMA_DATA**2 / (sigma**2 + SIGMA_DATA**2)
    c_out = sigma * SIGMA_DATA / (sigma**2 + SIGMA_DATA**2).sqrt()
    assert torch.allclose(ours, c_skip * x + c_out * prediction)
    ((asked, time),) = net.asked
    assert torch.allclose(asked, x / (sigma**2 + SIGMA_DATA**2).sqrt())
    assert torch.allclose(time, (sigma.log() / 4).float())


@EVERY
def test_at_the_end_of_time_a_prediction_is_read_or_the_pair_is_refused(name: str, schedule: Schedule) -> None:
    """eps and the score say nothing about the data where nothing of it is left."""
    one = torch.ones(2, dtype=torch.float64)
    x, prediction = torch.randn(2, 2, 3, dtype=torch.float64)
    read = parameterisations[name].mean(schedule, x, prediction, one)
    if bool(read.isfinite().all()):
        check_end(name, None, schedule)
    else:
        assert float(schedule.alpha(one)[0]) == 0
        with pytest.raises(SettingError, match=f"{name} says nothing about the data"):
            check_end(name, None, schedule)


@EVERY
def test_at_the_beginning_of_time_the_prediction_of_the_target_is_read_as_the_data(
    name: str, schedule: Schedule
) -> None:
    """At σ = 0; only the score's own target is infinite there."""
    zero = torch.zeros(2, dtype=torch.float64)
    x0, noise = torch.randn(2, 2, 3, dtype=torch.float64)
    target = parameterisations[name].target(schedule, x0, noise, zero)
    if bool(target.isfinite().all()):
        assert torch.allclose(parameterisations[name].mean(schedule, x0, target, zero), x0, atol=1e-9)
    else:
        assert name == "score"


def test_step_n_of_the_paper_is_index_n_minus_one() -> None:
    schedule, row = Linear(), parameterisations["eps"]
    n = torch.tensor([1.0, 2.0, 500.0, 1000.0], dtype=torch.float64)
    index = clocks[default_clock(row, schedule)](schedule, n / 1000)
    assert torch.allclose(index, n - 1, atol=1e-9)
    assert default_clock(row, VP()) == "time"
    assert default_clock(parameterisations["edm"], EDM()) == "c_noise"


@pytest.mark.parametrize("clock", list(clocks))
def test_every_clock_is_finite_at_every_time_it_can_tell(clock: str, schedule: Schedule) -> None:
    if clock == "index" and schedule.steps is None:
        pytest.skip("continuous schedules have no index")
    t = torch.tensor([1e-6, 0.5, 1.0], dtype=torch.float64)
    told = clocks[clock](schedule, t)
    if clock != "sigma":  # the noise level itself is infinite where nothing is left of the data
        assert bool(told.isfinite().all())
    assert bool((told.diff() >= 0).all())


def test_training_times_are_uniform_one_by_one_and_spread_together() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([spread_uniforms(8, generator) for _ in range(4000)])
    assert torch.equal((draws.sort(1).values * 8).floor()[:, :], torch.arange(8.0).double().expand(4000, 8))
    first = draws[:, 0]
    assert float(first.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(first.var()) == pytest.approx(1 / 12, abs=0.005)
