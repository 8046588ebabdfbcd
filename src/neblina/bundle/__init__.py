"""A model on disk: a folder that diffusers also opens, wherever it has the architecture.

May import everything below: `samplers`, `denoisers`, `nets`, `processes`, `core`.
"""
