"""Tokens one by one, each drawn by what an autoregressive network says behind those before it.

    x_n ~ w_n(x_n) p(x_n | x_1 … x_{n−1}) / Σ_k w_n(k) p(k | x_1 … x_{n−1}),

with weights w_n = 1 where nothing else is known of a token. Where a corrupted token y_n is, w_n(k) = q(y_n | k) makes
this its posterior given what stands before it: what comes later cannot tell. Guidance is in log-probabilities, of every
token by itself, as it is of a belief.

Esser, Rombach, Ommer. Taming Transformers for High-Resolution Image Synthesis. CVPR 2021, section 3.2.
Gafni et al. Make-A-Scene: Scene-Based Text-to-Image Generation with Human Priors. ECCV 2022, section 3.5 (guidance).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from neblina.core.errors import SettingError
from neblina.core.noise import SampleNoise
from neblina.nets.autoregressive import AutoregressiveTransformer
from neblina.processes.draws import drawn, uniforms


@torch.no_grad()
def generate_in_order(
    net: AutoregressiveTransformer,
    indices: Sequence[int],
    *,
    labels: Tensor | None = None,
    null_label: int | None = None,
    guidance: float = 1.0,
    prefix: Tensor | None = None,
    log_weights: Tensor | None = None,
    seed: int = 0,
) -> Tensor:
    """Tokens, int64 of shape (B, N), on the network's device.

    Args:
        net: in evaluation mode; N is its number of places.
        indices: the number of each sample under the seed, length B.
        labels: of each sample, shape (B,), the null's included.
        null_label: what guidance goes away from.
        guidance: weight of classifier-free guidance in log-probabilities; 1 is none.
        prefix: the first tokens, shape (B, M), M < N, which are kept; None for none.
        log_weights: log w_n(k), shape (B, N, K); None for 0.
        seed: any integer.
    Raises:
        SettingError: guidance without labels or a null, weights of another shape, or what does not fit the network.
    """
    config, device, count = net.config, net.out.weight.device, len(indices)
    if guidance != 1 and (labels is None or null_label is None):
        raise SettingError(f"guidance {guidance:g} needs labels to go to and a null_label to go away from: give both")
    wanted = (count, config.places, config.num_categories)
    if log_weights is not None and log_weights.shape != wanted:
        raise SettingError(f"log_weights are of shape {wanted} here, not {tuple(log_weights.shape)}")
    branches = 1 if guidance == 1 else 2
    if branches == 2 and labels is not None:
        labels = torch.cat([labels, torch.full_like(labels, int(null_label or 0))])
    tokens = torch.empty(count, config.places, dtype=torch.int64, device=device)
    uniform = uniforms(SampleNoise(seed, indices), tokens)
    known = 0 if prefix is None else prefix.shape[1]
    read = None if prefix is None else prefix.repeat(branches, 1)
    logits, cache = net.begin(branches * count, labels, read)
    if prefix is not None:
        tokens[:, :known] = prefix
    for place in range(known, config.places):
        said = logits.float().log_softmax(-1)
        if branches == 2:
            said = guidance * said[:count] + (1 - guidance) * said[count:]
        if log_weights is not None:
            said = said + log_weights[:, place]
        tokens[:, place] = drawn(said.log_softmax(-1), uniform[:, place])
        if place + 1 < config.places:
            logits, cache = net.step(tokens[:, place].repeat(branches), cache)
    return tokens
