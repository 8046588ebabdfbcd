"""The driver: many live generators, one call; stopping, cancelling, failing and closing."""

from collections.abc import Generator

import pytest
import torch
from exact import mixture
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.errors import Cancelled, SettingError
from neblina.core.noise import SampleNoise
from neblina.core.plan import Query, conditional
from neblina.core.posterior import Gaussian
from neblina.denoisers.oracles import MixtureDenoiser
from neblina.processes.continuous import VP
from neblina.processes.gaussian import GaussianProcess
from neblina.processes.grids import make_grid
from neblina.samplers import samplers
from neblina.samplers.drive import Driver, Run, Step, drive, sample
from neblina.samplers.registry import Sampling

PROCESS = GaussianProcess(VP())


class Counting:
    """An exact denoiser that remembers the size of every call."""

    def __init__(self) -> None:
        self.inner: MixtureDenoiser = mixture(PROCESS)
        self.calls: list[int] = []

    def posterior(self, x: Tensor, t: Tensor, condition: Condition) -> Gaussian:
        self.calls.append(len(x))
        return self.inner.posterior(x, t, condition)


def start(name: str, steps: int, indices: range) -> Sampling:
    sampler = samplers[name]
    noise = SampleNoise(0, indices)
    x = PROCESS.prior(noise(torch.empty(len(indices), 1, dtype=torch.float64)))
    return sampler(PROCESS, x, make_grid(sampler.grid, PROCESS.schedule, steps), noise=noise)


def test_different_samplers_at_different_steps_share_every_call() -> None:
    """DDIM (20 evaluations), Heun (7 steps, 13 evaluations) and DPM-Solver++(2M) (13): 20 calls, not 46."""
    denoiser = Counting()
    plan = conditional(denoiser, Condition())
    settings = [("ddim", 20, range(2)), ("heun", 7, range(2, 5)), ("dpmpp_2m", 13, range(5, 9))]
    together = drive([Run(start(*one), plan) for one in settings])
    assert len(denoiser.calls) == 20
    assert denoiser.calls[0] == 9
    for result, one in zip(together, settings, strict=True):
        assert isinstance(result, Tensor)
        assert torch.allclose(result, sample(start(*one), plan), atol=1e-12)


def test_a_run_may_join_while_others_are_on_their_way() -> None:
    denoiser = Counting()
    plan = conditional(denoiser, Condition())
    driver = Driver()
    first = driver.add(Run(start("ddim", 6, range(2)), plan))
    driver.step()
    driver.step()
    second = driver.add(Run(start("ddim", 6, range(2)), plan))
    while driver.live:
        driver.step()
    assert isinstance(first.result, Tensor)
    assert isinstance(second.result, Tensor)
    assert torch.allclose(first.result, second.result, atol=1e-12)
    assert len(denoiser.calls) == 8


def test_the_callback_sees_every_answer_and_can_stop_early() -> None:
    seen: list[Step] = []

    def stop_at_half(step: Step) -> bool:
        seen.append(step)
        return float(step.query.t[0]) <= 0.5

    plan = conditional(Counting(), Condition())
    stopped = sample(start("ddpm", 20, range(3)), plan, on_step=stop_at_half)
    assert [step.evaluation for step in seen] == list(range(1, len(seen) + 1))
    assert len(seen) < 20
    assert torch.equal(stopped, seen[-1].posterior.mean)


@pytest.mark.slow
def test_a_grid_that_ends_early_is_truncated_sampling() -> None:
    """Stopping at t > 0 leaves samples of q(x_t)."""
    noise = SampleNoise(0, range(4000))
    x = PROCESS.prior(noise(torch.empty(4000, 1, dtype=torch.float64)))
    grid = torch.linspace(1, 0.4, 60, dtype=torch.float64)
    made = sample(samplers["ddpm"](PROCESS, x, grid, noise=noise), conditional(mixture(PROCESS), Condition()))
    denoiser = mixture(PROCESS)
    alpha, sigma = PROCESS.schedule.alpha(grid[-1:]), PROCESS.schedule.sigma(grid[-1:])
    mean = (denoiser.weights * denoiser.means[:, 0]).sum()
    variance = (denoiser.weights * (denoiser.stds**2 + denoiser.means[:, 0] ** 2)).sum() - mean**2
    assert float(made.mean()) == pytest.approx(float(alpha * mean), abs=0.06)
    assert float(made.var()) == pytest.approx(float(alpha**2 * variance + sigma**2), rel=0.1)


