"""Pictures from everywhere; what cannot be used is named before anything starts."""

import gzip
import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from neblina.core.errors import DataError, SettingError
from neblina.data import files
from neblina.data.holding import split
from neblina.data.pictures import Subset, to_float, to_uint8
from neblina.data.sources import open_pictures, read_idx
from neblina.tasks.train import open_recipe_pictures
from neblina.training.recipe import load_recipe


def picture(value: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, value if mode == "L" else (value, 0, 255 - value))


def folder_of_classes(place: Path) -> Path:
    for number, name in enumerate(("cat", "dog")):
        (place / name).mkdir(parents=True)
        for copy in range(3):
            picture(100 * number + copy).save(place / name / f"{copy}.png")
    return place


def test_a_folder_a_class_per_subfolder(tmp_path: Path) -> None:
    pictures, bad = open_pictures(str(folder_of_classes(tmp_path)))
    assert bad == []
    assert len(pictures) == 6
    assert pictures.shape == (3, 8, 8)
    assert pictures.label_names == ("cat", "dog")
    assert pictures.labels is not None
    assert pictures.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert pictures.read([4])[0, :, 0, 0].tolist() == [101, 0, 154]


def test_a_zip_of_the_same_reads_the_same(tmp_path: Path) -> None:
    folder = folder_of_classes(tmp_path / "folder")
    with zipfile.ZipFile(tmp_path / "same.zip", "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, file.relative_to(folder))
    one, _ = open_pictures(str(folder))
    other, _ = open_pictures(str(tmp_path / "same.zip"))
    assert torch.equal(one.read(range(6)), other.read(range(6)))
    assert other.label_names == one.label_names


def test_metadata_brings_captions_and_labels(tmp_path: Path) -> None:
    records = [
        {"file_name": f"{n}.png", "text": f"number {n}", "label": n % 2, "label_name": "eo"[n % 2]} for n in range(3)
    ]
    for number in range(4):
        picture(number).save(tmp_path / f"{number}.png")
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n\n")
    pictures, _ = open_pictures(str(tmp_path))
    assert len(pictures) == 3  # the fourth is not listed
    assert pictures.records is not None
    assert [record["text"] for record in pictures.records] == ["number 0", "number 1", "number 2"]
    assert pictures.labels is not None
    assert pictures.labels.tolist() == [0, 1, 0]
    assert pictures.label_names == ("e", "o")


@pytest.mark.parametrize("zipped", [False, True])
def test_a_text_file_beside_a_picture_is_its_caption(zipped: bool, tmp_path: Path) -> None:
    place = tmp_path / "set"
    (place / "fruit").mkdir(parents=True)
    for name in ("fruit/apple", "fruit/pear", "fruit/plum"):
        picture(1).save(place / f"{name}.png")
    (place / "fruit/apple.txt").write_text(" a red apple,\n  ripe\r\n")
    (place / "fruit/pear.txt").write_bytes(b"\xef\xbb\xbf" + "une poire dorée".encode())  # as some editors save it
    (place / "notes.txt").write_text("of no picture")
    if zipped:
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            for file in sorted(place.rglob("*.*")):
                archive.write(file, file.relative_to(place))
        place = tmp_path / "set.zip"
    pictures, _ = open_pictures(str(place))
    assert pictures.records == (
        {"file_name": "fruit/apple.png", "text": "a red apple, ripe"},
        {"file_name": "fruit/pear.png", "text": "une poire dorée"},
        {"file_name": "fruit/plum.png"},
    )
    assert pictures.label_names == ("fruit",)


def test_text_files_are_not_looked_at_where_there_is_a_metadata_file(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "apple.png")
    (tmp_path / "apple.txt").write_text("a red apple")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "apple.png", "text": "a green one"}')
    pictures, _ = open_pictures(str(tmp_path))
    assert pictures.records == ({"file_name": "apple.png", "text": "a green one"},)


def test_a_caption_that_is_no_utf_8_is_named(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "pear.png")
    (tmp_path / "pear.txt").write_bytes("poire dorée".encode("latin-1"))
    with pytest.raises(DataError, match=r"pear\.txt is no text in UTF-8"):
        open_pictures(str(tmp_path))


def test_pictures_without_any_text_have_no_records(tmp_path: Path) -> None:
    pictures, _ = open_pictures(str(folder_of_classes(tmp_path)))
    assert pictures.records is None


def test_pictures_too_many_for_memory_are_decoded_when_they_are_read(tmp_path: Path, monkeypatch: Any) -> None:
    folder = folder_of_classes(tmp_path)
    at_once, _ = open_pictures(str(folder))
    monkeypatch.setattr(files, "IN_MEMORY", 10)
    lazy, _ = open_pictures(str(folder))
    assert isinstance(lazy, files.Decoded)
    assert torch.equal(lazy.read([5, 0, 3]), at_once.read([5, 0, 3]))


