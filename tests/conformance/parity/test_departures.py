"""Where a sampler and a scheduler of one name are not the same map: who departs from the paper, and where.

Each test takes the departure away from diffusers, and what is left agrees.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from parity.harness import Case, agree, asked_alike, ours, replay, same, theirs
from torch import Tensor, nn

from neblina.bundle.schedulers import read_scheduler
from neblina.core.errors import CheckpointError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Stride:
    """Stands in for a number of steps: what the table's length divided by it is, is given."""

    def __init__(self, stride: int) -> None:
        self.stride = stride

    def __rfloordiv__(self, total: int) -> int:
        return self.stride


@pytest.mark.parametrize("kind", ["DDIMScheduler", "PNDMScheduler"])
@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
def test_ddim_steps_to_the_next_visited_time(kind: str, spacing: str) -> None:
    """diffusers departs from Song et al. 2021, eq. 12: it steps by ⌊T/N⌋ whatever is visited next."""
    case = Case(kind, {"timestep_spacing": spacing, "set_alpha_to_one": True}, steps=7)
    if kind == "PNDMScheduler":
        case = replace(case, settings={**case.settings, "skip_prk_steps": True})

    def stride_as_visited(scheduler: Any) -> None:
        step, visited = scheduler.step, [*scheduler.timesteps.unique().flip(0).tolist(), -1]

        def stepped(answer: Tensor, time: Tensor, x: Tensor) -> Any:
            place = visited.index(int(time))
            if kind == "PNDMScheduler" and scheduler.counter == 1:  # repeats the first step from its end
                place -= 1
            scheduler.num_inference_steps = Stride(visited[place] - visited[place + 1])
            return step(answer, time, x)

        scheduler.step = stepped

    with pytest.raises(AssertionError):
        agree(case)
    agree(case, stride_as_visited)


