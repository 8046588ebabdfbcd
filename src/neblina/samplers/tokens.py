"""Samplers of tokens: from the prior of a discrete process to data, at any stride.

Ancestral: x_s from p(x_s | x_t) = Σ_{x_0} q(x_s | x_t, x_0) p(x_0 | x_t) of `processes.discrete`, the exact law of the
process for every stride; only the belief, which takes tokens for independent, is an approximation.

τ-leaping: the process in continuous time jumps, backwards, from x to k at the rate

    R_t(k → x) Σ_{x_0} p(x_0 | x_t) q_t(k | x_0) / q_t(x | x_0);

over a step these rates are held at those of its middle, under the belief at its start, and a token jumps once, with
probability 1 − exp(−rate of all jumps). The last step, to clean data, is an ancestral one: there the rates have no end.

High-quality inference and MaskGIT unmask few tokens a step, those that the belief is sure of. Before the step to s as
many are still masked as the process would have masked at s, of N tokens in expectation; which of them are unmasked is
drawn by their purity max_k p(x_0 = k | x_t) (Improved VQ-Diffusion), or are those whose drawn class is the most
probable, up to Gumbel noise of a temperature that falls with time (MaskGIT). Tokens that are not masked stay, so a walk
from t = 1 begins with masks alone: what else the prior may hold would never be mended.

Austin et al. Structured Denoising Diffusion Models in Discrete State-Spaces. NeurIPS 2021, eq. 4.
Campbell et al. A Continuous Time Framework for Discrete Denoising Models. NeurIPS 2022, eq. 6 and section 4.3.
Tang et al. Improved Vector Quantized Diffusion Models. 2022, section 3.2.
Chang et al. MaskGIT: Masked Generative Image Transformer. CVPR 2022, section 3.2.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor

from neblina.core.errors import SettingError
from neblina.core.logs import ZERO, is_zero
from neblina.core.noise import Noise
from neblina.core.plan import Query
from neblina.core.posterior import Categorical
from neblina.core.shapes import choose_samples, expand
from neblina.processes.discrete import DiscreteProcess, padded
from neblina.processes.draws import drawn, uniforms
from neblina.samplers.registry import TokenSampling, register_tokens


@register_tokens("ancestral", source="Austin et al. 2021, eq. 4; Gu et al. 2022, eq. 11")
def ancestral(process: DiscreteProcess, x: Tensor, times: Tensor, *, noise: Noise) -> TokenSampling:
    """Walk from noise to data.

    Args:
        x: tokens at times[0], int64 of shape (B, *).
        times: falling times in [0, 1], shape (N + 1, B).
    Yields:
        Query(x_t, t): where the denoiser's posterior is wanted.
    Returns:
        The tokens at times[-1], shape (B, *).
    """
    for t, s in pairwise(times):
        posterior = yield Query(x, t)
        x = process.reverse(x, t, s, posterior).sample(noise)
    return x


@register_tokens("joint", exact=False, source="Austin et al. 2021, the form of its code, without the division")
def joint(process: DiscreteProcess, x: Tensor, times: Tensor, *, noise: Noise) -> TokenSampling:
    """Ancestral by D3PM's form, another law for every kernel but the absorbing one; arguments of `ancestral`."""
    for t, s in pairwise(times):
        posterior = yield Query(x, t)
        x = drawn(process.joint(x, t, s, posterior), uniforms(noise, x))
    return x


@register_tokens("tau_leaping", exact=False, rates=True, source="Campbell et al. 2022, section 4.3")
def tau_leaping(process: DiscreteProcess, x: Tensor, times: Tensor, *, noise: Noise) -> TokenSampling:
    """Jumps at rates that are held over a step; arguments of `ancestral`."""
    for t, s in pairwise(times):
        posterior = yield Query(x, t)
        belief = process.project(posterior, x, t)
        jumps, place = uniforms(noise, x), uniforms(noise, x)
        leaps = _leap(process, x, t, s, belief, jumps, place)
        clean = process.kernel.bridge(x, drawn(belief.log_probs, jumps), t, s, place)
        x = choose_samples(s > 0, leaps, clean)
    return x


