"""What an autoencoder of pictures minimises.

With latents z of the encoder, the code e nearest to each, and sg that stops the gradient, a codebook's autoencoder has

    L = L_rec(x, D(z + sg[e − z])) + ‖sg[z] − e‖² + β ‖z − sg[e]‖²,

so that the decoder's gradient with respect to the codes arrives at the encoder as it is; where codes are running
averages the second term is left out. An autoencoder with Gaussian latents z = μ + σ ε has

    L = L_rec(x, D(z)) + w KL(N(μ, σ²) ‖ N(0, 1)),    KL = ½ Σ (μ² + σ² − 1 − log σ²).

All of them are means over values: of the pictures, and for the squared distances of the latents. The divergence is a
sum over a picture's latents, divided by the values of the picture, so that w is that of the latent-diffusion papers.

van den Oord, Vinyals, Kavukcuoglu. Neural Discrete Representation Learning. NeurIPS 2017, eq. 3.
Kingma, Welling. Auto-Encoding Variational Bayes. ICLR 2014, appendix B.
Rombach et al. High-Resolution Image Synthesis with Latent Diffusion Models. CVPR 2022, appendix G.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from neblina.nets.vq_autoencoder import Codebook

LOG_VARIANCE = (-30.0, 20.0)


@dataclass(frozen=True)
class Quantised:
    """Latents and the codes nearest to them.

    Attributes:
        latents: of the encoder, shape (B, C, h, w).
        codes: their numbers, shape (B, h, w), int64.
        entries: the codes themselves, shape (B, C, h, w).
    """

    latents: Tensor
    codes: Tensor
    entries: Tensor

    @property
    def passed(self) -> Tensor:
        """The codes, whose gradient is that of the latents (straight through)."""
        return self.latents + (self.entries - self.latents).detach()


def quantise(codebook: Codebook, latents: Tensor) -> Quantised:
    """The codes nearest to latents (B, C, h, w)."""
    codes = codebook.nearest(latents.detach())
    return Quantised(latents, codes, codebook.look_up(codes))


def codebook_loss(found: Quantised) -> Tensor:
    """‖sg[z] − e‖², which moves codes to latents; a mean over values."""
    return F.mse_loss(found.entries, found.latents.detach())


def commitment_loss(found: Quantised) -> Tensor:
    """‖z − sg[e]‖², which holds latents near codes; a mean over values."""
    return F.mse_loss(found.latents, found.entries.detach())


def draw_latents(moments: Tensor, noise: Tensor) -> Tensor:
    """μ + σ · noise, for the mean and log-variance of latents, joined by channels: (B, 2 C, h, w) and (B, C, h, w)."""
    mean, log_variance = moments.chunk(2, dim=1)
    return mean + (log_variance.clamp(*LOG_VARIANCE) / 2).exp() * noise


def divergence_loss(moments: Tensor, values: int) -> Tensor:
    """KL(N(μ, σ²) ‖ N(0, 1)), in nats a value of the picture.

    Args:
        moments: mean and log-variance of latents, joined by channels, shape (B, 2 C, h, w).
        values: of a picture, C · H · W.
    """
    mean, log_variance = moments.chunk(2, dim=1)
    log_variance = log_variance.clamp(*LOG_VARIANCE)
    terms = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
    return terms.flatten(1).sum(1).mean() / values


def reconstruction_loss(made: Tensor, pictures: Tensor, kind: Literal["l1", "l2"]) -> Tensor:
    """Mean absolute ("l1") or mean squared ("l2") difference of pictures, both of shape (B, C, H, W)."""
    return F.l1_loss(made, pictures) if kind == "l1" else F.mse_loss(made, pictures)


def usage(counts: Tensor) -> float:
    """Share of a codebook's entries that were used at all.

    Args:
        counts: how often each was, shape (K,).
    """
    return float((counts > 0).double().mean())


def perplexity(counts: Tensor) -> float:
    """exp(H) of how often a codebook's entries are used: K where all are used alike, 1 where only one is.

    Args:
        counts: how often each was, shape (K,), not all 0.
    """
    shares = counts.double() / counts.sum()
    return float(torch.special.entr(shares).sum().exp())
