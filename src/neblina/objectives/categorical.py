"""What training on tokens minimises, and what bounds their likelihood.

Over the steps t_1 > t_2 > … > t_{N+1} = 0 of a grid that begins at 1, the variational bound of a token's row is

    −log p(x_0) ≤ KL(q(x_1 | x_0) ‖ p(x_1)) + Σ_n E_q KL(q(x_s | x_t, x_0) ‖ p(x_s | x_t)),    t = t_n, s = t_{n+1};

the last of them, to s = 0, is −log p(x_0 | x_t). It is exact where the belief is and the prior is the process's own
end. D3PM's and VQ-Diffusion's objective adds the cross-entropy of the belief itself, λ (−log p(x_0 | x_t)), at every
time.

Austin et al. Structured Denoising Diffusion Models in Discrete State-Spaces. NeurIPS 2021, eq. 1 and 5.
Gu et al. Vector Quantized Diffusion Model for Text-to-Image Synthesis. CVPR 2022, eq. 9 and 10.
"""

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


def bound(process: DiscreteProcess, plan: Plan, x0: Tensor, times: Tensor, noise: Noise) -> Tensor:
    """The bound's terms in nats, shape (B, N + 1): the prior first, then the steps, each at one draw of x_t.

    Args:
        x0: clean tokens, int64 of shape (B, *).
        times: falling from 1 to 0, shape (N + 1,), float64.
    """
    terms = [prior_loss(process, x0)]
    for t, s in pairwise(times.double().cpu().expand(len(x0), -1).T):
        x = process.diffuse(x0, uniforms(noise, x0), t)
        belief = categorical(evaluate(plan, Query(x, t)))
        terms.append(step_loss(process, x0, x, t, s, belief).bound.double())
    return torch.stack(terms, 1)


def estimated(process: DiscreteProcess, plan: Plan, x0: Tensor, steps: int, count: int, noise: Noise) -> Tensor:
    """An unbiased estimate of the bound with evenly spaced steps in nats, shape (B,), from `count` of them a row.

    Args:
        x0: clean tokens, int64 of shape (B, *).
        steps: T of the bound.
        count: steps that are evaluated for each row, one of each of as many equal stretches of time.
    """
    place = uniforms(noise, x0.new_empty(len(x0), count)).cpu()
    share = steps / count
    total = prior_loss(process, x0).cpu()
    for number in range(count):
        first, last = round(number * share), round((number + 1) * share)
        step = first + 1 + (place[:, number] * (last - first)).long().clamp(max=last - first - 1)
        t, s = step.double() / steps, (step - 1).double() / steps
        x = process.diffuse(x0, uniforms(noise, x0), t)
        belief = categorical(evaluate(plan, Query(x, t)))
        total = total + (last - first) * step_loss(process, x0, x, t, s, belief).bound.double().cpu()
    return total
