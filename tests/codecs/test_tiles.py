"""Tiles cover everything once, fade into each other, and cost what they are said to cost."""

import itertools
from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL as Theirs
from torch import Tensor

from neblina.codecs.codec import Pixels
from neblina.codecs.kl import KLCodec
from neblina.codecs.tiles import in_tiles
from neblina.codecs.tiny import TinyCodec
from neblina.codecs.vq import VQCodec
from neblina.core.tiles import spans, weights
from neblina.nets.autoencoder import AutoencoderKL, AutoencoderKLConfig
from neblina.nets.tiny_autoencoder import AutoencoderTiny, AutoencoderTinyConfig
from neblina.nets.vq_autoencoder import VQAutoencoder, VQConfig


def kl(tile: int | None) -> KLCodec:
    """A small autoencoder of random weights."""
    torch.manual_seed(0)
    config = AutoencoderKLConfig(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        scaling_factor=1.0,
    )
    return KLCodec(AutoencoderKL(config).eval(), tile)


def tiny(tile: int | None) -> TinyCodec:
    """A small autoencoder of random convolutions, which see 9 cells to every side and no further."""
    torch.manual_seed(0)
    config = AutoencoderTinyConfig(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )
    return TinyCodec(AutoencoderTiny(config).eval(), tile)


def smooth(channels: int, height: int, width: int) -> Tensor:
    """Values that change slowly, as a picture's do."""
    torch.manual_seed(3)
    coarse = torch.randn(1, channels, 4, 4)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")


@pytest.mark.parametrize("overlap", [1, 2, 5])
def test_tiles_cover_every_length_with_one_size_within_the_limit(overlap: int) -> None:
    for limit in (overlap + 1, 2 * overlap, 16):
        if limit <= overlap:
            continue
        for length in range(1, 100):
            tiles = spans(length, limit, overlap)
            assert tiles[0].start == 0
            assert tiles[-1].stop == length
            assert len({tile.stop - tile.start for tile in tiles}) == 1
            assert tiles[0].stop <= limit
            assert all(after.start + overlap <= before.stop for before, after in itertools.pairwise(tiles))


@pytest.mark.parametrize("scale", [1, 8])
def test_weights_sum_to_one_everywhere_and_change_gently(scale: int) -> None:
    for length in range(1, 100):
        tiles = spans(length, 16, 4)
        total = torch.zeros(length * scale)
        for tile, weight in zip(tiles, weights(tiles, scale, total), strict=True):
            total[tile.start * scale : tile.stop * scale] += weight
            assert bool((weight.diff().abs() <= 1 / (4 * scale) + 1e-6).all())
            assert tile.rise == 0 or float(weight[0]) <= 1 / (4 * scale)
            assert tile.fall == 0 or float(weight[-1]) <= 1 / (4 * scale)
        assert torch.allclose(total, torch.ones_like(total))


@pytest.mark.parametrize("size", [(17, 40), (33, 5), (16, 16), (100, 31)])
def test_what_looks_at_one_cell_at_a_time_does_not_notice_the_tiles(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size)
    decoded = in_tiles(
        lambda tile: tile.repeat_interleave(4, 2).repeat_interleave(4, 3), x, limit=16, overlap=4, writes=4
    )
    assert torch.allclose(decoded, x.repeat_interleave(4, 2).repeat_interleave(4, 3), atol=1e-6)
    encoded = in_tiles(lambda tile: tile[..., ::4, ::4] * 2, decoded, limit=16, overlap=4, reads=4)
    assert torch.allclose(encoded, 2 * x, atol=1e-6)


@torch.no_grad()
def test_up_to_the_limit_pictures_are_one_piece_whatever_their_shape() -> None:
    whole, tiled = kl(None), kl(32)
    for height, width in ((16, 16), (4, 64), (8, 32)):
        latents = torch.randn(1, 4, height, width)
        assert torch.equal(tiled.decode(latents), whole.decode(latents))
        pictures = torch.randn(1, 3, 2 * height, 2 * width)
        assert torch.equal(tiled.encode(pictures), whole.encode(pictures))


@torch.no_grad()
def test_several_pictures_are_coded_as_each_alone() -> None:
    whole, tiled = kl(None), kl(32)
    latents = torch.randn(5, 4, 11, 13)
    assert torch.allclose(tiled.decode(latents), whole.decode(latents), atol=1e-5)
    assert torch.allclose(tiled.encode(whole.decode(latents)), whole.encode(whole.decode(latents)), atol=1e-5)


