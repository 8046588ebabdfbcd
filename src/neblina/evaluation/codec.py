"""How well a codec keeps pictures, and what its latents are like.

For pictures of levels 0 … 255, with MSE the mean squared difference over their values and the means, variances and
covariance of a window that weighs places by a Gaussian of standard deviation 1.5,

    PSNR = 10 log₁₀(255² / MSE),
    SSIM = (2 μ_x μ_y + C_1)(2 σ_xy + C_2) / ((μ_x² + μ_y² + C_1)(σ_x² + σ_y² + C_2)),

C_1 = (0.01 · 255)² and C_2 = (0.03 · 255)², averaged over the windows that lie in the picture, and over its channels.

Wang, Bovik, Sheikh, Simoncelli. Image Quality Assessment: From Error Visibility to Structural Similarity. IEEE
Transactions on Image Processing 2004, eq. 13 to 16 and section III-C.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from neblina.codecs.codec import Codec
from neblina.codecs.kl import KLCodec
from neblina.codecs.vq import VQCodec
from neblina.data.pictures import Pictures, to_float, to_uint8
from neblina.nets.autoencoder import AutoencoderKL
from neblina.nets.vq_autoencoder import VQAutoencoder
from neblina.objectives.codec import LOG_VARIANCE, perplexity, usage

WINDOW, SPREAD = 11, 1.5
MOST = 2000  # pictures that are measured
EQUAL = 100.0  # dB that equal pictures count as in a mean
_BATCH = 50


@dataclass(frozen=True)
class CodecFigures:
    """How well pictures are kept.

    Attributes:
        pictures: measured.
        psnr: mean over pictures, in dB; equal ones count as 100.
        ssim: mean over pictures.
        codebook_usage: share of the codes that the pictures use; None without a codebook.
        perplexity: of the codes that they use.
    """

    pictures: int
    psnr: float
    ssim: float
    codebook_usage: float | None
    perplexity: float | None


@dataclass(frozen=True)
class LatentFigures:
    """Mean and standard deviation over all values of latents, at the network's own scale."""

    mean: float
    std: float


def psnr(one: Tensor, other: Tensor) -> Tensor:
    """Of each pair of uint8 pictures, both of shape (B, C, H, W): shape (B,), float64, in dB; infinite if equal."""
    error = (one.double() - other.double()).square().flatten(1).mean(1)
    return 10 * (255**2 / error).log10()


def ssim(one: Tensor, other: Tensor) -> Tensor:
    """Of each pair of uint8 pictures, both of shape (B, C, H, W): shape (B,), float64, 1 if equal.

    The window is 11 pixels a side, or the largest odd side that fits.
    """
    x, y = one.double().flatten(0, 1)[:, None], other.double().flatten(0, 1)[:, None]
    window = _window(min(WINDOW, *one.shape[-2:]))

    def local(values: Tensor) -> Tensor:
        return F.conv2d(values, window)

    mean_x, mean_y = local(x), local(y)
    var_x, var_y = local(x * x) - mean_x.square(), local(y * y) - mean_y.square()
    cov = local(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    score = (2 * mean_x * mean_y + c1) * (2 * cov + c2)
    score = score / ((mean_x.square() + mean_y.square() + c1) * (var_x + var_y + c2))
    return score.reshape(*one.shape[:2], -1).mean((1, 2))


@torch.no_grad()
def measure_codec(codec: Codec, pictures: Pictures, most: int = MOST) -> CodecFigures:
    """How well a codec keeps pictures, of which at most `most` are looked at, spread over the set."""
    ratios, scores = [], []
    counts = torch.zeros(codec.net.config.num_vq_embeddings, dtype=torch.int64) if isinstance(codec, VQCodec) else None
    for pixels in _batches(pictures, most):
        x = to_float(pixels)
        made = to_uint8(codec.decode(codec.encode(x))).cpu()
        ratios.append(psnr(pixels, made).clamp(max=EQUAL))
        scores.append(ssim(pixels, made))
        if counts is not None and isinstance(codec, VQCodec):
            counts += torch.bincount(codec.codes(x).flatten().cpu(), minlength=len(counts))
    return CodecFigures(
        sum(map(len, ratios)),
        float(torch.cat(ratios).mean()),
        float(torch.cat(scores).mean()),
        None if counts is None else usage(counts),
        None if counts is None else perplexity(counts),
    )


@torch.no_grad()
def measure_latents(codec: Codec, pictures: Pictures, most: int = MOST) -> LatentFigures:
    """What a codec's latents are like, at its network's scale: not quantised, or over draws of a Gaussian."""
    count, total, squares = 0, 0.0, 0.0
    for pixels in _batches(pictures, most):
        mean, variance = _moments(codec, to_float(pixels))
        count += mean.numel()
        total += float(mean.double().sum())
        squares += float((mean.double().square() + variance).sum())
    mean_of_all = total / count
    return LatentFigures(mean_of_all, max(squares / count - mean_of_all**2, 0.0) ** 0.5)


def some_of(pictures: Pictures, most: int) -> Tensor:
    """At most `most` pictures, spread evenly over the set: uint8 of shape (N, C, H, W)."""
    return pictures.read(_spread(len(pictures), most))


def _moments(codec: Codec, x: Tensor) -> tuple[Tensor, Tensor | float]:
    """Mean and variance of the latents that an autoencoder says."""
    if isinstance(codec, KLCodec):
        mean, log_variance = codec.reading(AutoencoderKL.encode, x).chunk(2, dim=1)
        return mean, log_variance.double().clamp(*LOG_VARIANCE).exp()
    if isinstance(codec, VQCodec):
        return codec.reading(VQAutoencoder.encode, x), 0.0
    return codec.encode(x), 0.0


def _batches(pictures: Pictures, most: int) -> Iterator[Tensor]:
    numbers = _spread(len(pictures), most)
    for start in range(0, len(numbers), _BATCH):
        yield pictures.read(numbers[start : start + _BATCH])


def _spread(count: int, most: int) -> list[int]:
    return np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()  # type: ignore[no-any-return]


def _window(side: int) -> Tensor:
    """The Gaussian window of an odd side, summing to 1: shape (1, 1, side, side)."""
    side -= 1 - side % 2
    places = torch.arange(side, dtype=torch.float64) - side // 2
    line = (-0.5 * (places / SPREAD).square()).exp()
    line = line / line.sum()
    return torch.outer(line, line)[None, None]
