"""Part of the data is known: the belief about it is the data.

    x̂_0 ← m ⊙ x̂_0 + (1 − m) ⊙ y

with m = 1 where the data is free and y what is known of it. A deterministic step then carries the known part along
α_s y + σ_s ε with the noise ε that the walk began with, which is what pipelines that put the noised picture back after
every step do (blended latents); said of the belief, it holds for every sampler, and noise is added once.

Avrahami, Fried, Lischinski. Blended Latent Diffusion. SIGGRAPH 2023, algorithm 1.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from neblina.core.plan import Plan, Query
from neblina.core.posterior import Posterior, gaussian
from neblina.guidance.composing import fused
from neblina.guidance.registry import register


@register("known", source="Avrahami, Fried, Lischinski 2023, algorithm 1", free=1.0)
def known(plan: Plan, data: Tensor, free: Tensor | float) -> Plan:
    """Believe in the data where it is known.

    Args:
        plan: whose belief is kept where the data is free.
        data: y, clean, shape (B, *); one for each sample of the batch.
        free: m in [0, 1], 1 where the data is free; broadcastable to the data, with the batch axis first if it has as
            many axes.
    """
    mask = torch.as_tensor(free)

    def replaced(query: Query, beliefs: Sequence[Posterior]) -> Posterior:
        belief = gaussian(beliefs[0], "what is known")
        of_each = mask.expand(data.shape)
        y, m = (value if query.rows is None else value[query.rows.to(value.device)] for value in (data, of_each))
        y, m = y.to(belief.mean), m.to(belief.mean)

        def blend(mean: Tensor) -> Tensor:
            return m * mean + (1 - m) * y

        unclipped = None if belief.unclipped_mean is None else blend(belief.unclipped_mean)
        return replace(belief, mean=blend(belief.mean), unclipped_mean=unclipped)

    return fused([plan], replaced)
