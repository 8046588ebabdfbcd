"""The samplers against diffusers' schedulers: equal weights, noise and walk.

Both sides ask one small network of random weights. What is compared is everything it was asked, evaluation by
evaluation: the input it was given, the time it was told, and the sample at the end.
"""

import importlib
import math
from collections.abc import Iterator
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
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of NumPy, which float64 tables meet there


class Net(nn.Module):
    """A smooth function of a picture and a time, and what it was asked."""

    def __init__(self, span: float = 1000.0, scale: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        size = math.prod(SHAPE[1:])
        self.mix = nn.Parameter(torch.randn(size, size, generator=generator, dtype=torch.float64) / size**0.5)
        self.shift = nn.Parameter(torch.randn(size, generator=generator, dtype=torch.float64))
        self.span, self.scale = span, scale
        self.asked: list[tuple[Tensor, float]] = []

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        time = time.reshape(-1).double().expand(len(x))
        self.asked.append((x.double().clone(), float(time[0])))
        phase = (3 * time / self.span)[:, None] + self.shift
        flat = x.double().flatten(1)
        answer = 0.6 * torch.tanh(flat @ self.mix + torch.sin(phase)) + 0.5 * torch.tanh(flat)
        return self.scale * answer.reshape(x.shape)


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
    mu: float | None = None

    def __str__(self) -> str:
        given = ",".join(f"{key}={value}" for key, value in self.settings.items() if key != "trained_betas")
        return f"{self.kind}({given})x{self.steps}"

    @property
    def config(self) -> dict[str, Any]:
        return {"_class_name": self.kind, **self.settings}

    def conversion(self) -> Conversion:
        return read_scheduler(self.config, mu=self.mu)

    def net(self) -> Net:
        if self.kind.startswith("EDM"):
            return Net(span=4.0)
        if self.kind == "ScoreSdeVeScheduler":
            return Net(span=self.settings.get("sigma_max", 1348.0), scale=0.3)
        return Net()


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


@pytest.fixture
def their_noise(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every scheduler draws from `Draws`."""
    draws = Draws()

    def drawn(shape: tuple[int, ...], *arguments: Any, **settings: Any) -> Tensor:
        return draws(torch.empty(shape))

    for name in {case.kind for case in CASES}:
        module = importlib.import_module(getattr(diffusers, name).__module__)
        if hasattr(module, "randn_tensor"):
            monkeypatch.setattr(module, "randn_tensor", drawn)
    return


def theirs(case: Case, net: Net) -> Tensor:
    """The sample that diffusers ends with, in the process's own scale."""
    scheduler = in_double(getattr(diffusers, case.kind)(**case.settings))
    start = Draws()(torch.empty(SHAPE)).double()
    start = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if case.kind == "ScoreSdeVeScheduler":
        return _their_score_pipeline(scheduler, net, case.steps, start)
    scheduler.set_timesteps(case.steps, **({} if case.mu is None else {"mu": case.mu}))
    scheduler.noise_sampler = lambda *interval: draws(start)
    draws = Draws()
    x = start * float(getattr(scheduler, "init_noise_sigma", 1.0))
    for time in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, time) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(net(scaled, time), time, x).prev_sample.double()
    if "Discrete" in case.kind and "Flow" not in case.kind:
        end = float(scheduler.sigmas[len(scheduler.timesteps)])
        x = x / (1 + end**2) ** 0.5  # these schedulers hold x/α
    return x


def _their_score_pipeline(scheduler: Any, net: Net, steps: int, start: Tensor) -> Tensor:
    """What ScoreSdeVePipeline does; its corrector averages norms over the batch, so each sample goes alone."""
    scheduler.set_timesteps(steps)
    scheduler.set_sigmas(steps)
    x = start * scheduler.init_noise_sigma
    for number, time in enumerate(scheduler.timesteps):
        told = scheduler.sigmas[number] * torch.ones(len(x))
        for _ in range(scheduler.config.correct_steps):
            x = scheduler.step_correct(net(x, told), x).prev_sample
        step = scheduler.step_pred(net(x, told), time, x)
        x, mean = step.prev_sample, step.prev_sample_mean
    return mean


def ours(case: Case, net: Net) -> Tensor:
    """The sample that the converted process, walk and sampler end with."""
    read = case.conversion()
    process = GaussianProcess(read.schedule)
    walk = make_walk(read.grid, read.schedule, case.steps)
    denoiser = on_walk(NetworkDenoiser(net, process, read.parameterisation, read.clock), walk)
    plan: Plan = conditional(denoiser, Condition())
    if read.clip is not None:
        plan = clip(plan, read.clip, keep_direction=read.clip_keeps_direction)
    start = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    settings = read.settings_for(case.steps)
    return sample(samplers[read.sampler](process, walk.start * start, walk.times, noise=Draws(), **settings), plan)


def agree(case: Case, tolerance: float = 1e-4) -> None:
    one, other = case.net(), case.net()
    with torch.no_grad():
        end, their_end = ours(case, one), theirs(case, other)
    assert len(one.asked) == len(other.asked)
    for number, ((x, time), (their_x, their_time)) in enumerate(zip(one.asked, other.asked, strict=True)):
        assert math.isclose(time, their_time, rel_tol=1e-5, abs_tol=2e-3), f"evaluation {number}"
        scale = max(1.0, float(their_x.abs().max()))
        assert float((x - their_x).abs().max()) <= tolerance * scale, f"evaluation {number}"
    assert float((end - their_end).abs().max()) <= tolerance * max(1.0, float(their_end.abs().max()))


EPS, V, X0 = ({"prediction_type": name} for name in ("epsilon", "v_prediction", "sample"))
ALL, NO_X0 = (EPS, V, X0), (EPS, V)
LEADING, TRAILING, KARRAS, EXPONENTIAL, BETA = (
    {"timestep_spacing": "leading", "steps_offset": 1},
    {"timestep_spacing": "trailing"},
    {"use_karras_sigmas": True},
    {"use_exponential_sigmas": True},
    {"use_beta_sigmas": True},
)
COSINE, ZERO = {"beta_schedule": "squaredcos_cap_v2"}, {"rescale_betas_zero_snr": True}
SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
OWN = {"num_train_timesteps": 40, "trained_betas": [0.001 + 0.004 * n for n in range(40)]}


def cases(kind: str, predictions: Any, options: Any, **common: Any) -> list[Case]:
    """Every prediction with the first option, and the first two with every other."""
    first, *rest = options
    found = [Case(kind, {**common, **prediction, **first}) for prediction in predictions]
    for number, option in enumerate(rest):
        found.append(Case(kind, {**common, **predictions[number % 2], **option}, steps=(10, 7)[number % 2]))
    return found


LADDERS = (KARRAS, EXPONENTIAL, BETA)
CASES = [
    *cases("DDPMScheduler", ALL, ({}, LEADING, {"timestep_spacing": "linspace"}, {**V, **TRAILING, **ZERO}, COSINE, OWN)),
    *cases("DDPMScheduler", ALL, ({"clip_sample": False}, SD, {"variance_type": "fixed_large"})),
    Case("DDPMScheduler", {"beta_schedule": "laplace", "clip_sample": False, **V}),
    Case("DDPMScheduler", {"beta_schedule": "sigmoid", "thresholding": True}),
    Case("DDPMScheduler", {"variance_type": "fixed_small_log"}),
    *cases("DDIMScheduler", ALL, ({}, LEADING, {"set_alpha_to_one": False}, {"clip_sample": False}, {"thresholding": True})),
    Case("DDIMScheduler", {**V, **TRAILING, **ZERO, **SD}, steps=10),
    *cases("PNDMScheduler", (EPS, EPS), ({}, LEADING, {"set_alpha_to_one": True}), skip_prk_steps=True),
    *cases("PNDMScheduler", (EPS, EPS), ({}, LEADING, {"set_alpha_to_one": True})),
    *cases("EulerDiscreteScheduler", ALL, ({}, LEADING, TRAILING, *LADDERS, SD, COSINE)),
    Case("EulerDiscreteScheduler", {**V, **TRAILING, **ZERO}),
    Case("EulerDiscreteScheduler", {"final_sigmas_type": "sigma_min"}),
    Case("EulerDiscreteScheduler", {"interpolation_type": "log_linear"}),
    Case("EulerDiscreteScheduler", {**KARRAS, "sigma_min": 0.05, "sigma_max": 12.0}),
    Case("EulerDiscreteScheduler", {"prediction_type": "original_sample"}),
    *cases("EulerAncestralDiscreteScheduler", NO_X0, ({}, LEADING, TRAILING, SD, COSINE)),
    Case("EulerAncestralDiscreteScheduler", {**V, **TRAILING, **ZERO}),
    *cases("LMSDiscreteScheduler", ALL, ({}, LEADING, TRAILING, *LADDERS, COSINE)),
    *cases("HeunDiscreteScheduler", ALL, ({}, LEADING, TRAILING, *LADDERS, {"clip_sample": True}, {"beta_schedule": "exp"})),
    *cases("KDPM2DiscreteScheduler", NO_X0, ({}, LEADING, TRAILING, *LADDERS)),
    *cases("KDPM2AncestralDiscreteScheduler", NO_X0, ({}, LEADING, TRAILING, *LADDERS)),
    *cases("DPMSolverMultistepScheduler", ALL, ({}, LEADING, TRAILING, *LADDERS, SD, COSINE)),
    Case("DPMSolverMultistepScheduler", {**V, **TRAILING, **ZERO}),
    Case("DPMSolverMultistepScheduler", {"lambda_min_clipped": -5.1, **COSINE}),
    Case("DPMSolverMultistepScheduler", {**KARRAS, **COSINE, "lower_order_final": False}),
    Case("DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min"}),
    Case("DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min"}, steps=16),
    Case("DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min", "euler_at_final": True}, steps=16),
    Case("DPMSolverMultistepScheduler", {"solver_type": "heun"}),
    Case("DPMSolverMultistepScheduler", {"solver_order": 1}),
    *cases("DPMSolverMultistepScheduler", ALL, ({}, LEADING, KARRAS, {"solver_order": 1}), algorithm_type="sde-dpmsolver++"),
    Case("DPMSolverMultistepScheduler", {"thresholding": True}),
    *cases("DEISMultistepScheduler", ALL, ({}, LEADING, TRAILING, *LADDERS, {"solver_order": 3}, {"solver_order": 1})),
    Case("DEISMultistepScheduler", {"solver_order": 3}, steps=16),
    *cases("UniPCMultistepScheduler", ALL, ({}, LEADING, TRAILING, *LADDERS, {"solver_order": 3}, {"solver_order": 1})),
    Case("UniPCMultistepScheduler", {"final_sigmas_type": "sigma_min"}),
    Case("UniPCMultistepScheduler", {"final_sigmas_type": "sigma_min", "lower_order_final": False}),
    Case("UniPCMultistepScheduler", {**V, **TRAILING, **ZERO}),
    *cases("EDMEulerScheduler", ({},) * 2, ({}, {"sigma_schedule": "exponential"}, {"final_sigmas_type": "sigma_min"}, {"rho": 5.0})),
    *cases("EDMDPMSolverMultistepScheduler", ({},) * 2, ({}, {"sigma_schedule": "exponential"}, {"algorithm_type": "sde-dpmsolver++"})),
    Case("EDMDPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min", "solver_type": "heun"}),
    *cases("FlowMatchEulerDiscreteScheduler", ({},) * 2, ({}, {"shift": 3.0}, *LADDERS, {"shift_terminal": 0.1})),
    Case("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True}, mu=0.8),
    Case("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True, "time_shift_type": "linear"}, mu=2.0),
    *cases("FlowMatchHeunDiscreteScheduler", ({},) * 2, ({}, {"shift": 3.0})),
]
ON_LINES = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
CASES += [
    Case("DPMSolverMultistepScheduler", {**ON_LINES, "flow_shift": 3.0}),
    Case("DEISMultistepScheduler", {**ON_LINES, "flow_shift": 3.0}),
    Case("UniPCMultistepScheduler", {**ON_LINES, "flow_shift": 3.0}),
    Case("UniPCMultistepScheduler", {**ON_LINES, "flow_shift": 3.0, "final_sigmas_type": "sigma_min"}),
    Case("UniPCMultistepScheduler", {**ON_LINES, "use_dynamic_shifting": True, "shift_terminal": 0.1}, mu=0.8),
]


@pytest.mark.usefixtures("their_noise")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_network_is_asked_the_same_at_every_evaluation(case: Case) -> None:
    agree(case)
