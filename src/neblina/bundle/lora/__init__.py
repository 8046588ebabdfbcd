"""LoRA files: low-rank changes of a model's weights, read in every common layout, added to weights and taken away.

`read.py` reads a file, `fuse.py` adds any number of them to a model's networks at once.
"""
