"""A picture says how it was made, whole and exactly, or says that it does not."""

import json
import multiprocessing
import resource
import signal
import string
import time
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from photo_files import chunk
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from neblina.core.errors import CheckpointError, DataError, SettingError, StorageError
from neblina.tasks.fingerprint import fingerprint
from neblina.tasks.provenance import Input, Provenance, describe, read_provenance, save_picture
from neblina.version import __version__

MADE = Provenance(
    verb="inpaint",
    model="runwayml/stable-diffusion-inpainting",
    fingerprint="0123456789abcdef0123456789abcdef",
    arguments={
        "prompt": "a cat, (orange:1.3)",
        "negative": "dog",
        "sampler": "dpmpp_2m",
        "grid": None,
        "steps": 25,
        "guidance": 7.5,
        "seed": 7,
        "number": 0,
        "size": "512x768",
        "strength": 1.0,
        "settings": {"eta": 0.5},
        "loras": [["style.safetensors", 0.8]],
    },
    inputs={"photo": Input("in/photo.png", "ab" * 32), "mask": Input("in/mask.png", "cd" * 32)},
)
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)


def random_value(random: Random, depth: int) -> Any:
    """Any JSON value, of every plane of Unicode, with control characters and the bytes of a path that are no text."""
    kind = random.randrange(7 if depth else 5)
    if kind == 0:
        return random.choice([None, True, False])
    if kind == 1:
        return random.randint(-(10**30), 10**30)
    if kind == 2:
        return random.choice([random.gauss(0, 1), 5e-324, -0.0, 1.7976931348623157e308, 0.1])
    if kind in (3, 4):
        planes = (string.printable, "\0\x01\x7f\x85\u2028", "äß€", "雪の中", "🐈\u200d\U0010fffd", "\udc80\udcff")
        return "".join(random.choice(random.choice(planes)) for _ in range(random.randrange(30)))
    if kind == 5:
        return [random_value(random, depth - 1) for _ in range(random.randrange(4))]
    return {str(random_value(random, 0)): random_value(random, depth - 1) for _ in range(random.randrange(4))}


@pytest.mark.parametrize("seed", range(60))
def test_whatever_was_asked_is_read_back(seed: int, tmp_path: Path) -> None:
    random = Random(seed)
    arguments = {str(random_value(random, 0)): random_value(random, 3) for _ in range(6)}
    if seed % 2:
        arguments["prompt"] = random_value(random, 0)
    made = replace(
        MADE, arguments=arguments, inputs={"photo": Input(str(random_value(random, 0)), "ef" * 32)} if seed % 3 else {}
    )
    save_picture(PIXELS, tmp_path / "a.png", made)
    again = read_provenance(tmp_path / "a.png")
    assert again == made
    assert repr(again) == repr(made)  # 1 is not 1.0, and −0 is not 0
    with Image.open(tmp_path / "a.png") as picture:
        assert np.array_equal(np.asarray(picture), PIXELS)


def test_a_picture_of_floats_is_rounded_and_grey_stays_grey(tmp_path: Path) -> None:
    picture = torch.from_numpy(PIXELS).permute(2, 0, 1).float() / 127.5 - 1
    save_picture(picture, tmp_path / "new" / "a.png", MADE)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "new" / "a.png")), PIXELS)
    save_picture(picture[:1], tmp_path / "grey.png", MADE)
    with Image.open(tmp_path / "grey.png") as grey:
        assert grey.mode == "L"
        assert np.array_equal(np.asarray(grey), PIXELS[..., 0])


@pytest.mark.parametrize(
    "picture", [PIXELS.astype(float), PIXELS[..., :2], PIXELS[..., 0], torch.zeros(1, 3, 8, 8), PIXELS[:0]]
)
def test_what_is_no_picture_is_not_written(picture: Any, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="a picture has 1 or 3 channels"):
        save_picture(picture, tmp_path / "a.png", MADE)
    with pytest.raises(SettingError, match=r"does not end in \.png"):
        save_picture(PIXELS, tmp_path / "a.jpg", MADE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"scale": float("nan")}, "scale is nan; .* finite"),
        ({"settings": {"eta": float("inf")}}, r"settings\.eta is inf"),
        ({"size": (8, 8)}, "size is a tuple"),
        ({"out": Path("a")}, "out is a PosixPath"),
        ({"loras": [{"at": {1: 2}}]}, r"loras\.at has the key 1"),
    ],
)
def test_what_would_not_come_back_as_it_is_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        replace(MADE, arguments=arguments)
    with pytest.raises(SettingError, match="Did you mean inpaint"):
        replace(MADE, verb="impaint")


