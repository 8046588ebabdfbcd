"""How data is corrupted: noise schedules, the Gaussian process with its exact reverse, and grids of times.

Importing this package registers every schedule. May import `core`.
"""

from neblina.processes import continuous, tables

__all__ = ["continuous", "tables"]
