"""What a denoiser answers: its belief about the clean data, q(x_0 | x_t).

Every parameterisation (eps, x0, v, score, …) is converted to this once, at the edge of the network, so that no
sampler, guidance or objective ever asks what the network predicts.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Gaussian:
    """The belief of a Gaussian process.

    Attributes:
        mean: E[x_0 | x_t], shape (B, *), float32 or wider.
        unclipped_mean: the mean before an operator such as clipping changed it. A step that sees one points its
            noise estimate with it (what diffusers does when it clips x_0 and keeps the raw eps).
    """

    mean: Tensor
    unclipped_mean: Tensor | None = None


Posterior = Gaussian
