"""Trained on one schedule, sampled on another.

Two points of the same signal-to-noise ratio are the same point up to scale: with n = sqrt(α² + σ²), x/n has the same
law on either schedule, and so the same belief. A query at time t of the sampling schedule is asked at the time of equal
log-SNR of the training schedule, with x scaled by the ratio of the two n. The probability-flow path stays what it was.

Kingma et al. Variational Diffusion Models. NeurIPS 2021, section 5.1. Karras et al. 2022, section 3 and appendix C.
"""

from dataclasses import replace

from neblina.core.plan import Combine, Leaf, Plan, Query
from neblina.core.shapes import expand
from neblina.processes.schedules import Schedule


def on_schedule(plan: Plan, trained: Schedule, sampled: Schedule) -> Plan:
    """The plan of denoisers of one schedule, as samplers on another one ask it.

    Noisier than the training schedule's t = 1 and, if it is discrete, cleaner than its first step there is nobody to
    ask. There the nearest of the two ends is asked about an x that is noisier or cleaner than it says.

    Args:
        plan: whose denoisers were trained on `trained`.
        trained: their schedule.
        sampled: that of the sampler, whose queries the new plan answers.
    """
    if trained == sampled:
        return plan

    first = 1 / trained.steps if trained.steps else 0.0

    def rescheduled(query: Query) -> tuple[list[Leaf], Combine]:
        t = trained.time(sampled.log_snr(query.t)).clamp(first, 1)
        scale = trained.radius(t) / sampled.radius(query.t)
        return plan(replace(query, x=expand(scale, query.x) * query.x, t=t))

    return rescheduled
