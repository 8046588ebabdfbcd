"""Plans over plans: ask what the parts ask, and make one belief of theirs.

The parts stay descriptions, so that whatever the nesting, equal leaves are asked once and every network is called once.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from neblina.core.logs import log
from neblina.core.plan import Combine, Leaf, Plan, Query
from neblina.core.posterior import Categorical, Gaussian, Posterior, categorical, gaussian


def fused(plans: Sequence[Plan], fuse: Callable[[Query, Sequence[Posterior]], Posterior]) -> Plan:
    """The plan that asks all of `plans` and makes one belief of theirs, given in their order."""

    def plan(query: Query) -> tuple[list[Leaf], Combine]:
        leaves, beliefs = gathered([part(query) for part in plans])
        return leaves, lambda posteriors: fuse(query, beliefs(posteriors))

    return plan


def gathered(
    parts: Sequence[tuple[list[Leaf], Combine]],
) -> tuple[list[Leaf], Callable[[Sequence[Posterior]], list[Posterior]]]:
    """The leaves of several parts in a row, and how their answers become the beliefs of the parts."""

    def beliefs(posteriors: Sequence[Posterior]) -> list[Posterior]:
        rest, made = list(posteriors), []
        for leaves, combine in parts:
            own, rest = rest[: len(leaves)], rest[len(leaves) :]
            made.append(combine(own))
        return made

    return [leaf for leaves, _ in parts for leaf in leaves], beliefs


def averaged(
    beliefs: Sequence[Posterior], mean: Callable[[Sequence[Tensor]], Tensor], *, convex: bool = True
) -> Posterior:
    """One belief of several, field by field; of tokens, the probabilities are what is averaged.

    Args:
        mean: makes one tensor of several, of shape (B, C, *), an affine combination.
        convex: whether its weights are none below 0: variance fractions mix with such only, and the first stands else.
    """
    if isinstance(beliefs[0], Categorical):
        probabilities = mean([categorical(one).log_probs.exp().movedim(-1, 1) for one in beliefs])
        return Categorical(log(probabilities.movedim(1, -1)))
    return _averaged([gaussian(one, "a view") for one in beliefs], mean, convex)


def _averaged(beliefs: Sequence[Gaussian], mean: Callable[[Sequence[Tensor]], Tensor], convex: bool) -> Gaussian:
    unclipped = None
    if any(belief.unclipped_mean is not None for belief in beliefs):
        # what no operator changed is its own unclipped mean
        unclipped = mean([b.mean if b.unclipped_mean is None else b.unclipped_mean for b in beliefs])
    fractions = [belief.variance_fraction for belief in beliefs if belief.variance_fraction is not None]
    fraction = beliefs[0].variance_fraction
    if convex:
        fraction = mean(fractions) if len(fractions) == len(beliefs) else None
    return Gaussian(mean([belief.mean for belief in beliefs]), unclipped, fraction)


def once_moved(values: Sequence[Tensor]) -> Callable[[Tensor], list[Tensor]]:
    """Constants in the dtype and on the device of what they meet, moved there once."""
    moved: dict[tuple[object, object], list[Tensor]] = {}

    def like(other: Tensor) -> list[Tensor]:
        kind = (other.device, other.dtype)
        if kind not in moved:
            moved[kind] = [value.to(other) for value in values]
        return moved[kind]

    return like
