"""The discrete process: tokens corrupted by a kernel, and their exact steps back at any stride.

With Q_{s→t} the kernel's transitions, for s < t,

    q(x_t | x_0) = δ_{x_0} Q_{0→t},
    q(x_s | x_t, x_0) ∝ Q_{s→t}[:, x_t] ⊙ δ_{x_0} Q_{0→s},
    p(x_s | x_t) = Σ_{x_0} q(x_s | x_t, x_0) p(x_0 | x_t).

To sample the last, draw x̃_0 from the belief and then x_s from the middle one: no division, the exact law. Its
probabilities, which divergences need, are the marginal form

    p(x_s | x_t) = Q_{s→t}[:, x_t] ⊙ ( (p(x_0 | x_t) / Q_{0→t}[:, x_t]) Q_{0→s} ),   0/0 = 0,

once the belief is projected on the classes that can have led to x_t. D3PM's code leaves the division out,

    p(x_s | x_t) ∝ Q_{s→t}[:, x_t] ⊙ ( p(x_0 | x_t) Q_{0→s} ),

which is another law for every kernel but the absorbing one; it is here by name (`joint`), for parity.

Austin et al. Structured Denoising Diffusion Models in Discrete State-Spaces. NeurIPS 2021, eq. 3, 4 and appendix A.3.
Gu et al. Vector Quantized Diffusion Model for Text-to-Image Synthesis. CVPR 2022, eq. 5 and 11.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from neblina.core.errors import DataError
from neblina.core.logs import ZERO, is_zero
from neblina.core.noise import Noise
from neblina.core.posterior import Categorical
from neblina.processes.draws import drawn, uniforms
from neblina.processes.kernels import Kernel


@dataclass(frozen=True)
class Back:
    """p(x_s | x_t), of every token by itself.

    Attributes:
        kernel: that corrupts.
        x: x_t, int64 of shape (B, *).
        t, s: times, s <= t, shape (B,).
        believed: log p(x_0 | x_t) as it was said, shape (B, *, K).
    """

    kernel: Kernel
    x: Tensor
    t: Tensor
    s: Tensor
    believed: Tensor

    @cached_property
    def log_belief(self) -> Tensor:
        """log p(x_0 | x_t), projected on the classes that can have led to x_t, shape (B, *, K)."""
        return projected(self.kernel, self.believed, self.x, self.t)

    def sample(self, noise: Noise) -> Tensor:
        """One draw a token, int64 of shape (B, *); takes two draws of the noise."""
        said = self.log_belief if self.kernel.draws_projected else self.believed
        x0 = drawn(said, uniforms(noise, self.x))
        return self.kernel.bridge(self.x, x0, self.t, self.s, uniforms(noise, self.x))

    @property
    def log_probs(self) -> Tensor:
        """The marginal form, shape (B, *, states), in the belief's dtype."""
        start = torch.zeros_like(self.s)
        came = self.kernel.column(self.x, start, self.t, self.log_belief.dtype)[..., : self.kernel.classes]
        share = torch.where(is_zero(came) | is_zero(self.log_belief), ZERO, self.log_belief - came)
        went = self.kernel.push(padded(share, self.kernel.states), start, self.s)
        return (self.kernel.column(self.x, self.s, self.t, went.dtype) + went).clamp(min=ZERO)


