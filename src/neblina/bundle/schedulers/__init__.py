"""Between a diffusers `scheduler_config.json` and a process, a parameterisation, a sampler and its walk, both ways.

Every field either has a meaning here or is refused by name; none is dropped in silence. May import what is below
`bundle`.
"""

from neblina.bundle.schedulers.conversion import Conversion
from neblina.bundle.schedulers.read import read_scheduler, route, sampling_of
from neblina.bundle.schedulers.sampling import Sampling
from neblina.bundle.schedulers.write import write_scheduler

__all__ = ["Conversion", "Sampling", "read_scheduler", "route", "sampling_of", "write_scheduler"]