def test_people_read_it_as_they_know_it(tmp_path: Path) -> None:
    save_picture(PIXELS, tmp_path / "a.png", MADE)
    with Image.open(tmp_path / "a.png") as picture:
        lines = picture.info["parameters"].splitlines()
    assert lines[0] == "a cat, (orange:1.3)"
    assert lines[1] == "Negative prompt: dog"
    assert lines[2].startswith("Sampler: dpmpp_2m, Steps: 25, CFG scale: 7.5, Seed: 7, Number: 0, Size: 512x768")
    assert lines[2].endswith(f"Photo: in/photo.png, Mask: in/mask.png, Version: neblina {__version__}")
    assert "Schedule type" not in lines[2]
    assert describe(replace(MADE, arguments={"labels": ["3"]})).startswith("Labels: ")


def png(texts: dict[str, str]) -> bytes:
    """A PNG with these text chunks, written by hand."""
    written = b"".join(chunk(b"tEXt", name.encode() + b"\0" + text.encode("latin-1")) for name, text in texts.items())
    Image.fromarray(PIXELS).save(buffer := BytesIO(), format="PNG")
    plain = buffer.getvalue()
    return plain[:33] + written + plain[33:]


GOOD = {"format": 1, **asdict(MADE)}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (png({}), "does not say how it was made"),
        (png({"parameters": "a cat\nSteps: 20"}), "does not say how it was made"),
        (png({"neblina": json.dumps(GOOD)[:-5]}), "damaged metadata: JSONDecodeError"),
        (png({"neblina": "[1]"}), "damaged metadata: .*a list where names and values belong"),
        (png({"neblina": "[" * 100_000}), "damaged metadata"),
        (png({"neblina": "{}"}), "damaged metadata: KeyError, 'format'"),
        (png({"neblina": json.dumps({**GOOD, "format": 2, "version": "9.1"})}), r"format 2, written by neblina 9\.1"),
        (png({"neblina": json.dumps({**GOOD, "mood": 1})}), "damaged metadata: TypeError, .*mood"),
        (png({"neblina": json.dumps({**GOOD, "model": 3})}), "damaged metadata: TypeError, model is no text"),
        (png({"neblina": json.dumps({**GOOD, "arguments": []})}), "arguments is no object"),
        (png({"neblina": json.dumps({**GOOD, "inputs": {"photo": {"path": "a"}}})}), "damaged metadata: TypeError"),
        (png({"neblina": json.dumps({**GOOD, "inputs": {"photo": {"path": 1, "sha256": ""}}})}), "photo is no file"),
        (png({"neblina": json.dumps({**GOOD, "inputs": 3})}), "damaged metadata: AttributeError"),
        (png({"neblina": json.dumps({**GOOD, "verb": "paint"})}), "damaged metadata: .*'paint' is not a verb"),
        (png({"neblina": json.dumps({**GOOD, "arguments": {"a": float("nan")}})}), "a is nan"),
        (b"no picture", "cannot be read as a picture"),
        (b"", "cannot be read as a picture"),
    ],
)
def test_what_does_not_say_so_is_refused_by_what_is_wrong(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_provenance(tmp_path / "a.png")


def test_only_a_png_that_is_there_can_say_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing"):
        read_provenance(tmp_path / "a.png")
    with pytest.raises(DataError, match="is a folder"):
        read_provenance(tmp_path)
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"is a JPEG; .* in PNG files only"):
        read_provenance(tmp_path / "a.jpg")


def test_another_programs_texts_do_not_disturb_ours(tmp_path: Path) -> None:
    texts = PngInfo()
    texts.add_itxt("neblina", json.dumps(GOOD, ensure_ascii=False), zip=True)  # as another program may write it anew
    texts.add_text("workflow", "{}")
    Image.fromarray(PIXELS).save(tmp_path / "a.png", pnginfo=texts)
    assert read_provenance(tmp_path / "a.png") == MADE
    plain = png({})
    behind = chunk(b"tEXt", b"neblina\0" + json.dumps(GOOD).encode())
    (tmp_path / "b.png").write_bytes(plain[:-12] + behind + plain[-12:])  # before the last chunk, after the pixels
    assert read_provenance(tmp_path / "b.png") == MADE


