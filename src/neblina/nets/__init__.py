"""Networks: net(x, time, labels) -> Tensor. They know nothing of diffusion.

May import `core`.
"""
