"""A place is prepared alone: while the walk begins, its view sees the canvas inside its mask and a colour outside.

    x_i = x where m_i > 0, else α(t) b + σ(t) z    for t > t_boot,    else x_i = x

with b a constant picture of one colour, brought through the codec, and z the picture's own first noise. What a network
makes early is where things are; seeing nothing around, it puts what it is asked for inside the mask. The colour is
drawn anew at every time, so that none becomes part of the place. It is a function of the seed, the picture and the time
alone, so a plan asked twice answers twice the same, and the order of the places changes nothing.

Bar-Tal et al. MultiDiffusion: Fusing Diffusion Paths for Controlled Image Generation. ICML 2023, section 4.2 (fidelity
to tight masks), and the released code's bootstrapping.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from neblina.core.noise import chosen
from neblina.core.plan import Combine, Leaf, Plan, Query
from neblina.core.shapes import choose_samples, expand
from neblina.guidance.composing import once_moved
from neblina.guidance.registry import register
from neblina.processes.schedules import Schedule


@dataclass(frozen=True, eq=False)
class Backdrop:
    """Constant pictures to put a place in front of.

    Attributes:
        colours: clean data of pictures of one colour, one of which is drawn, shape (n, C).
        noise: z, standard normal, one for each sample of the batch, shape (B, C, H, W).
        seed, indices: of the samples, by which the colours are drawn; B numbers.
    """

    colours: Tensor
    noise: Tensor
    seed: int
    indices: Sequence[int]

    def at(self, schedule: Schedule, query: Query) -> Tensor:
        """α(t) b + σ(t) z of the samples of a query, shape of its x."""
        rows = list(range(len(query.x))) if query.rows is None else query.rows.tolist()
        drawn = [
            chosen(self.seed, self.indices[row], time, len(self.colours))
            for row, time in zip(rows, query.t.tolist(), strict=True)
        ]
        x = query.x
        colour = self.colours[drawn].to(x)[..., None, None]
        noise = (self.noise if query.rows is None else self.noise[query.rows.to(self.noise.device)]).to(x)
        return expand(schedule.alpha(query.t), x) * colour + expand(schedule.sigma(query.t), x) * noise


@register("bootstrap", source="Bar-Tal et al. 2023, section 4.2", until=1.0)
def bootstrapped(plan: Plan, mask: Tensor, backdrop: Backdrop, schedule: Schedule, *, until: float) -> Plan:
    """The plan of a place that is shown alone at times above `until`.

    Args:
        plan: of the place; asked about the whole canvas.
        mask: above 0 where the place is, 0 elsewhere, shape (H, W); it is not faded, since a mixture of two noises is
            less noisy than either.
        backdrop: what is seen elsewhere.
        schedule: that the times are of.
        until: the time down to which the place is alone; 1 is never.
    """

    masks = once_moved([mask > 0])

    def alone(query: Query) -> tuple[list[Leaf], Combine]:
        early = query.t > until
        if not bool(early.any()):
            return plan(query)
        (inside,) = masks(query.x)
        seen = torch.where(inside > 0, query.x, backdrop.at(schedule, query))
        return plan(replace(query, x=seen if bool(early.all()) else choose_samples(early, seen, query.x)))

    return alone


def until_share(times: Tensor, share: float) -> float:
    """The time at which so large a share of the steps is done: a step that begins there or later is not of them.

    Args:
        times: falling, of the walk, shape (N + 1,).
        share: of the N steps, from 0 to 1, rounded to whole steps; above 0 it is one at least, and one is left.
    """
    steps = len(times) - 1
    done = 0 if share == 0 else min(max(round(share * steps), 1), steps - 1)
    return float(times[done])
