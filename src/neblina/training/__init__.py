"""Recipes, the training loop, the average of its weights and its checkpoints.

May import everything below, `evaluation` and `data` included. `recipe` imports no torch.
"""
