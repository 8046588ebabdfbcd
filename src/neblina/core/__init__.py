"""The words everything else is written in: posteriors, queries and plans, noise, conditions, errors.

Imports nothing of neblina.
"""
