"""One network, asked by diffusers' loop and by ours, with equal noise: what was it asked, and what comes out?"""

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor, nn

from neblina.bundle.schedulers import Conversion, read_scheduler
from neblina.core.conditions import Condition
from neblina.core.plan import Plan, conditional
from neblina.denoisers.denoiser import NetworkDenoiser
from neblina.denoisers.told import on_walk
from neblina.guidance.clipping import clip
from neblina.processes.foreign import make_walk
from neblina.processes.gaussian import GaussianProcess
from neblina.samplers import samplers
from neblina.samplers.drive import sample

SHAPE = (2, 3, 2, 2)
# these schedulers hold x/α, in float32
HOLD_RATIO = (
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "LMSDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverSDEScheduler",
)


class Net(nn.Module):
    """A smooth function of a picture and a time, and what it was asked.

    Args:
        span: of the times that it is told.
        doubled: whether it has a second half of channels, between −1 and 1.
        steep: whether its answers fall as 1/time, as a score's do in the noise level.
    """

    def __init__(self, span: float = 1000.0, *, doubled: bool = False, steep: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        size = math.prod(SHAPE[1:])
        self.mix = nn.Parameter(torch.randn(size, size, generator=generator, dtype=torch.float64) / size**0.5)
        self.shift = nn.Parameter(torch.randn(size, generator=generator, dtype=torch.float64))
        self.span, self.doubled, self.steep = span, doubled, steep
        self.asked: list[tuple[Tensor, float]] = []

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        time = time.reshape(-1).double().expand(len(x))
        self.asked.append((x.double().clone(), float(time[0])))
        phase = (3 * time / self.span)[:, None] + self.shift
        flat = x.double().flatten(1)
        answer = 0.6 * torch.tanh(flat @ self.mix + torch.sin(phase)) + 0.5 * torch.tanh(flat)
        answer = (answer / time[:, None] if self.steep else answer).reshape(x.shape)
        return torch.cat([answer, torch.sin(5 * x)], 1) if self.doubled else answer


@dataclass
class Draws:
    """The same noise for both sides, draw after draw."""

    made: int = 0

    def __call__(self, like: Tensor) -> Tensor:
        self.made += 1
        return torch.randn(like.shape, generator=torch.Generator().manual_seed(self.made), dtype=torch.float64)

    def between(self, like: Tensor, start: Tensor, end: Tensor) -> Tensor:
        return self(like)


@dataclass(frozen=True)
class Case:
    """A scheduler's configuration and a number of steps."""

    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    steps: int = 8

    def __str__(self) -> str:
        given = ",".join(f"{key}={value}" for key, value in self.settings.items() if key != "trained_betas")
        return f"{self.kind}({given})x{self.steps}"

    @property
    def config(self) -> dict[str, Any]:
        return {"_class_name": self.kind, **self.settings}

    def conversion(self) -> Conversion:
        return read_scheduler(self.config)

    def net(self) -> Net:
        """The network that is asked."""
        if self.kind.startswith("EDM"):
            return Net(span=4.0)
        if self.kind == "ScoreSdeVeScheduler":
            return Net(span=100.0, steep=True)
        return Net(doubled=self.conversion().learned_variance)

    def start(self) -> Tensor:
        """Standard normal; a single sample where diffusers averages norms over the batch."""
        noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return noise[:1] if self.kind == "ScoreSdeVeScheduler" else noise


def in_double(scheduler: Any) -> Any:
    """The scheduler's table without float32's rounding: a network of random weights magnifies it."""
    if hasattr(scheduler, "alphas_cumprod"):
        last = scheduler.alphas_cumprod[-1]
        scheduler.alphas_cumprod = torch.cumprod(1 - scheduler.betas.double(), 0)
        if float(last) == 2**-24:
            scheduler.alphas_cumprod[-1] = last
        if getattr(scheduler, "final_alpha_cumprod", None) is not None and scheduler.final_alpha_cumprod != 1:
            scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    return scheduler


def replay(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a scheduler draw from `Draws`."""
    draws = Draws()
    module = importlib.import_module(getattr(diffusers, kind).__module__)
    if hasattr(module, "randn_tensor"):
        monkeypatch.setattr(module, "randn_tensor", lambda shape, *rest, **settings: draws(torch.empty(shape)))


def theirs(case: Case, net: nn.Module, prepare: Callable[[Any], None] | None = None) -> Tensor:
    """The sample that diffusers ends with, in the process's own scale.

    Args:
        prepare: given the scheduler after its steps are set.
    """
    scheduler = in_double(getattr(diffusers, case.kind)(**case.settings))
    if case.kind == "ScoreSdeVeScheduler":
        return _their_score_pipeline(scheduler, net, case)
    scheduler.set_timesteps(case.steps)
    draws = Draws()
    scheduler.noise_sampler = lambda *interval: draws(case.start())
    if prepare is not None:
        prepare(scheduler)
    x = case.start() * float(getattr(scheduler, "init_noise_sigma", 1.0))
    for time in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, time) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(net(scaled, time), time, x).prev_sample.double()
    if case.kind in HOLD_RATIO:
        x = x / (1 + float(scheduler.sigmas[len(scheduler.timesteps)]) ** 2) ** 0.5
    return x


def _their_score_pipeline(scheduler: Any, net: nn.Module, case: Case) -> Tensor:
    """What ScoreSdeVePipeline does."""
    scheduler.set_timesteps(case.steps)
    scheduler.set_sigmas(case.steps)
    x = mean = case.start() * scheduler.init_noise_sigma
    for number, time in enumerate(scheduler.timesteps):
        told = scheduler.sigmas[number] * torch.ones(len(x))
        for _ in range(scheduler.config.correct_steps):
            x = scheduler.step_correct(net(x, told), x).prev_sample
        step = scheduler.step_pred(net(x, told), time, x)
        x, mean = step.prev_sample, step.prev_sample_mean
    return mean


def ours(case: Case, net: nn.Module) -> Tensor:
    """The sample that the converted process, walk and sampler end with."""
    read = case.conversion()
    process = GaussianProcess(read.schedule)
    walk = make_walk(read.grid, read.schedule, case.steps)
    learned = read.learned_variance
    denoiser = on_walk(NetworkDenoiser(net, process, read.parameterisation, read.clock, learned_variance=learned), walk)
    plan: Plan = conditional(denoiser, Condition())
    if read.clip is not None:
        plan = clip(plan, read.clip, keep_direction=read.clip_keeps_direction)
    x, settings = walk.start * case.start(), read.settings_for(case.steps)
    return sample(samplers[read.sampler](process, x, walk.times, noise=Draws(), **settings), plan)


TOLERANCE = 1e-4


def same(one: Tensor, other: Tensor) -> bool:
    """Equal to 1e-4 of the scale."""
    return float((one - other).abs().max()) <= TOLERANCE * max(1.0, float(other.abs().max()))


def agree(case: Case, prepare: Callable[[Any], None] | None = None) -> None:
    """Assert that the network was asked the same at every evaluation and that the samples are the same."""
    one, other = case.net(), case.net()
    with torch.no_grad():
        end, their_end = ours(case, one), theirs(case, other, prepare)
    asked_alike(one, other)
    assert same(end, their_end)


def asked_alike(one: Net, other: Net) -> None:
    """Assert that two networks were asked the same at every evaluation."""
    assert len(one.asked) == len(other.asked)
    for number, ((x, time), (their_x, their_time)) in enumerate(zip(one.asked, other.asked, strict=True)):
        assert math.isclose(time, their_time, rel_tol=1e-5, abs_tol=2e-3), f"evaluation {number}"
        assert same(x, their_x), f"evaluation {number}"
