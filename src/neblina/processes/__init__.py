"""How data is corrupted: noise schedules, the Gaussian process with its exact reverse, and grids of times.

May import `core`.
"""
