"""Operators on a belief that are not affine; where they stand in the plan is the order in which they act."""

from collections.abc import Sequence
from dataclasses import replace

from neblina.core.plan import Combine, Leaf, Plan, Query
from neblina.core.posterior import Posterior


def clip(plan: Plan, limit: float = 1.0, *, keep_direction: bool = False) -> Plan:
    """Clip the mean to [−limit, limit] after everything inside `plan` has been combined.

    Args:
        plan: whose belief is clipped.
        limit: the data's range.
        keep_direction: steps still point with the unclipped belief's noise (diffusers' DDIM); otherwise they follow
            the clipped one throughout (diffusers' DDPM).
    """

    def clipped(query: Query) -> tuple[list[Leaf], Combine]:
        leaves, combine = plan(query)

        def after(posteriors: Sequence[Posterior]) -> Posterior:
            belief = combine(posteriors)
            unclipped = belief.mean if keep_direction else None
            return replace(belief, mean=belief.mean.clamp(-limit, limit), unclipped_mean=unclipped)

        return leaves, after

    return clipped
