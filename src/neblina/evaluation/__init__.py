"""How good pictures are: feature extractors, the Fréchet distance, and readers of digits.

May import everything below, `data` included.
"""