@dataclass(frozen=True)
class DiscreteProcess:
    """Tokens corrupted by a kernel."""

    kernel: Kernel

    def diffuse(self, x0: Tensor, uniform: Tensor, t: Tensor) -> Tensor:
        """x_t of clean tokens, both int64 of shape (B, *), by numbers uniform in [0, 1) of that shape.

        Raises:
            DataError: a token that is no class, the mask included: it is never data.
        """
        check_tokens(x0, self.kernel)
        return self.kernel.jump(x0, torch.zeros_like(t), t, uniform)

    def marginal(self, x0: Tensor, t: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """log q(x_t | x_0), shape (B, *, states)."""
        return self.kernel.push(one_hot(x0, self.kernel.states, dtype), torch.zeros_like(t), t)

    def project(self, posterior: Categorical, x: Tensor, t: Tensor) -> Categorical:
        """The belief on the classes that can have led to x_t = x; evenly on those where it saw none of them.

        Raises:
            DataError: a belief about another number of classes.
        """
        _check_classes(posterior.log_probs, self.kernel)
        return Categorical(projected(self.kernel, posterior.log_probs, x, t))

    def reverse(self, x: Tensor, t: Tensor, s: Tensor, posterior: Categorical) -> Back:
        """The step from x_t = x, shape (B, *), to s <= t, shape (B,), under a belief; errors of `project`."""
        _check_classes(posterior.log_probs, self.kernel)
        return Back(self.kernel, x, t, s, posterior.log_probs)

    def joint(self, x: Tensor, t: Tensor, s: Tensor, posterior: Categorical) -> Tensor:
        """D3PM's form without the division, log-probabilities of shape (B, *, states)."""
        belief = padded(self.project(posterior, x, t).log_probs, self.kernel.states)
        went = self.kernel.push(belief, torch.zeros_like(s), s)
        return (self.kernel.column(x, s, t, went.dtype) + went).log_softmax(-1).clamp(min=ZERO)

    def truth(self, x0: Tensor, x: Tensor, t: Tensor, s: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """log q(x_s | x_t, x_0), shape (B, *, states)."""
        return Back(self.kernel, x, t, s, one_hot(x0, self.kernel.classes, dtype)).log_probs

    def prior(self, shape: tuple[int, ...], noise: Noise, device: torch.device | str = "cpu") -> Tensor:
        """Where sampling starts: x_1, int64 of a shape (B, *)."""
        tokens = torch.empty(shape, dtype=torch.int64, device=device)
        law = self.kernel.prior().to(device, torch.float32)
        return drawn(law.expand(*shape, len(law)), uniforms(noise, tokens))


def projected(kernel: Kernel, log_belief: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """A belief, log-probabilities of shape (B, *, K), on the classes that can have led to x_t = x; evenly on those
    where it saw none of them."""
    can = kernel.support(x, t)
    if can is None:
        return log_belief
    kept = torch.where(can, log_belief, ZERO)
    lost = is_zero(kept).all(-1, keepdim=True)
    return torch.where(lost & can, 0.0, kept).log_softmax(-1).clamp(min=ZERO)


def _check_classes(log_belief: Tensor, kernel: Kernel) -> None:
    if log_belief.shape[-1] != kernel.classes:
        raise DataError(
            f"the model believes in {log_belief.shape[-1]} classes, and the tokens of its process have {kernel.classes}"
        )


def one_hot(tokens: Tensor, states: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Logarithms of certainty: 0 at each token and ZERO elsewhere, shape (B, *, states)."""
    like = torch.full((*tokens.shape, states), ZERO, dtype=dtype, device=tokens.device)
    return like.scatter(-1, tokens[..., None], 0.0)


def padded(log_probs: Tensor, states: int) -> Tensor:
    """Log-probabilities of classes as those of states: no token is the mask."""
    missing = states - log_probs.shape[-1]
    return torch.nn.functional.pad(log_probs, (0, missing), value=ZERO) if missing else log_probs


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p ‖ q) in nats, shape (B,): summed over tokens, of log-probabilities (B, *, states)."""
    return (p.exp() * (p - q)).flatten(1).sum(1)


def check_tokens(tokens: Tensor, kernel: Kernel) -> None:
    """Refuse tokens that are no data.

    Raises:
        DataError: naming the first of them.
    """
    if tokens.is_floating_point():
        raise DataError(f"tokens are whole numbers, not {tokens.dtype}")
    wrong = tokens[(tokens < 0) | (tokens >= kernel.classes)]
    if len(wrong):
        what = "the mask, which is never data" if int(wrong[0]) == kernel.classes < kernel.states else "none of them"
        raise DataError(f"token {int(wrong[0])} is {what}: classes are 0 … {kernel.classes - 1}")