@torch.no_grad()
def test_no_call_of_the_network_sees_more_than_a_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    decode = AutoencoderKL.decode

    def watched(net: AutoencoderKL, z: Tensor) -> Tensor:
        seen.append(z.shape[0] * z.shape[2] * z.shape[3])
        return decode(net, z)

    monkeypatch.setattr(AutoencoderKL, "decode", watched)
    for size in ((40, 40), (17, 90), (5, 300), (10, 10)):
        kl(32).decode(torch.randn(3, 4, *size))
    assert max(seen) <= 16**2


@torch.no_grad()
def test_tiles_of_plain_convolutions_are_exact_where_they_see_no_border() -> None:
    latents = smooth(4, 60, 60)
    tiled, whole = tiny(64).decode(latents), tiny(None).decode(latents)
    rows = spans(60, 32, 8)
    alone = slice(0, 2 * (rows[0].stop - rows[0].fall - 9))  # nine cells away from what the other tile sees
    assert torch.allclose(tiled[..., alone, alone], whole[..., alone, alone], atol=1e-5)


def error(tiled: Tensor, whole: Tensor) -> float:
    """Root mean square, in standard deviations of the whole."""
    return float((tiled - whole).square().mean().sqrt() / whole.std())


@pytest.mark.parametrize("content", ["smooth", "noise"])
@torch.no_grad()
def test_larger_tiles_err_less_and_the_default_less_than_diffusers(content: str) -> None:
    """Normalisations and attention see a tile only, so what is coded in tiles differs from the whole. Tile for tile we
    err as much as diffusers; but its tiles are half of ours by default (512 and 1024 pixels, here 32 and 64)."""
    torch.manual_seed(4)
    fill = smooth if content == "smooth" else lambda *size: torch.randn(1, *size)
    latents, pictures = fill(4, 60, 44), fill(3, 120, 88)
    codec = kl(None)
    theirs = Theirs(**{k: v for k, v in codec.net.config.to_dict().items() if not k.startswith("_")}).eval()
    theirs.load_state_dict(codec.net.state_dict())
    theirs.enable_tiling()
    theirs.tile_sample_min_size, theirs.tile_latent_min_size = 32, 16
    whole, coded = codec.decode(latents), codec.encode(pictures)
    decoding = [error(kl(tile).decode(latents), whole) for tile in (96, 64, 32)]
    encoding = [error(kl(tile).encode(pictures), coded) for tile in (96, 64, 32)]
    assert 0 < decoding[0] < decoding[1] < min(decoding[2], error(theirs.decode(latents).sample, whole))
    assert 0 < encoding[0] < encoding[1] < min(encoding[2], error(theirs.encode(pictures).latent_dist.mode(), coded))


@torch.no_grad()
def test_where_tiles_meet_there_is_no_edge() -> None:
    """Between two tiles that disagree the picture fades over the cells they share; a cut would leave an edge."""
    latents = smooth(4, 60, 20)
    whole = kl(None).decode(latents)
    before, after = spans(60, 32, 8)[:2]
    tiles = [kl(None).decode(latents[:, :, tile.start : tile.stop]) for tile in (before, after)]
    middle = 2 * after.start + after.rise  # of the rows that both show
    cut = torch.cat([tiles[0][:, :, :middle], tiles[1][:, :, middle - 2 * after.start :]], dim=2)
    faded = kl(64).decode(latents)

    def edge(picture: Tensor) -> float:
        """The largest change of the error from row to row, where the first two tiles meet."""
        rows = slice(2 * after.start - 2, 2 * before.stop + 2)
        return float((picture - whole[:, :, : picture.shape[2]])[:, :, rows].diff(dim=2).abs().mean((0, 1, 3)).max())

    assert edge(faded) < edge(cut) / 2


@torch.no_grad()
def test_every_codec_takes_tiles_of_odd_sizes() -> None:
    config = VQConfig(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    )
    for codec in (kl(16), tiny(16), VQCodec(VQAutoencoder(config).eval(), tile=16)):
        latents = torch.randn(2, codec.channels, 23, 37)
        pictures = codec.decode(latents)
        assert pictures.shape == (2, 3, 46, 74)
        assert codec.encode(pictures).shape == latents.shape
        assert replace(codec, tile=None).decode(latents).shape == pictures.shape


@torch.no_grad()
def test_noise_is_drawn_after_the_tiles_are_joined() -> None:
    codec = kl(64)
    pictures, noise = smooth(3, 120, 88), torch.randn(1, 4, 60, 44)
    mode, sample = codec.encode(pictures), codec.encode(pictures, noise)
    std = (sample - mode) / noise
    assert bool((std > 0).all())


def test_pixels_are_their_own_preview() -> None:
    x = torch.randn(1, 3, 4, 4)
    assert torch.equal(Pixels().preview(x), x)
