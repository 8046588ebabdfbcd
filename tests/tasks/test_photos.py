"""A photo is read as it is meant, or refused with the way out; and it comes back at its own size with its own bytes."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from photo_files import declared_png, deep_png, deep_tiff
from PIL import Image, ImageCms

from neblina.core.errors import DataError, SettingError
from neblina.tasks.photos import fit, read_photo, resize, to_network, to_pixels

RANDOM = np.random.default_rng(0)


def noise(height: int = 9, width: int = 13) -> np.ndarray[Any, Any]:
    return RANDOM.integers(0, 256, (height, width, 3), dtype=np.uint8)


def saved(picture: Image.Image, place: Path, **settings: Any) -> Path:
    picture.save(place, **settings)
    return place


@pytest.mark.parametrize(("name", "settings"), [("a.png", {}), ("a.bmp", {}), ("a.webp", {"lossless": True})])
def test_a_plain_photo_is_its_own_bytes(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    pixels = noise()
    place = saved(Image.fromarray(pixels), tmp_path / name, **settings)
    photo = read_photo(place)
    assert np.array_equal(photo.pixels, pixels)
    assert (photo.size, photo.path, photo.changes) == ((9, 13), place, ())
    assert photo.sha256 == hashlib.sha256(place.read_bytes()).hexdigest()


def test_grey_palettes_and_black_and_white_become_their_colours(tmp_path: Path) -> None:
    grey = noise()[..., 0]
    assert np.array_equal(
        read_photo(saved(Image.fromarray(grey), tmp_path / "grey.png")).pixels, np.repeat(grey[..., None], 3, 2)
    )
    few = (noise() // 128 * 255).astype(np.uint8)
    palette = Image.fromarray(few).quantize(8)
    assert palette.mode == "P"
    assert np.array_equal(read_photo(saved(palette, tmp_path / "p.png")).pixels, np.asarray(palette.convert("RGB")))
    assert np.array_equal(read_photo(saved(palette, tmp_path / "p.gif")).pixels, np.asarray(palette.convert("RGB")))
    line = Image.fromarray(grey > 100)
    assert set(np.unique(read_photo(saved(line, tmp_path / "l.png")).pixels)) == {0, 255}


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_are_rounded_not_cut(channels: int, tmp_path: Path) -> None:
    values = RANDOM.integers(0, 65536, (11, 7, channels))
    values[..., 3:] = 65535
    values[0, 0, :3] = 254  # nearer to 1 · 257 than to 0, though its upper byte is 0
    place = tmp_path / "deep.png"
    place.write_bytes(deep_png(values))
    photo = read_photo(place)
    assert np.array_equal(photo.pixels, np.broadcast_to(np.round(values[..., :3] / 257), (11, 7, 3)))
    assert photo.pixels[0, 0].tolist() == [1, 1, 1]
    assert photo.changes == ("16 bits a channel to 8, rounded",)


def test_a_tiff_of_sixteen_bits_is_rounded_too(tmp_path: Path) -> None:
    values = RANDOM.integers(0, 65536, (5, 6, 3))
    place = tmp_path / "deep.tiff"
    place.write_bytes(deep_tiff(values))
    assert np.array_equal(read_photo(place).pixels, np.round(values / 257))


def test_print_colours_follow_their_profile_or_the_plain_rule(tmp_path: Path) -> None:
    inks = Image.fromarray(noise()).convert("CMYK")
    photo = read_photo(saved(inks, tmp_path / "print.tif"))
    assert np.array_equal(photo.pixels, np.asarray(inks.convert("RGB")))
    assert photo.changes == ("print colours (CMYK) without a profile to RGB",)


def test_another_colour_space_is_brought_to_srgb_and_srgb_is_left_alone(tmp_path: Path) -> None:
    pixels = noise()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    plain = read_photo(saved(Image.fromarray(pixels), tmp_path / "srgb.png", icc_profile=srgb.tobytes()))
    assert np.array_equal(plain.pixels, pixels)
    assert plain.changes == ()
    linear = linear_profile(srgb.tobytes())
    photo = read_photo(saved(Image.fromarray(pixels), tmp_path / "linear.png", icc_profile=linear))
    x = pixels / 255
    expected = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055) * 255
    assert np.abs(photo.pixels - expected).max() <= 2
    assert "to sRGB" in photo.changes[0]


def linear_profile(profile: bytes) -> bytes:
    """The same primaries with a straight curve, under another name: every tone curve of sRGB's profile replaced."""
    count = int.from_bytes(profile[128:132], "big")
    changed = bytearray(profile)
    for number in range(count):
        place = 132 + 12 * number
        tag, start = profile[place : place + 4], int.from_bytes(profile[place + 4 : place + 8], "big")
        if tag in (b"rTRC", b"gTRC", b"bTRC"):
            changed[start : start + 12] = b"curv\0\0\0\0\0\0\0\0"
        if tag == b"desc":
            changed[start:] = changed[start:].replace("sRGB".encode("utf-16-be"), "flat".encode("utf-16-be"), 1)
    return bytes(changed)


