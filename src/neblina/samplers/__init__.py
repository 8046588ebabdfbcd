"""How to walk back from noise: each sampler a generator that yields queries and is sent posteriors.

Importing this package registers every sampler. May import `core`, `processes` and `guidance`.
"""

from neblina.samplers import adaptive, ancestral, langevin, multistep, ode, sde, teaching, tokens, unipc, wrappers
from neblina.samplers.registry import Sampler, TokenSampler, samplers, token_samplers

__all__ = [
    "Sampler",
    "TokenSampler",
    "adaptive",
    "ancestral",
    "langevin",
    "multistep",
    "ode",
    "samplers",
    "sde",
    "teaching",
    "token_samplers",
    "tokens",
    "unipc",
    "wrappers",
]
