"""Networks: net(x, time, labels=, text=, pooled=, sizes=) -> Tensor. They know nothing of diffusion.

Only those that are given are said, by name. Each has a configuration with the fields of the ecosystem's config.json.
Over tokens, x is int64 of shape (B, N) and the logits (B, N, K) have the classes last; the autoregressive transformer,
which is no network of diffusion, takes no time. May import `core`.
"""
