"""Bits a token of rows of tokens: letters, levels of pixels or codes, by the variational bound.

    −log2 p(x_0) / N ≤ (prior + Σ_n steps) / (N log 2),

the terms those of `objectives.categorical`, N tokens a row. Where a token is a pixel these are bits per dimension, and
where it is a letter bits per character; of codes they say nothing about pixels, which the codec leaves out.

Austin et al. Structured Denoising Diffusion Models in Discrete State-Spaces. NeurIPS 2021, section 6.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from neblina.core.conditions import Condition
from neblina.core.errors import SettingError
from neblina.core.noise import SampleNoise
from neblina.core.plan import conditional
from neblina.data.tokens import Rows
from neblina.denoisers.categorical import CategoricalDenoiser
from neblina.evaluation.likelihood import How, Stratum
from neblina.evaluation.shares import Mean, OnProgress, Values, by_all, mean_of
from neblina.objectives.categorical import bound_terms, stretches


@dataclass(frozen=True)
class TokenLikelihood:
    """What was measured, in bits a token.

    Attributes:
        rows: how many were measured.
        asked: how many were to be; more than that if it was stopped.
        total, prior, steps: the bound, and its two parts.
        evaluated: how many of the steps were evaluated for each row.
        of: how many steps there are.
        strata: the steps over time, from noise to data.
    """

    rows: int
    asked: int
    total: Mean
    prior: Mean
    steps: Mean
    evaluated: int
    of: int
    strata: tuple[Stratum, ...]


def token_likelihood(
    denoiser: CategoricalDenoiser,
    rows: Rows,
    numbers: Sequence[int],
    condition: Condition,
    how: How,
    *,
    device: torch.device,
    on_progress: OnProgress | None = None,
) -> TokenLikelihood:
    """Measure the rows of these numbers; under torchrun each process measures its share and all get the result.

    Args:
        denoiser: the model.
        rows: what to measure on, of the model's shape.
        numbers: which of them.
        condition: of the measured rows, in their order; labels as the model numbers them.
        how: batch, steps, terms and seed; the steps are the process's or the network's own where none are given.
        device: where the network is.
        on_progress: told how many of this process's rows are done, with fractions, and how many it has.
    Raises:
        SettingError: a setting out of range, or a condition that does not fit.
        Interrupted: on Ctrl-C before the first batch was done; later, what was done is returned.
    """
    process = denoiser.process
    steps = how.steps or process.kernel.steps or denoiser.clock_steps
    if how.batch < 1 or not numbers:
        raise SettingError(f"nll is of at least 1 row in batches of at least 1, not {len(numbers)} in {how.batch}")
    if steps is None or steps < 1 or process.kernel.steps not in (None, steps):
        own = f"exactly {process.kernel.steps}" if process.kernel.steps else "at least 1"
        raise SettingError(f"the bound of this model has {own} steps, not {steps}: say another --steps")
    count = steps if how.terms is None else how.terms
    if not 1 <= count <= steps:
        raise SettingError(f"terms {count} is not 1 … {steps}, the bound's steps")
    denoiser.check(condition)
    bits = math.log(2) * math.prod(rows.shape)

    def of_batch(places: list[int], tell: Callable[[float], None]) -> Values:
        chosen = [numbers[place] for place in places]
        plan = conditional(denoiser, condition.take(torch.tensor(places)))
        x0, noise = rows.read(chosen).to(device), SampleNoise(how.seed, chosen)
        with torch.no_grad():
            terms = bound_terms(process, plan, x0, steps, count, noise, lambda number: tell(number / count))
        return {"terms": terms / bits}

    terms = by_all(len(numbers), how.batch, of_batch, device=device, on_progress=on_progress)["terms"]
    spent = terms[:, 1:].mean(0).tolist()
    over_time = [
        Stratum(last / steps, first / steps, last - first, cost)
        for (first, last), cost in zip(stretches(steps, count), spent, strict=True)
    ]
    return TokenLikelihood(
        rows=len(terms),
        asked=len(numbers),
        total=mean_of(terms.sum(1)),
        prior=mean_of(terms[:, 0]),
        steps=mean_of(terms[:, 1:].sum(1)),
        evaluated=count,
        of=steps,
        strata=tuple(reversed(over_time)),
    )
