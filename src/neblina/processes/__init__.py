"""How data is corrupted: schedules, the Gaussian and the discrete process with their exact reverse, grids of times.

Importing this package registers every schedule and every kernel. May import `core`.
"""

from neblina.processes import continuous, dense_kernels, kernels, tables

__all__ = ["continuous", "dense_kernels", "kernels", "tables"]