@pytest.mark.parametrize("variance", ["fixed_large", "learned_range"])
def test_the_step_to_clean_data_adds_no_noise(variance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers departs from Ho et al. 2020, algorithm 2, line 3: it adds noise in a last step from above the first."""
    case = Case("DDPMScheduler", {"variance_type": variance, "timestep_spacing": "trailing", "clip_sample": False})
    replay(case.kind, monkeypatch)
    one, other = case.net(), case.net()
    with torch.no_grad():
        end, their_end = ours(case, one), theirs(case, other)
    asked_alike(one, other)
    assert not same(end, their_end)

    def silent_at_the_end(scheduler: Any) -> None:
        step = scheduler.step
        none = torch.tensor(-torch.inf if variance == "learned_range" else 0.0)  # it returns a logarithm or a variance

        def stepped(answer: Tensor, time: Tensor, x: Tensor) -> Any:
            if time == scheduler.timesteps[-1]:
                scheduler._get_variance = lambda *given, **named: none
            return step(answer, time, x)

        scheduler.step = stepped

    replay(case.kind, monkeypatch)
    agree(case, silent_at_the_end)


class Converted(nn.Module):
    """What a v network says about the noise: ε = α v + σ x."""

    def __init__(self, net: nn.Module, alphas_bar: Tensor) -> None:
        super().__init__()
        self.net, self.alphas_bar = net, alphas_bar

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        kept = self.alphas_bar[int(time)]
        return kept**0.5 * self.net(x, time) + (1 - kept) ** 0.5 * x


def test_plms_averages_the_noise() -> None:
    """diffusers departs from Liu et al. 2022, eq. 12: of a v network it averages v, not ε, over the steps."""
    case = Case("PNDMScheduler", {"skip_prk_steps": True, "prediction_type": "v_prediction"}, steps=10)
    with pytest.raises(AssertionError):
        agree(case)
    noise = replace(case, settings={"skip_prk_steps": True})
    alphas_bar = torch.cumprod(1 - torch.linspace(0.0001, 0.02, 1000, dtype=torch.float64), 0)
    one, other = case.net(), case.net()
    with torch.no_grad():
        assert same(ours(case, one), theirs(noise, Converted(other, alphas_bar)))
    asked_alike(one, other)


def test_pndm_begins_with_the_middle_of_its_steps() -> None:
    """diffusers departs from Liu et al. 2022, algorithm 2: the middle of an odd stride is half an index off."""
    one, other = (Case("PNDMScheduler", {}, steps=8).net() for _ in range(2))
    with torch.no_grad():
        ours(Case("PNDMScheduler", {}, steps=8), one)
        theirs(Case("PNDMScheduler", {}, steps=8), other)
    assert [one.asked[1][1], other.asked[1][1]] == [812.5, 812.0]
    agree(Case("PNDMScheduler", {}, steps=10))


def test_one_noise_level_is_told_as_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers' DPM2-ancestral on karras' ladder visits every level twice and tells two times: 913 and 913.147."""
    case = Case("KDPM2AncestralDiscreteScheduler", {"use_karras_sigmas": True}, steps=10)

    def round_all(scheduler: Any) -> None:
        scheduler.timesteps = scheduler.timesteps.round()

    replay(case.kind, monkeypatch)
    with pytest.raises(AssertionError, match="evaluation 1"):
        agree(case)
    replay(case.kind, monkeypatch)
    agree(case, round_all)


def test_a_third_order_step_takes_the_whole_second_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers departs from the integral of the polynomial through three beliefs: D2 is half of its f″ h².

    With f the belief over half the log-SNR, f″ h²/2 = D2 and the integral of the polynomial weighs f″ h² with `share`;
    diffusers weighs D2 with it, so that as much again is what it leaves out.
    """
    settings = {"solver_order": 3, "solver_type": "heun"}
    with pytest.raises(CheckpointError, match="solver_order = 3"):
        read_scheduler({"_class_name": "DPMSolverMultistepScheduler", **settings})
    case = Case("DPMSolverMultistepScheduler", {"solver_type": "heun"}, steps=16)
    third = replace(case, settings=settings)
    read = read_scheduler(case.config)
    monkeypatch.setattr(Case, "conversion", lambda self: replace(read, sampler="dpmpp_3m", settings={"memory": 3}))

    def whole_difference(scheduler: Any) -> None:
        update = scheduler.multistep_dpm_solver_third_order_update

        def updated(beliefs: list[Tensor], *given: Any, sample: Tensor, **named: Any) -> Tensor:
            place = scheduler.step_index
            levels = scheduler.sigmas[place - 2 : place + 2].double().flip(0)
            half_log_snr = -levels.log()
            h, before, earlier = (half_log_snr[:-1] - half_log_snr[1:]).tolist()
            first, second = (h / before) * (beliefs[-1] - beliefs[-2]), (h / earlier) * (beliefs[-2] - beliefs[-3])
            difference = (first - second) * h / (before + earlier)
            alpha, h = 1 / (1 + levels[0] ** 2) ** 0.5, torch.tensor(h).double()
            share = (torch.exp(-h) - 1 + h) / h**2 - 0.5
            return update(beliefs, *given, sample=sample, **named) - alpha * share * difference

        scheduler.multistep_dpm_solver_third_order_update = updated

    one, other, plain = case.net(), case.net(), case.net()
    with torch.no_grad():
        end = ours(case, one)
        assert same(end, theirs(third, other, whole_difference))
        assert not same(end, theirs(third, plain))
    asked_alike(one, other)


def test_the_corrector_takes_the_norm_of_each_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers departs from Song et al. 2021, algorithm 4: it averages norms over the batch, so company matters."""
    case = Case("ScoreSdeVeScheduler")
    pair = replace(case)
    start = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    monkeypatch.setattr(Case, "start", lambda self: start)
    replay(case.kind, monkeypatch)
    with torch.no_grad():
        assert not same(ours(pair, pair.net())[:1], theirs(pair, pair.net())[:1])
