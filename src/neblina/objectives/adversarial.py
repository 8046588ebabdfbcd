"""Learning to fool a discriminator of patches.

The discriminator scores patches of real pictures x and of made ones x̂ and minimises the hinge loss

    L_D = ½ E[max(0, 1 − D(x))] + ½ E[max(0, 1 + D(x̂))];

whoever makes x̂ minimises L_GAN = −E[D(x̂)], weighed so that both losses pull alike at its last layer L:

    λ = ‖∇_L L_rec‖ / (‖∇_L L_GAN‖ + δ).

Lim, Ye. Geometric GAN. 2017, eq. 16 and 17 (hinge loss).
Isola et al. Image-to-Image Translation with Conditional Adversarial Networks. CVPR 2017, section 3.2.2 (patches).
Esser, Rombach, Ommer. Taming Transformers for High-Resolution Image Synthesis. CVPR 2021, eq. 6 and 7.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

DELTA = 1e-6
LARGEST = 1e4  # of λ, as in the released code: a discriminator that says one thing everywhere has no gradient


def discriminator_loss(real: Tensor, made: Tensor) -> Tensor:
    """The hinge loss of a discriminator's scores, any shape."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + made).mean())


def fooling_loss(made: Tensor) -> Tensor:
    """L_GAN, of a discriminator's scores of what was made, any shape."""
    return -made.mean()


def adaptive_weight(reconstruction: Tensor, fooling: Tensor, last: Tensor) -> Tensor:
    """λ, a constant.

    Args:
        reconstruction: L_rec.
        fooling: L_GAN.
        last: weights of the last layer, that both depend on. The graph is kept.
    """
    (towards,) = torch.autograd.grad(reconstruction, last, retain_graph=True)
    (away,) = torch.autograd.grad(fooling, last, retain_graph=True)
    weight: Tensor = towards.norm() / (away.norm() + DELTA)
    return weight.clamp(max=LARGEST).detach()