def test_a_resolution_takes_the_centre_square(tmp_path: Path) -> None:
    wide = Image.new("L", (40, 20), 0)
    wide.paste(255, (10, 0, 30, 20))
    wide.save(tmp_path / "wide.png")
    picture(9, (30, 30), "L").save(tmp_path / "square.png")
    with pytest.raises(DataError, match=r"differ in size.*--data\.resolution"):
        open_pictures(str(tmp_path))
    pictures, _ = open_pictures(str(tmp_path), resolution=10)
    assert pictures.shape == (1, 10, 10)
    assert int(pictures.read([1])[..., 1:-1].min()) > 250  # the filter looks a little over the edge


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    pictures, _ = open_pictures(str(tmp_path))
    assert int(pictures.read([0]).min()) == 255


def truncated(place: Path) -> None:
    Image.effect_noise((32, 32), 50).convert("RGB").save(place)
    place.write_bytes(place.read_bytes()[:700])


def empty(place: Path) -> None:
    place.write_bytes(b"")


def cmyk(place: Path) -> None:
    Image.new("CMYK", (8, 8)).save(place, format="JPEG")


def sixteen_bits(place: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(place, format="PNG")


def sixteen_bits_of_colour(place: Path) -> None:
    """Four pixels of RGB with 16 bits a channel, as PNG; Pillow cannot write one."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(12)) * 2)
    place.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def zero_size(place: Path) -> None:
    place.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + bytes(17))


def text(place: Path) -> None:
    place.write_text("not a picture")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (truncated, "cannot be read as a picture"),
        (empty, r"is empty \(0 bytes\)"),
        (cmyk, "colour mode CMYK; it is made for print; convert it to RGB"),
        (sixteen_bits, "16 bits a channel; convert it to 8 bits"),
        (sixteen_bits_of_colour, "16 bits a channel; convert it to 8 bits"),
        (zero_size, "cannot be read as a picture"),
        (text, "cannot be read as a picture"),
    ],
)
def test_a_bad_file_is_named_and_refused_or_skipped_on_request(harm: Any, said: str, tmp_path: Path) -> None:
    folder_of_classes(tmp_path)
    harm(tmp_path / "cat" / "bad.png")
    with pytest.raises(DataError, match=rf"bad\.png.*{said}(.|\n)*--skip-bad"):
        open_pictures(str(tmp_path))
    pictures, bad = open_pictures(str(tmp_path), skip_bad=True)
    assert len(pictures) == 6
    assert len(bad) == 1
    assert "bad.png" in bad[0]


def test_a_damaged_member_of_a_zip_is_named_too(tmp_path: Path) -> None:
    folder = folder_of_classes(tmp_path / "folder")
    with zipfile.ZipFile(tmp_path / "hurt.zip", "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, file.relative_to(folder))
    content = bytearray((tmp_path / "hurt.zip").read_bytes())
    content[content.index(b"IDAT") + 6] ^= 255
    (tmp_path / "hurt.zip").write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"hurt\.zip: cat/0\.png cannot be read: Bad CRC"):
        open_pictures(str(tmp_path / "hurt.zip"))
    assert len(open_pictures(str(tmp_path / "hurt.zip"), skip_bad=True)[0]) == 5


def test_a_photograph_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    lying = Image.new("RGB", (8, 4), (255, 0, 0))
    exif = lying.getexif()
    exif[0x0112] = 6
    lying.save(tmp_path / "photo.jpg", exif=exif)
    assert open_pictures(str(tmp_path))[0].shape == (3, 8, 4)


def test_only_bad_files_are_no_data_set(tmp_path: Path) -> None:
    text(tmp_path / "a.png")
    with pytest.raises(DataError, match="no picture that can be used"):
        open_pictures(str(tmp_path), skip_bad=True)


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match="holds no pictures"):
        open_pictures(str(tmp_path))


def test_the_emoji_that_are_not_there_are_said_with_what_makes_them() -> None:
    for name in ("emoji", "emoji-codec"):
        with pytest.raises(DataError, match=r"noto-emoji-64\.zip does not exist\. Make it with: neblina data emoji"):
            open_recipe_pictures(load_recipe(name))


def test_nothing_there_is_said_with_what_could_be(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Did you mean digits"):
        open_pictures("digit")
    with pytest.raises(DataError, match=r"does not exist\. Say where the pictures are: --data\.source PATH"):
        open_pictures(str(tmp_path / "nothing"))
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="neither a folder, a zip archive, a picture nor an IDX file"):
        open_pictures(str(tmp_path / "a.txt"))
    (tmp_path / "a.zip").write_bytes(b"PK not a zip")
    with pytest.raises(DataError, match="not a zip archive, or it is cut short"):
        open_pictures(str(tmp_path / "a.zip"))


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([{"file_name": "0.png", "label": -1}], "label -1 of 0.png is out of range"),
        (
            [{"file_name": "0.png", "label": 0}, {"file_name": "1.png", "label": 900}],
            "label 900 of 1.png is out of range",
        ),
        ([{"file_name": "0.png", "label": 0}, {"file_name": "1.png"}], "none to 1.png"),
        ([{"file_name": "7.png"}], "lists 7.png, which is not there"),
        ([{"name": "0.png"}], "line 1: needs a JSON object with file_name"),
    ],
)
def test_metadata_that_contradicts_the_pictures_is_refused(records: list[Any], said: str, tmp_path: Path) -> None:
    for number in range(2):
        picture(number).save(tmp_path / f"{number}.png")
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, records)))
    with pytest.raises(DataError, match=said):
        open_pictures(str(tmp_path))


def test_a_stray_picture_beside_class_folders_is_refused(tmp_path: Path) -> None:
    folder_of_classes(tmp_path)
    picture(1).save(tmp_path / "stray.png")
    with pytest.raises(DataError, match=r"stray\.png lies beside class folders"):
        open_pictures(str(tmp_path))


def idx(place: Path, array: Any) -> Path:
    head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    place.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))
    return place


def test_idx_files_with_their_labels(tmp_path: Path) -> None:
    pixels = np.arange(5 * 4 * 4).reshape(5, 4, 4)
    idx(tmp_path / "train-images-idx3-ubyte.gz", pixels)
    idx(tmp_path / "train-labels-idx1-ubyte.gz", np.array([0, 1, 2, 1, 0]))
    idx(tmp_path / "t10k-images-idx3-ubyte.gz", pixels[:2])
    pictures, _ = open_pictures(str(tmp_path))
    assert pictures.shape == (1, 4, 4)
    assert pictures.read([4])[0, 0, 3, 3] == 79
    assert pictures.labels is not None
    assert pictures.labels.tolist() == [0, 1, 2, 1, 0]
    assert len(open_pictures(str(tmp_path / "t10k-images-idx3-ubyte.gz"))[0]) == 2


def test_a_resolution_is_that_of_every_source(tmp_path: Path) -> None:
    """IDX files and named sources too, scaled as pictures of a folder are."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8))
    idx(tmp_path / "train-images-idx3-ubyte.gz", pixels)
    idx(tmp_path / "train-labels-idx1-ubyte.gz", np.array([0, 1, 2]))
    small, _ = open_pictures(str(tmp_path), resolution=4)
    assert small.shape == (1, 4, 4)
    assert small.labels is not None
    assert small.labels.tolist() == [0, 1, 2]
    (tmp_path / "folder").mkdir()
    for number, picture in enumerate(pixels):
        Image.fromarray(picture.astype(np.uint8)).save(tmp_path / "folder" / f"{number}.png")
    same, _ = open_pictures(str(tmp_path / "folder"), resolution=4)
    assert torch.equal(small.read([0, 1, 2]), same.read([0, 1, 2]))
    assert open_pictures("digits", resolution=5)[0].shape == (1, 5, 5)
    with pytest.raises(SettingError, match=r"data\.channels = 3, and the pictures of digits are grey"):
        open_recipe_pictures(load_recipe("digits", {"data": {"channels": 3}}))


def test_broken_idx_files_are_refused(tmp_path: Path) -> None:
    whole = idx(tmp_path / "train-images-idx3-ubyte.gz", np.zeros((5, 4, 4)))
    plain = gzip.decompress(whole.read_bytes())
    (tmp_path / "cut-idx3-ubyte").write_bytes(plain[:-7])
    with pytest.raises(DataError, match="cut short: 73 of 80 bytes"):
        read_idx(tmp_path / "cut-idx3-ubyte")
    (tmp_path / "half-idx3-ubyte.gz").write_bytes(whole.read_bytes()[:20])
    with pytest.raises(DataError, match="cannot be read as an IDX file"):
        read_idx(tmp_path / "half-idx3-ubyte.gz")
    idx(tmp_path / "train-labels-idx1-ubyte.gz", np.zeros(4))
    with pytest.raises(DataError, match="4 labels for 5 pictures"):
        read_idx(whole)


def test_the_digits_of_scikit_learn() -> None:
    pictures, _ = open_pictures("digits")
    assert len(pictures) == 1797
    assert pictures.shape == (1, 8, 8)
    assert int(pictures.read(range(1797)).max()) == 255


def test_a_split_is_disjoint_complete_and_the_same_every_time() -> None:
    pictures, _ = open_pictures("digits")
    training, held = split(pictures, 0.2, seed=3)
    assert isinstance(training, Subset)
    assert isinstance(held, Subset)
    assert sorted(training.numbers + held.numbers) == list(range(1797))
    assert len(held) == 359
    assert split(pictures, 0.2, seed=3)[1].read([5]).equal(held.read([5]))
    assert split(pictures, 0.2, seed=4)[1].numbers != held.numbers  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="without any"):
        split(pictures, 0.0001, seed=0)


def test_bytes_survive_the_way_to_floats_and_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(levels)), levels)
    assert to_uint8(torch.tensor([-3.0, 5.0])).tolist() == [0, 255]


def test_one_picture_is_a_set_of_one(tmp_path: Path) -> None:
    picture(100, (7, 5)).save(tmp_path / "cat.png")
    pictures, bad = open_pictures(str(tmp_path / "cat.png"), resolution=4, channels=1)
    assert pictures.shape == (1, 4, 4)
    assert len(pictures) == 1
    assert not bad
    (tmp_path / "dog.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"dog\.png cannot be read as a picture"):
        open_pictures(str(tmp_path / "dog.png"))
