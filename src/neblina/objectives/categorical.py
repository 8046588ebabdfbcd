"""What training on tokens minimises, and what bounds their likelihood.

Over the steps t_1 > t_2 > … > t_{N+1} = 0 of a grid that begins at 1, the variational bound of a token's row is

    −log p(x_0) ≤ KL(q(x_1 | x_0) ‖ p(x_1)) + Σ_n E_q KL(q(x_s | x_t, x_0) ‖ p(x_s | x_t)),    t = t_n, s = t_{n+1};

the last of them, to s = 0, is −log p(x_0 | x_t). It is exact where the belief is and the prior is the process's own
end. D3PM's and VQ-Diffusion's objective adds the cross-entropy of the belief itself, λ (−log p(x_0 | x_t)), at every
time.

Austin et al. Structured Denoising Diffusion Models in Discrete State-Spaces. NeurIPS 2021, eq. 1 and 5.
Gu et al. Vector Quantized Diffusion Model for Text-to-Image Synthesis. CVPR 2022, eq. 9 and 10.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from neblina.core.noise import Noise
from neblina.core.plan import Plan, Query, evaluate
from neblina.core.posterior import Categorical, categorical
from neblina.processes.discrete import DiscreteProcess, divergence
from neblina.processes.draws import uniforms


@dataclass(frozen=True)
class TokenLoss:
    """The two parts of the objective at one step, in nats a row of tokens, shape (B,)."""

    bound: Tensor
    cross_entropy: Tensor


def step_loss(process: DiscreteProcess, x0: Tensor, x: Tensor, t: Tensor, s: Tensor, belief: Categorical) -> TokenLoss:
    """What the step from x_t = x, shape (B, *), to s costs under a belief about clean tokens x0.

    Args:
        t, s: times, 0 <= s < t, shape (B,).
    """
    back = process.reverse(x, t, s, belief)
    truth = process.truth(x0, x, t, s, belief.log_probs.dtype)
    said = belief.log_probs.gather(-1, x0[..., None])[..., 0]
    return TokenLoss(divergence(truth, back.log_probs), -said.flatten(1).sum(1))


def prior_loss(process: DiscreteProcess, x0: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """KL(q(x_1 | x_0) ‖ p(x_1)) in nats, shape (B,): what the process leaves of the data at its end."""
    end = process.marginal(x0, torch.ones(len(x0), dtype=torch.float64), dtype)
    return divergence(end, process.kernel.prior().to(end).expand_as(end))


def bound_terms(
    process: DiscreteProcess,
    plan: Plan,
    x0: Tensor,
    steps: int,
    count: int,
    noise: Noise,
    on_term: Callable[[int], None] = lambda number: None,
) -> Tensor:
    """The bound with evenly spaced steps in nats, float64 of shape (B, count + 1),: the prior, then stretches.

    Time is cut into `count` stretches of as many steps, from data to noise; of each stretch one step is drawn for each
    row and stands for all of its steps. A row's sum is an unbiased estimate of its bound; where count = steps only x_t
    is drawn. On the CPU.

    Args:
        x0: clean tokens, int64 of shape (B, *).
        steps: T of the bound.
        count: steps that are evaluated for each row, 1 to T.
        on_term: told after each how many are done.
    """
    place = uniforms(noise, x0.new_empty(len(x0), count)).cpu()
    terms = [prior_loss(process, x0).cpu()]
    for number, (first, last) in enumerate(stretches(steps, count)):
        step = first + 1 + (place[:, number] * (last - first)).long().clamp(max=last - first - 1)
        t, s = step.double() / steps, (step - 1).double() / steps
        x = process.diffuse(x0, uniforms(noise, x0), t)
        belief = categorical(evaluate(plan, Query(x, t)))
        terms.append((last - first) * step_loss(process, x0, x, t, s, belief).bound.double().cpu())
        on_term(number + 1)
    return torch.stack(terms, 1)


def stretches(steps: int, count: int) -> list[tuple[int, int]]:
    """The steps 0 … T in `count` stretches of as equal length as there are, each by its ends."""
    edges = [round(number * steps / count) for number in range(count + 1)]
    return list(pairwise(edges))