def _leap(
    process: DiscreteProcess, x: Tensor, t: Tensor, s: Tensor, belief: Categorical, jumps: Tensor, place: Tensor
) -> Tensor:
    kernel, start, middle, quarter = process.kernel, torch.zeros_like(t), (t + s) / 2, (t - s) / 4
    came = kernel.column(x, start, middle, belief.log_probs.dtype)[..., : kernel.classes]
    share = torch.where(is_zero(belief.log_probs) | is_zero(came), ZERO, belief.log_probs - came)
    # Σ p(x_0) q(k | x_0) / q(x | x_0) for every k
    weight = kernel.push(padded(share, kernel.states), start, middle)
    # what it is over the middle half is half of what it is over the step; at the ends of time it has no end
    half = kernel.rate(x, middle - quarter, middle + quarter, weight.dtype)
    rate = (math.log(2) + half + weight).clamp(min=ZERO).scatter(-1, x[..., None], ZERO)
    whole = rate.logsumexp(-1).double().exp()
    return torch.where(jumps < -torch.expm1(-whole), drawn(rate.log_softmax(-1), place), x)


@register_tokens("purity", exact=False, masked=True, source="Tang et al. 2022, section 3.2")
def purity(
    process: DiscreteProcess, x: Tensor, times: Tensor, *, sharpness: float = 1.0, noise: Noise
) -> TokenSampling:
    """Unmask few tokens a step, likelier those that are believed in more; arguments of `ancestral`, and:

    Args:
        sharpness: r, how much more a believed class is drawn where it is believed in: p(x_0)^(1 + r purity); 0 draws
            by the belief itself.
    """
    if sharpness < 0:
        raise SettingError(f"the sharpness of purity is at least 0, not {sharpness:g}")
    x = _all_masked(process, x, times[0])
    for t, s in pairwise(times):
        belief = process.project((yield Query(x, t)), x, t).log_probs
        pure = belief.amax(-1).exp()
        x0 = drawn((1 + sharpness * pure[..., None]) * belief, uniforms(noise, x))
        # the largest of log p + Gumbel are a draw without replacement by p
        score = pure.double().log() + _gumbel(uniforms(noise, x))
        x = _unmasked(process, x, x0, score, s)
    return x


@register_tokens("confidence", exact=False, masked=True, source="Chang et al. 2022, section 3.2")
def confidence(
    process: DiscreteProcess, x: Tensor, times: Tensor, *, temperature: float = 4.5, noise: Noise
) -> TokenSampling:
    """Unmask the tokens whose drawn class is the most probable; arguments of `ancestral`, and:

    Args:
        temperature: of the Gumbel noise on their log-probabilities, times the time that is left; 0 for none.
    """
    if temperature < 0:
        raise SettingError(f"a temperature is at least 0, not {temperature:g}")
    x = _all_masked(process, x, times[0])
    for t, s in pairwise(times):
        belief = process.project((yield Query(x, t)), x, t).log_probs
        x0 = drawn(belief, uniforms(noise, x))
        sure = belief.gather(-1, x0[..., None])[..., 0].double()
        score = sure + expand(temperature * s, sure) * _gumbel(uniforms(noise, x))
        x = _unmasked(process, x, x0, score, s)
    return x


def _all_masked(process: DiscreteProcess, x: Tensor, t: Tensor) -> Tensor:
    return choose_samples(t >= 1, torch.full_like(x, process.kernel.classes), x)


def _unmasked(process: DiscreteProcess, x: Tensor, x0: Tensor, score: Tensor, s: Tensor) -> Tensor:
    """x with its best masked tokens unmasked, so many that as many are masked as at time s."""
    mask = process.kernel.classes
    masked = (x == mask).flatten(1)
    tokens = masked.shape[1]
    left = (tokens * masked_share(process, s)).round().long().to(x.device)
    ranked = score.flatten(1).masked_fill(~masked, -torch.inf).argsort(1, descending=True).argsort(1)
    chosen = masked & (ranked < (masked.sum(1) - left)[:, None])
    return torch.where(chosen.reshape(x.shape), x0, x)


def masked_share(process: DiscreteProcess, t: Tensor) -> Tensor:
    """The share of tokens that are masked at times t, shape (B,), float64."""
    token = torch.zeros(len(t), 1, dtype=torch.int64)
    return process.marginal(token, t, torch.float64)[:, 0, -1].exp()


def _gumbel(uniform: Tensor) -> Tensor:
    return -(-uniform.clamp(min=1e-300).log()).log()