def test_a_damaged_profile_is_left_aside_and_said(tmp_path: Path) -> None:
    pixels = noise()
    photo = read_photo(saved(Image.fromarray(pixels), tmp_path / "a.png", icc_profile=b"no profile"))
    assert np.array_equal(photo.pixels, pixels)
    assert photo.changes == ("a damaged colour profile left aside",)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_its_camera_says(orientation: int, tmp_path: Path) -> None:
    pixels = noise()
    exif = Image.Exif()
    exif[0x0112] = orientation
    turns: dict[int, Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]] = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: x[::-1].transpose(1, 0, 2),
        7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
        8: lambda x: x[:, ::-1].transpose(1, 0, 2),
    }
    photo = read_photo(saved(Image.fromarray(pixels), tmp_path / "turned.png", exif=exif))
    assert np.array_equal(photo.pixels, turns[orientation](pixels))
    assert photo.changes == (() if orientation == 1 else ("turned as the camera says",))


def test_transparency_is_refused_or_laid_on_a_colour(tmp_path: Path) -> None:
    pixels = np.dstack([noise(), np.full((9, 13), 255, np.uint8)])
    place = saved(Image.fromarray(pixels), tmp_path / "opaque.png")
    assert np.array_equal(read_photo(place).pixels, pixels[..., :3])
    pixels[:3, :, 3] = 0
    pixels[3, :, 3] = 128
    saved(Image.fromarray(pixels), place)
    with pytest.raises(DataError, match=r"transparent in 44\.4% of its pixels.*--background white"):
        read_photo(place)
    photo = read_photo(place, background="#204060")
    assert (photo.pixels[:3] == (0x20, 0x40, 0x60)).all()
    assert np.array_equal(photo.pixels[4:], pixels[4:, :, :3])
    expected = np.round(128 / 255 * pixels[3, :, :3] + 127 / 255 * np.array((0x20, 0x40, 0x60)))
    assert np.abs(photo.pixels[3] - expected).max() <= 1e-6
    assert photo.changes == ("transparent parts laid on #204060",)
    with pytest.raises(SettingError, match="background 'whyte' is not a colour"):
        read_photo(place, background="whyte")


def test_transparent_colours_of_palettes_and_of_sixteen_bits_count(tmp_path: Path) -> None:
    gif = Image.fromarray(noise()).quantize(8)
    with pytest.raises(DataError, match="transparent"):
        read_photo(saved(gif, tmp_path / "a.gif", transparency=int(np.asarray(gif)[0, 0])))
    values = np.full((4, 4, 3), 1000)
    values[0, 0] = (7, 8, 9)
    values[0, 1] = (7, 8, 10)  # the same upper bytes, and opaque
    place = tmp_path / "key.png"
    place.write_bytes(deep_png(values, key=(7, 8, 9)))
    with pytest.raises(DataError, match=r"transparent in 6\.2%"):
        read_photo(place)
    photo = read_photo(place, background="white")
    assert photo.pixels[0, 0].tolist() == [255, 255, 255]
    assert photo.pixels[0, 1].tolist() == [0, 0, 0]


def animated(place: Path) -> None:
    frames = [Image.fromarray(noise()) for _ in range(12)]
    frames[0].save(place, save_all=True, append_images=frames[1:])


def cut(place: Path) -> None:
    Image.fromarray(noise(80, 80)).save(place)
    place.write_bytes(place.read_bytes()[:-400])


def written(content: bytes) -> Callable[[Path], None]:
    return lambda place: place.write_bytes(content) and None


def floating(place: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.float32)).save(place)


