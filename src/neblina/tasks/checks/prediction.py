"""What a network predicts, told from its answers to noise.

For each kind (a row p x_0 + q ε of `denoisers.parameterisations`) the network is read as if it were of it and led from
noise to data: at each of a few times, falling, it is shown x = α x̂_0 + σ ε with its own last belief x̂_0 (0 at
first) and fresh noise ε, both known. Its answer F should be the target p x̂_0 + q ε, and gives the next belief. Read as
what it is, what it is shown is soon much like its data and its answers agree with what it was shown; read as anything
else they do not.

A denoiser that knows nothing of its data but the mean square m believes α m x / (α² m + σ²), is wrong by
w = m σ² / (α² m + σ²) in the mean square, and misses its target by

    s² = w (p − q α / σ)²,

which is α² m / (…) for eps, m σ² / (…) for x0 and m / (…) for v: nothing where there is only noise to
see, nothing where there is none, as much everywhere. With the measured miss r, a kind is out unless

- its target is followed at one time at least: r is less than half of what the target varies from sample to sample,
  which no network that was never trained achieves;
- the answers that it led to are likeliest as its own: under a law of width s and heavy tails their log-likelihood,
  −Σ (log(1 + r / s²) + ½ log s²), is larger than that of every other kind's target.

Of the kinds that remain the network is of the one whose Σ log(1 + r / s²) is least, if no other comes close.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.noise import SampleNoise
from neblina.denoisers.denoiser import NetworkDenoiser
from neblina.denoisers.parameterisations import parameterisations

KINDS = ("eps", "x0", "v")
LOG_SNR = (-4.0, -2.0, 0.0, 2.0, 4.0)  # from almost noise to almost data
FOLLOWS = 0.5  # a network that misses more than this share of a target at every time does not predict it
MARGIN = 0.5  # nats a dimension between a kind and the next, of the answers that it led to
GAP = 0.3  # of Σ log(1 + r / s²) between the best kind and the next
_LEAST = 0.02  # share of a target that no network is asked to be closer to
_SQUARE = 0.25  # mean square of data before anything is known of it
_LIMIT = 3.0  # of a belief; where a network is read as what it is not, beliefs may be anything


@dataclass(frozen=True)
class Reading:
    """How a network fares when it is read as one kind.

    Attributes:
        margin: nats a dimension by which this kind is likelier than the next, of the answers that it led to.
        share: of what its target varies, how much is missed where the network is closest to it.
        excess: r / s² at each time; below 1 it denoises better than knowing nothing.
    """

    margin: float
    share: float
    excess: tuple[float, ...]

    @property
    def possible(self) -> bool:
        """Whether the network may be of this kind."""
        return self.share < FOLLOWS and self.margin > MARGIN

    @property
    def distance(self) -> float:
        """Σ log(1 + r / s²)."""
        return sum(map(math.log1p, self.excess))


@dataclass(frozen=True)
class Verdict:
    """What the answers say.

    Attributes:
        kind: what the network predicts; None where it cannot be told.
        trained: whether the answers follow any of the targets.
        readings: as each kind.
    """

    kind: str | None
    trained: bool
    readings: Mapping[str, Reading]


def judge(
    denoiser: NetworkDenoiser, like: Tensor, condition: Condition, *, kinds: tuple[str, ...] = KINDS, seed: int = 0
) -> Verdict:
    """What the network predicts, of the kinds.

    Args:
        denoiser: its process says how data is made noisy, its clock what the network is told of the time.
        like: a batch of the shape that is shown, (B, C, H, W) with B at least 2.
        condition: of the B samples.
        kinds: whose networks are given x as it is: of eps, x0, v, score and flow.
        seed: of the noise.
    """
    readings = {kind: _read_as(kind, denoiser, like, condition, kinds, seed) for kind in kinds}
    possible = sorted((one for one in readings if readings[one].possible), key=lambda one: readings[one].distance)
    clear = len(possible) == 1 or (
        len(possible) > 1 and readings[possible[1]].distance - readings[possible[0]].distance > GAP
    )
    return Verdict(possible[0] if clear else None, bool(possible), readings)


def _read_as(
    kind: str, denoiser: NetworkDenoiser, like: Tensor, condition: Condition, kinds: tuple[str, ...], seed: int
) -> Reading:
    schedule, noise = denoiser.process.schedule, SampleNoise(seed, range(len(like)))
    belief, share, excess = torch.zeros_like(like, dtype=torch.float64), torch.inf, []
    scores = dict.fromkeys(kinds, 0.0)
    for level in LOG_SNR:
        t = schedule.time(torch.full((len(like),), level, dtype=torch.float64)).clamp(1e-3, 1.0)
        if schedule.steps is not None:
            t = (t * schedule.steps).round().clamp(1, schedule.steps) / schedule.steps
        fresh = noise(like).double()
        x = denoiser.process.diffuse(belief, fresh, t)
        with torch.no_grad():
            answer = denoiser.predict(x.float(), t, condition).double()
        for each in kinds:
            target = parameterisations[each].target(schedule, belief, fresh, t)
            missed = float((answer - target).square().mean())
            spread = _spread(each, denoiser, belief, t[:1], float(target.square().mean()))
            scores[each] -= math.log(1 + missed / spread) + math.log(spread) / 2
            if each == kind:
                varies = float((target - target.mean(0)).square().mean())
                share = min(share, missed / varies) if varies else share
                excess.append(missed / spread)
        row = parameterisations[kind]
        belief = row.mean(schedule, x, answer, t).clamp(-_LIMIT, _LIMIT)
    margin = scores[kind] - max(score for each, score in scores.items() if each != kind)
    return Reading(margin, share, tuple(excess))


def _spread(kind: str, denoiser: NetworkDenoiser, belief: Tensor, t: Tensor, power: float) -> float:
    """s² at t, shape (1,)."""
    schedule, row = denoiser.process.schedule, parameterisations[kind]
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    square = max(float(belief.square().mean()), _SQUARE)
    wrong = square * sigma**2 / (alpha**2 * square + sigma**2)
    allowed = wrong * (row.data(alpha, sigma) - row.noise(alpha, sigma) * alpha / sigma) ** 2
    return max(float(allowed), _LEAST * power, 1e-6)
