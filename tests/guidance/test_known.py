"""What is known of a sample stays as it is, whatever the sampler."""

from itertools import pairwise

import pytest
import torch
from exact import mixture

from neblina.core.conditions import Condition
from neblina.core.noise import SampleNoise
from neblina.core.plan import Query as Asked
from neblina.core.plan import conditional, evaluate
from neblina.guidance.known import known
from neblina.processes.continuous import VP
from neblina.processes.gaussian import GaussianProcess
from neblina.processes.grids import make_grid
from neblina.samplers import samplers
from neblina.samplers.drive import sample

PROCESS = GaussianProcess(VP())
DATA = torch.tensor([[0.3], [-1.2], [2.0], [0.7]], dtype=torch.float64)
FREE = torch.tensor([[0.0], [0.0], [1.0], [1.0]], dtype=torch.float64)
PLAN = conditional(mixture(PROCESS), Condition())


def start() -> tuple[SampleNoise, torch.Tensor]:
    noise = SampleNoise(0, range(4))
    return noise, noise(torch.empty(4, 1, dtype=torch.float64))


@pytest.mark.parametrize("name", [name for name, sampler in samplers.items() if sampler.order and not sampler.adaptive])
def test_every_sampler_ends_at_what_is_known(name: str) -> None:
    sampler = samplers[name]
    if sampler.learned_variance:
        pytest.skip("needs a network that learned its variance")
    noise, x = start()
    times = make_grid(sampler.grid, PROCESS.schedule, 20)
    made = sample(sampler(PROCESS, x, times, noise=noise), known(PLAN, DATA, FREE))
    assert torch.allclose(made[:2], DATA[:2], atol=1e-5)
    noise, x = start()
    alone = sample(sampler(PROCESS, x, times, noise=noise), PLAN)
    assert torch.allclose(made[2:], alone[2:], atol=1e-9)
    assert not torch.allclose(made[:2], alone[:2], atol=0.05)


def test_with_ddim_it_is_putting_the_noised_data_back_after_every_step() -> None:
    """Blended latents, as pipelines do it: x_s ← m x_s + (1 − m) (α_s y + σ_s ε), ε the noise of the start."""
    soft = torch.tensor([[0.0], [0.25], [0.5], [1.0]], dtype=torch.float64)
    hard = (soft > 0.4).double()
    noise, drawn = start()
    times = make_grid("uniform", PROCESS.schedule, 10)[2:]
    x = begin = PROCESS.diffuse(DATA, drawn, times[:1].expand(4))
    for t, s in pairwise(times.tolist()):
        at, to = (torch.full((4,), time, dtype=torch.float64) for time in (t, s))
        belief = evaluate(PLAN, Asked(x, at)).mean
        alpha, sigma = PROCESS.schedule.alpha(at)[:, None], PROCESS.schedule.sigma(at)[:, None]
        epsilon = (x - alpha * belief) / sigma
        moved = PROCESS.schedule.alpha(to)[:, None] * belief + PROCESS.schedule.sigma(to)[:, None] * epsilon
        x = hard * moved + (1 - hard) * PROCESS.diffuse(DATA, drawn, to)
    ours = sample(samplers["ddim"](PROCESS, begin, times, noise=noise), known(PLAN, DATA, hard))
    assert torch.allclose(ours, x, atol=1e-9)