def test_cancelling_ends_every_live_run_with_its_own_error() -> None:
    denoiser = Counting()
    plan = conditional(denoiser, Condition())
    results = drive(
        [Run(start("ddim", steps, range(2)), plan) for steps in (2, 10)], cancelled=lambda: len(denoiser.calls) >= 4
    )
    assert isinstance(results[0], Tensor)
    assert isinstance(results[1], Cancelled)
    with pytest.raises(Cancelled):
        sample(start("ddim", 5, range(2)), plan, cancelled=lambda: True)


def test_generators_are_always_closed() -> None:
    closed: list[str] = []

    def endless(name: str) -> Generator[Query, Gaussian, Tensor]:
        try:
            while True:
                yield Query(torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
        finally:
            closed.append(name)

    calls: list[int] = []
    plan = conditional(Counting(), Condition())

    def tick() -> bool:
        calls.append(1)
        return len(calls) > 3

    drive([Run(endless("cancelled"), plan)], cancelled=tick)
    drive([Run(endless("stopped"), plan, on_step=lambda step: True)])

    def interrupt(step: Step) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drive([Run(endless("interrupted"), plan, on_step=interrupt), Run(endless("bystander"), plan)])
    assert closed == ["cancelled", "stopped", "interrupted", "bystander"]


def test_one_run_s_failure_never_reaches_another() -> None:
    def failing() -> Generator[Query, Gaussian, Tensor]:
        yield Query(torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
        raise ValueError("mine alone")

    def complaining(step: Step) -> bool:
        raise RuntimeError("callback")

    plan = conditional(Counting(), Condition())
    wrong = conditional(Counting(), Condition(torch.zeros(7, dtype=torch.int64)))  # labels for seven, samples for two
    results = drive(
        [
            Run(failing(), plan),
            Run(start("ddim", 3, range(2)), wrong),
            Run(start("ddim", 3, range(2)), plan, on_step=complaining),
            Run(start("ddim", 5, range(2)), plan),
        ]
    )
    assert [type(result).__name__ for result in results] == ["ValueError", "RuntimeError", "RuntimeError", "Tensor"]
    assert torch.allclose(results[3], sample(start("ddim", 5, range(2)), plan), atol=1e-12)  # type: ignore[arg-type]


def test_no_gradient_is_recorded_and_the_caller_s_mode_is_left_alone() -> None:
    plan = conditional(Counting(), Condition())
    made = sample(start("heun", 3, range(2)), plan)
    assert not made.requires_grad
    assert torch.is_grad_enabled()


def test_wrong_settings_are_refused_before_anything_runs() -> None:
    x = torch.zeros(1, 1)
    noise = SampleNoise(0, [0])
    with pytest.raises(SettingError, match="Did you mean dpmpp_2m"):
        samplers["dpmp_2m"]
    with pytest.raises(SettingError, match="Did you mean eta"):
        samplers["ddim"](PROCESS, x, torch.tensor([1.0, 0.0]), noise=noise, etta=1.0)
    for grid in ([0.2, 0.4, 0.0], [1.2, 0.0], [0.5, -0.1]):
        with pytest.raises(SettingError, match="falls from"):
            samplers["ddim"](PROCESS, x, torch.tensor(grid), noise=noise)
    with pytest.raises(SettingError, match="walks on a GaussianProcess"):
        samplers["ddim"](None, x, torch.tensor([1.0, 0.0]), noise=noise)  # type: ignore[arg-type]
