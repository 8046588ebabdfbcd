"""PSNR and SSIM against closed forms, and a codec's figures against what they are means of."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from neblina.codecs.codec import Pixels
from neblina.codecs.kl import KLCodec
from neblina.codecs.vq import VQCodec
from neblina.data.pictures import InMemory, to_float
from neblina.evaluation.codec import EQUAL, measure_codec, measure_latents, psnr, some_of, ssim
from neblina.nets.autoencoder import AutoencoderKL, AutoencoderKLConfig
from neblina.nets.vq_autoencoder import VQAutoencoder, VQConfig

C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def pixels(count: int = 6, side: int = 16, channels: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(50, 200, (count, channels, side, side), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("offset", [1, 10, 50])
def test_the_psnr_of_a_constant_offset_is_known(offset: int) -> None:
    assert psnr(pixels(), pixels() + offset).tolist() == pytest.approx([20 * math.log10(255 / offset)] * 6)


def test_equal_pictures_are_infinitely_close() -> None:
    assert psnr(pixels(), pixels()).tolist() == [math.inf] * 6
    assert ssim(pixels(), pixels()).tolist() == pytest.approx([1] * 6)


def test_the_ssim_of_flat_pictures_compares_their_levels_alone() -> None:
    one, other = (torch.full((1, 3, 12, 15), level, dtype=torch.uint8) for level in (90, 120))
    expected = (2 * 90 * 120 + C1) / (90**2 + 120**2 + C1)
    assert float(ssim(one, other)) == pytest.approx(expected, rel=1e-9)


def test_the_ssim_of_an_offset_leaves_structure_alone() -> None:
    """σ_xy = σ_x² = σ_y²: only the means differ, window by window; here there is one window, weighed by hand."""
    one = pixels(1, 11)
    line = torch.tensor([math.exp(-((k - 5) ** 2) / (2 * 1.5**2)) for k in range(11)], dtype=torch.float64)
    weights = torch.outer(line, line) / line.sum() ** 2
    mean = float((weights * one[0, 0]).sum())
    expected = (2 * mean * (mean + 30) + C1) / (mean**2 + (mean + 30) ** 2 + C1)
    assert float(ssim(one, one + 30)) == pytest.approx(expected, rel=1e-9)


def test_the_ssim_of_one_window_is_equation_thirteen_by_hand() -> None:
    one, other = pixels(2, 11)[:1], pixels(2, 11)[1:]
    line = torch.tensor([math.exp(-((k - 5) ** 2) / (2 * 1.5**2)) for k in range(11)], dtype=torch.float64)
    weights = torch.outer(line, line) / line.sum() ** 2
    x, y = one[0, 0].double(), other[0, 0].double()
    mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
    var_x, var_y = (weights * (x - mean_x) ** 2).sum(), (weights * (y - mean_y) ** 2).sum()
    cov = (weights * (x - mean_x) * (y - mean_y)).sum()
    expected = (2 * mean_x * mean_y + C1) * (2 * cov + C2) / ((mean_x**2 + mean_y**2 + C1) * (var_x + var_y + C2))
    assert float(ssim(one, other)) == pytest.approx(float(expected), rel=1e-9)


def test_pictures_smaller_than_the_window_are_compared_in_one_that_fits() -> None:
    assert ssim(pixels(3, 8), pixels(3, 8)).tolist() == pytest.approx([1] * 3)


def test_some_pictures_are_spread_over_the_set() -> None:
    pictures = InMemory(torch.arange(11, dtype=torch.uint8)[:, None, None, None])
    assert some_of(pictures, 3).flatten().tolist() == [0, 5, 10]
    assert len(some_of(pictures, 100)) == 11


def test_a_codec_that_keeps_everything_counts_as_a_hundred_decibel() -> None:
    figures = measure_codec(Pixels(1), InMemory(pixels()))
    assert (figures.pictures, figures.psnr, figures.codebook_usage, figures.perplexity) == (6, EQUAL, None, None)
    assert figures.ssim == pytest.approx(1)


def vq() -> VQCodec:
    torch.manual_seed(0)
    config = VQConfig(
        in_channels=1, out_channels=1, block_out_channels=(8,), norm_num_groups=4, num_vq_embeddings=5, scaling_factor=7
    )
    return VQCodec(VQAutoencoder(config).eval())


def test_a_codebooks_usage_counts_the_codes_of_all_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neblina.evaluation.codec._BATCH", 4)
    codec = vq()
    with torch.no_grad():
        codes = codec.codes(to_float(pixels()))
    figures = measure_codec(codec, InMemory(pixels()))
    shares = torch.bincount(codes.flatten(), minlength=5).double() / codes.numel()
    assert figures.codebook_usage == int((shares > 0).sum()) / 5
    assert figures.perplexity == pytest.approx(float(torch.special.entr(shares).sum().exp()))


def test_latents_are_measured_at_the_networks_own_scale() -> None:
    codec = vq()
    with torch.no_grad():
        latents = replace(codec, scaled=False).encode(to_float(pixels())).double()
    figures = measure_latents(codec, InMemory(pixels()))
    assert figures.mean == pytest.approx(float(latents.mean()), rel=1e-5)
    assert figures.std == pytest.approx(float(latents.std(correction=0)), rel=1e-5)


def test_the_spread_of_gaussian_latents_holds_what_is_drawn() -> None:
    """Against 200 draws of every picture's latents."""
    torch.manual_seed(0)
    config = AutoencoderKLConfig(
        in_channels=1, out_channels=1, block_out_channels=(8,), norm_num_groups=4, scaling_factor=1.0
    )
    codec = KLCodec(AutoencoderKL(config).eval())
    x = to_float(pixels())
    with torch.no_grad():
        codec.net.encoder.conv_out.weight.mul_(3)
        drawn = torch.stack([codec.encode(x, noise=torch.randn(6, 4, 16, 16)) for _ in range(200)]).double()
        mode = codec.encode(x)
    figures = measure_latents(codec, InMemory(pixels()))
    assert figures.std == pytest.approx(float(drawn.std()), rel=2e-3)
    assert figures.mean == pytest.approx(float(mode.double().mean()), rel=1e-4)
    assert float(mode.std()) < 0.95 * figures.std
