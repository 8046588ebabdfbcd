"""Plans over plans: how several beliefs become one, in as few network calls as there are networks.

Importing this package registers every guidance. May import `core`, `processes` and `denoisers`.
"""

from neblina.guidance import (
    affine,
    bootstrap,
    classifier,
    clipping,
    crops,
    interval,
    inverse,
    known,
    regions,
    rescaling,
    truncation,
)
from neblina.guidance.registry import Guidance, guidances

__all__ = [
    "Guidance",
    "affine",
    "bootstrap",
    "classifier",
    "clipping",
    "crops",
    "guidances",
    "interval",
    "inverse",
    "known",
    "regions",
    "rescaling",
    "truncation",
]
