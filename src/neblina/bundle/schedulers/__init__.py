"""Between a diffusers `scheduler_config.json` and a process, a parameterisation, a sampler and its walk, both ways.

Reading, every field either has a meaning here or is refused by name; none is dropped in silence. Writing, what a
scheduler's file cannot say of how a model samples is returned in sentences. May import what is below `bundle`.
"""

from neblina.bundle.schedulers.conversion import Conversion
from neblina.bundle.schedulers.read import read_scheduler, repaired, route, sampling_of, with_defaults
from neblina.bundle.schedulers.sampling import Sampling
from neblina.bundle.schedulers.write import Written, write_scheduler

__all__ = [
    "Conversion",
    "Sampling",
    "Written",
    "read_scheduler",
    "repaired",
    "route",
    "sampling_of",
    "with_defaults",
    "write_scheduler",
]