def save_with_little_room(place: Path, room: int, outcome: Any) -> None:
    """Save where no file may grow beyond `room` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    try:
        save_picture(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8), place, MADE)
    except StorageError as error:
        outcome.put(str(error))


@pytest.mark.parametrize("room", [0, 500, 9_000])
def test_a_disk_that_refuses_leaves_the_old_picture_and_no_half_of_the_new_one(room: int, tmp_path: Path) -> None:
    """The system itself refuses to write: at once, in the metadata, or in the middle of the pixels."""
    place = tmp_path / "a.png"
    save_picture(PIXELS, place, MADE)
    before = place.read_bytes()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["neblina.tasks.provenance"])
    outcome = context.Queue()
    process = context.Process(target=save_with_little_room, args=(place, room, outcome))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert "could not be written" in outcome.get(timeout=5)
    assert place.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def model(place: Path, *, weights: bytes = b"") -> Path:
    (place / "unet").mkdir(parents=True)
    (place / "model_index.json").write_text("{}")
    (place / "unet" / "config.json").write_text('{"layers": 2}')
    (place / "unet" / "diffusion.safetensors").write_bytes(weights or np.random.default_rng(0).bytes(20_000_000))
    return place


def test_a_fingerprint_is_the_models_wherever_it_lies(tmp_path: Path) -> None:
    folder = model(tmp_path / "a")
    before = fingerprint(folder)
    assert len(before) == 32
    assert fingerprint(folder.rename(tmp_path / "b")) == before
    (tmp_path / "b" / "README.md").write_text("words")
    (tmp_path / "b" / ".cache").mkdir()
    (tmp_path / "b" / ".cache" / "download.json").write_text("{}")
    (tmp_path / "b" / "sample.png").write_bytes(png({}))
    assert fingerprint(tmp_path / "b") == before
    weights = tmp_path / "b" / "unet" / "diffusion.safetensors"
    alone = fingerprint(weights)
    assert fingerprint(weights.rename(tmp_path / "other.safetensors")) == alone
    weights.symlink_to(tmp_path / "other.safetensors")  # as the hub's cache keeps files
    assert fingerprint(tmp_path / "b") == before


def test_a_fingerprint_changes_with_any_configuration_file_and_weight_that_it_looks_at(tmp_path: Path) -> None:
    folder = model(tmp_path)
    seen = {fingerprint(folder)}

    def is_new() -> bool:
        found = fingerprint(folder)
        return found not in seen and not seen.add(found)  # type: ignore[func-returns-value]

    (folder / "unet" / "config.json").write_text('{"layers": 3}')
    assert is_new()
    (folder / "unet" / "extra.json").write_text("")
    assert is_new()
    (folder / "unet" / "extra.json").rename(folder / "extra.json")
    assert is_new()
    weights = folder / "unet" / "diffusion.safetensors"
    content = bytearray(weights.read_bytes())
    between = len(content) - 2**20 - 2**16
    last = 2**20 + between - 1
    for place in (0, 2**20 - 1, 2**20, 2**20 + 4095, 2**20 + 100 * (between - 4096) // 255, last, len(content) - 1):
        content[place] ^= 1
        weights.write_bytes(content)
        assert is_new(), place
    weights.write_bytes(content + b"\0")
    assert is_new()
    weights.write_bytes(bytes(255 - byte for byte in content[::-1]))
    assert is_new()


def test_every_byte_of_a_small_model_counts(tmp_path: Path) -> None:
    content = bytearray(np.random.default_rng(0).bytes(2_000_000))
    place = tmp_path / "small.safetensors"
    place.write_bytes(content)
    before = fingerprint(place)
    for byte in (1_048_576, 1_500_000, 1_900_001):
        content[byte] ^= 1
        place.write_bytes(content)
        assert fingerprint(place) != before
        content[byte] ^= 1


def test_names_and_contents_do_not_run_together(tmp_path: Path) -> None:
    for name, files in {"a": {"ab": "c", "d": "e"}, "b": {"a": "bc", "d": "e"}, "c": {"ab": "cd", "e": ""}}.items():
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text)
    assert len({fingerprint(tmp_path / name) for name in "abc"}) == 3


def test_five_gigabytes_take_no_time(tmp_path: Path) -> None:
    """A file with holes: as large as that, and nothing on the disk."""
    for name in ("one.safetensors", "two.safetensors"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(2_500_000_000)
    began = time.perf_counter()
    fingerprint(tmp_path)
    assert time.perf_counter() - began < 0.3


def test_what_is_no_model_has_no_fingerprint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere is missing"):
        fingerprint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="holds no file of a model"):
        fingerprint(tmp_path)
