"""Classifier guidance: a second network, which reads noisy data, says which way the class lies.

Bayes' rule for the score, ∇ log p(x_t | y) = ∇ log p(x_t) + ∇ log p(y | x_t), is by Tweedie's formula, x̂_0 = (x_t +
σ² ∇ log p(x_t))/α, a shift of the belief,

    x̂_0' = x̂_0 + w (σ²/α) ∇_x log p_φ(y | x_t),

in eps the papers' ε − w σ ∇ log p_φ. The classifier makes the shift itself (denoisers/classifier.py), so no gradient
leaves a network call. For exact networks w = 1 is the conditional denoiser, and w on top of a conditional one is
classifier-free guidance of weight 1 + w.

Dhariwal, Nichol. Diffusion Models Beat GANs on Image Synthesis. NeurIPS 2021, eq. 10 and 14, algorithm 2.
Song et al. Score-Based Generative Modeling through SDEs. ICLR 2021, eq. 14.
"""

from collections.abc import Sequence
from dataclasses import replace

from neblina.core.conditions import Condition
from neblina.core.plan import Plan, Query, conditional
from neblina.core.posterior import Posterior, gaussian
from neblina.denoisers.classifier import NoisyClassifier
from neblina.guidance.composing import fused
from neblina.guidance.registry import register


@register("classifier", source="Dhariwal, Nichol 2021, eq. 14; Song et al. 2021, eq. 14", scale=0.0)
def classifier_guided(plan: Plan, classifier: NoisyClassifier, condition: Condition, *, scale: float) -> Plan:
    """The plan's belief, moved towards a class.

    Args:
        plan: whose belief is moved, unconditional or not.
        classifier: reads noisy data of the same process.
        condition: the classes wanted; a sample whose label is the null is left alone.
        scale: w, any real number; 0 asks nothing of the classifier, 1 is Bayes' rule.
    """
    if scale == 0:
        return plan

    def shifted(query: Query, beliefs: Sequence[Posterior]) -> Posterior:
        belief, shift = (gaussian(one, "classifier guidance") for one in beliefs)
        return replace(belief, mean=belief.mean + scale * shift.mean)

    return fused([plan, conditional(classifier, condition)], shifted)
