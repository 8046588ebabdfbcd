"""Codecs: between pictures and the latents that a model diffuses.

Imports nothing above `nets`.
"""
