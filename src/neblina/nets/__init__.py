"""Networks: net(x, time, labels=, text=, pooled=, sizes=) -> Tensor. They know nothing of diffusion.

Only those that are given are said, by name. Each has a configuration with the fields of the ecosystem's config.json.
May import `core`.
"""