REFUSED: list[tuple[str, Callable[[Path], None], str]] = [
    ("a.gif", animated, "has 12 frames; save the one you want"),
    ("a.webp", animated, "has 12 frames"),
    ("a.png", animated, "has 12 frames"),
    ("a.tiff", animated, "has 12 pages"),
    ("cut.png", cut, "cannot be read as a picture .* cut short"),
    ("cut.jpg", cut, "cannot be read as a picture .* cut short"),
    ("cut.webp", cut, "cannot be read as a picture .* cut short"),
    ("cut.tiff", cut, "cannot be read as a picture .* cut short"),
    ("empty.png", written(b""), r"is empty \(0 bytes\)"),
    ("words.png", written(b"a picture, honestly"), "cannot be read as a picture"),
    ("script.eps", written(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "cannot be read as a picture"),
    ("none.png", written(declared_png(0, 5)), "cannot be read as a picture|has no pixels"),
    ("bomb.png", written(declared_png(9_500, 9_500)), r"more than 80,000,000 pixels; scale it down"),
    ("bomb.png", written(declared_png(60_000, 60_000)), r"more than 80,000,000 pixels; scale it down"),
    ("edge.png", written(declared_png(8_950, 8_950)), r"is 8950x8950, more than 80,000,000 pixels"),
    ("float.tiff", floating, "more than 16 bits a channel"),
    ("grey.png", written(deep_png(np.zeros((4, 4, 2), int))), "16 bits a channel in a form that is not read"),
    ("folder", lambda place: place.mkdir(), "is a folder; give one picture"),
    ("pipe", lambda place: os.mkfifo(place), "is not a file"),
    ("nothing.png", lambda place: None, "nothing.png is missing"),
]


@pytest.mark.parametrize(("name", "make", "said"), REFUSED, ids=[f"{name}-{n}" for n, (name, *_) in enumerate(REFUSED)])
def test_what_is_not_one_still_photo_is_refused(
    name: str, make: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    make(tmp_path / name)
    with pytest.raises(DataError, match=said):
        read_photo(tmp_path / name)


def test_a_photo_that_carries_its_preview_is_one_photo(tmp_path: Path) -> None:
    main, preview = Image.fromarray(noise(32, 32)), Image.fromarray(noise(8, 8))
    main.save(tmp_path / "phone.mpo", save_all=True, append_images=[preview])
    assert read_photo(tmp_path / "phone.mpo").size == (32, 32)


def test_scaling_is_pillows_lanczos_and_nothing_at_its_own_size(tmp_path: Path) -> None:
    photo = read_photo(saved(Image.fromarray(noise(30, 40)), tmp_path / "a.png"))
    assert resize(photo, (30, 40)) is photo
    half = resize(photo, (15, 20))
    expected = Image.open(photo.path).resize((20, 15), Image.Resampling.LANCZOS)
    assert np.array_equal(half.pixels, np.asarray(expected))
    assert (half.sha256, half.changes) == (photo.sha256, ("scaled from 40x30 to 20x15",))
    with pytest.raises(SettingError, match="cannot be 0x4"):
        resize(photo, (4, 0))


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (64, 64), (63, 65), (101, 7), (130, 129)])
@pytest.mark.parametrize("multiple", [1, 8, 64])
def test_any_size_fits_and_comes_back(size: tuple[int, int], multiple: int) -> None:
    pixels = RANDOM.integers(0, 256, (*size, 3), dtype=np.uint8)
    frame = fit(size, multiple)
    padded = frame.pad(pixels)
    assert all(0 <= after - before < multiple for before, after in zip(size, padded.shape[:2], strict=True))
    assert all(side % multiple == 0 for side in padded.shape[:2])
    assert np.array_equal(frame.cut(padded), pixels)
    assert np.array_equal(padded[:, : size[1]][: size[0]], pixels)
    if size[0] > 1 and frame.padded[0] > size[0]:
        assert np.array_equal(padded[size[0]], padded[size[0] - 2])  # a mirror: nothing that the photo does not have
    mask = frame.pad(pixels[..., 0] > 127)
    assert mask.shape == frame.padded
    assert mask.dtype == bool
    with pytest.raises(SettingError, match="belong"):
        frame.cut(padded[:-1])


def test_every_byte_survives_the_way_to_the_network_and_back() -> None:
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    there = to_network(pixels)
    assert (there.shape, there.dtype) == ((1, 3, 16, 16), torch.float32)
    assert (float(there.min()), float(there.max())) == (-1, 1)
    assert np.array_equal(to_pixels(there[0]), pixels)
