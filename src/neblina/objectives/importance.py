"""Which times training looks at: uniformly, or more often where there is more to learn.

Let u be uniform in (0, 1) and t its time (the schedule's quantile function, most often t = u). Drawing u from a density
π instead and weighting each loss with 1/π leaves the expectation of the gradient as it was,

    E_{u ~ π} [ ∇L(u) / π(u) ] = E_u [ ∇L(u) ],

and changes only its variance. π is constant in each of K equal bins and follows what was seen there lately:

| name | π of a bin ∝ | from |
| --- | --- | --- |
| uniform            | 1 | |
| score-norm         | E ‖s(x_t, t)‖², s = (α x̂_0 − x_t)/σ² the model's score | the size of the score |
| loss-second-moment | √E[L²] | Nichol, Dhariwal 2021, eq. 18 |

The mean is over the last ten values of a bin, and π is uniform until every bin has ten. The true score grows like 1/σ
towards t = 0 where its square has no integral, so score-norm draws from [smallest time, 1] only, and it is the uniform
loss over these times whose gradient it estimates. The loss moment keeps a thousandth of uniform draws, as published, so
that no bin is forgotten.

Tokens have steps in place of times, t = n/T with n = 1 + ⌊u T⌋, a bin a step where T is no larger than K, and no score.
VQ-Diffusion's own remembers the bound's part of L alone, as an exponential average, and gives step 1 what step 2 has.

Nichol, Dhariwal. Improved Denoising Diffusion Probabilistic Models. ICML 2021, section 3.3 and eq. 18.
Gu et al. Vector Quantized Diffusion Model for Text-to-Image Synthesis. CVPR 2022, section 4.
Katharopoulos, Fleuret. Not All Samples Are Created Equal. ICML 2018, section 3 (variance of importance sampling).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from neblina.core.errors import SettingError
from neblina.core.registry import Registry
from neblina.denoisers.denoiser import NetworkDenoiser
from neblina.objectives.simple import Compared
from neblina.processes.schedules import Schedule

BINS = 100
HISTORY = 10


@dataclass(frozen=True)
class Rule:
    """How often a bin is drawn.

    Attributes:
        observe: what is remembered of each sample, shape (B,); None for its loss.
        density: from the history, shape (K, HISTORY), what π is proportional to, shape (K,).
        uniform_share: of draws that stay uniform.
        bounded: whether t stays away from 0.
    """

    observe: Callable[[NetworkDenoiser, Compared, Tensor], Tensor] | None
    density: Callable[[Tensor], Tensor]
    uniform_share: float = 0.0
    bounded: bool = False


def squared_score(denoiser: NetworkDenoiser, compared: Compared, t: Tensor) -> Tensor:
    """‖s(x_t, t)‖² / dim of the model's own score, shape (B,)."""
    score = denoiser.process.score(compared.x, t, compared.belief(denoiser, t))
    return score.square().flatten(1).mean(1)


rules: Registry[Rule | None] = Registry("way of drawing times")
rules.add(None, "uniform")
rules.add(Rule(squared_score, lambda history: history.mean(1), bounded=True), "score-norm")
rules.add(
    Rule(
        None,
        lambda history: history.square().mean(1).sqrt(),
        uniform_share=1e-3,
    ),
    "loss-second-moment",
)


@dataclass(frozen=True)
class Drawn:
    """Times that were drawn.

    Attributes:
        t: float64 of shape (B,).
        weight: 1/π, float64 of shape (B,).
        bins: where they lie, shape (B,).
    """

    t: Tensor
    weight: Tensor
    bins: Tensor


class Importance:
    """The density π and what it is learned from: (K, HISTORY) values and how many each bin has had.

    Args:
        time: of numbers u in (0, 1), float64 of shape (B,): uniform training's quantile function.
        lowest: the smallest u that is drawn.
        bins: K.
    """

    def __init__(self, rule: Rule, time: Callable[[Tensor], Tensor], lowest: float = 0.0, bins: int = BINS) -> None:
        self.rule = rule
        self.time = time
        self.lowest = lowest
        self.bins = bins
        self.history = torch.zeros(bins, HISTORY, dtype=torch.float64)
        self.counts = torch.zeros(bins, dtype=torch.int64)

    def probabilities(self) -> Tensor:
        """π/K of every bin, shape (K,), sum 1."""
        uniform = torch.full((self.bins,), 1 / self.bins, dtype=torch.float64)
        if bool((self.counts < HISTORY).any()):
            return uniform
        density = self.rule.density(self.history)
        return torch.lerp(density / density.sum(), uniform, self.rule.uniform_share)

    def draw(self, uniforms: Tensor) -> Drawn:
        """Times whose u has the density π, as its quantile function of numbers uniform in (0, 1), shape (B,)."""
        share = self.probabilities()
        ends = share.cumsum(0)
        bins = torch.searchsorted(ends, uniforms).clamp(max=self.bins - 1)
        inside = ((uniforms - ends[bins] + share[bins]) / share[bins]).clamp(0, 1)
        u = self.lowest + (1 - self.lowest) * (bins + inside) / self.bins
        return Drawn(self.time(u.clamp(1e-9, 1 - 1e-9)), 1 / (self.bins * share[bins]), bins)

    def learn(self, bins: Tensor, values: Tensor) -> None:
        """Remember values of shape (B,), one after the other; what is not finite is passed over."""
        for place, value in zip(bins.tolist(), values.double().tolist(), strict=True):
            if abs(value) < float("inf"):
                self.history[place, self.counts[place] % HISTORY] = value
                self.counts[place] += 1

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint stores."""
        return {"history": self.history, "counts": self.counts}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go back to a stored state."""
        self.history.copy_(state["history"])
        self.counts.copy_(state["counts"])


def make_importance(name: str, schedule: Schedule, smallest_time: float) -> Importance | None:
    """The state of a registered way of drawing times; None for uniform ones.

    Raises:
        SettingError: unknown name, or a smallest time outside (0, 1).
    """
    rule = rules[name]
    if rule is None:
        return None
    if not 0 < smallest_time < 1:
        raise SettingError(
            f"objective.smallest_time lies between 0 and 1, and {smallest_time:g} does not: the score is infinite at 0"
        )
    lowest = _quantile(schedule, smallest_time) if rule.bounded else 0.0
    return Importance(rule, schedule.training_time, lowest)


def make_step_importance(name: str, steps: int) -> Importance | None:
    """The same for the steps t = n/T, n in 1 … T, of a process of tokens.

    Raises:
        SettingError: unknown name, or one that looks at a score.
    """
    rule = rules[name]
    if rule is not None and rule.observe is not None:
        raise SettingError(
            f"objective.times = {name!r} looks at a score, which tokens have not: take loss-second-moment"
        )
    return None if rule is None else Importance(rule, lambda u: step_time(u, steps), bins=min(steps, BINS))


def step_time(u: Tensor, steps: int) -> Tensor:
    """t = n/T of the step n in 1 … T that u in (0, 1) falls into."""
    return (1 + (u * steps).long()).clamp(max=steps).double() / steps


def _quantile(schedule: Schedule, time: float) -> float:
    """The smallest u whose training time is not below `time`, by halving."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if float(schedule.training_time(torch.tensor([middle], dtype=torch.float64))) >= time:
            high = middle
        else:
            low = middle
    return high
