"""How to walk back from noise: each sampler a generator that yields queries and is sent posteriors.

Importing this package registers every sampler. May import `core`, `processes` and `guidance`.
"""

from neblina.samplers import ancestral, multistep, ode
from neblina.samplers.registry import Sampler, samplers

__all__ = ["Sampler", "ancestral", "multistep", "ode", "samplers"]
