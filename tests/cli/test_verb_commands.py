"""The five verbs as they are typed."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pipelines
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from models import small_bundle
from oracle import clip
from PIL import Image
from typed import Typed, typed_in

from neblina.bundle.folder import save_bundle
from neblina.tasks.provenance import Provenance, save_picture

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
VERBS = ("generate", "edit", "inpaint", "outpaint", "upscale")


@pytest.fixture
def typed(desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Commands in a folder, in this process: they start in no time."""
    return typed_in(desk, monkeypatch, capsys)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models, photo.png, small.png and mask.png in it."""
    place = tmp_path_factory.mktemp("desk")
    text, tokenizer = clip(place / "parts")
    levels = {"down_block_types": ("DownBlock2D",) * 3, "up_block_types": ("UpBlock2D",) * 3}
    net = pipelines.unet(block_out_channels=(8, 8, 16), **levels)  # pays attention in the middle alone, at 24x16 cells
    scheduler = DDIMScheduler(**pipelines.SD)
    wide = StableDiffusionPipeline(
        pipelines.autoencoder(4), text, tokenizer, net, scheduler, None, None, requires_safety_checker=False
    )
    wide.save_pretrained(place / "MODEL")
    pipelines.upscaler(place).save_pretrained(place / "UPSCALER")
    save_bundle(small_bundle(schedule="cosine", parameterisation="v"), place / "PIXELS")
    down, along = np.mgrid[0:45, 0:70]
    photo = np.stack([3 * along, 5 * down, 2 * (down + along)], -1).clip(0, 255).astype(np.uint8)
    Image.fromarray(photo).save(place / "photo.png")
    Image.fromarray(photo[:8, :9]).save(place / "small.png")
    mask = np.zeros((45, 70), np.uint8)
    mask[10:30, 20:50] = 255
    Image.fromarray(mask).save(place / "mask.png")
    return place


def pixels(place: Path) -> np.ndarray[Any, Any]:
    return np.array(Image.open(place))


def test_words_become_pictures_as_the_manual_says(desk: Path, typed: Typed) -> None:
    words = "-n 4 --steps 25 --sampler dpmpp_2m --guidance 7.5 --seed 7 --size 768x512"
    said = typed("generate", "MODEL", "a teddy bear in a pool", *words.split(), "--out", "bears")
    assert "generate: 4 pictures" in said
    assert sorted(place.name for place in (desk / "bears").iterdir()) == [
        *(f"7-{number:05d}.png" for number in range(4)),
        "sheet.png",
    ]
    assert pixels(desk / "bears" / "7-00003.png").shape == (512, 768, 3)


def test_a_picture_with_a_broken_recipe_is_refused_in_one_sentence(desk: Path, typed: Typed) -> None:
    for number, arguments in enumerate([{"steps": "three"}, {"loras": ["x"]}, {"size": 5}, {"settings": [1]}]):
        save_picture(
            torch.zeros(3, 8, 8), desk / "odd" / f"{number}.png", Provenance("generate", "MODEL", "", arguments)
        )
        assert "the recipe in the picture is damaged" in typed("reproduce", f"odd/{number}.png", ends=1)


def test_a_users_sheet_and_preview_stay(desk: Path, typed: Typed) -> None:
    (desk / "mine").mkdir()
    for name in ("sheet.png", "preview.png"):
        (desk / "mine" / name).write_bytes(b"mine")
    for seed in ("1", "2"):
        asked = ["generate", "PIXELS", "-n", "2", "--seed", seed, "--steps", "3", "--preview", "1", "--out", "mine"]
        assert "mine/sheet-2.png" in typed(*asked)
    assert {place.name for place in (desk / "mine").iterdir() if place.read_bytes() == b"mine"} == {
        "sheet.png",
        "preview.png",
    }
    assert not list((desk / "mine").glob("preview-*"))


def test_a_photo_is_edited_inpainted_and_extended_as_the_manual_says(desk: Path, typed: Typed) -> None:
    typed("edit", "MODEL", "photo.png", "as an oil painting", "--strength", "0.6")
    typed("inpaint", "MODEL", "photo.png", "mask.png", "a cat")
    typed("outpaint", "MODEL", "photo.png", "--left", "128", "--right", "128", "a pool", "--steps", "5")
    edited, filled, extended = (pixels(desk / "generated" / f"0-00000{again}.png") for again in ("", "-2", "-3"))
    photo, mask = pixels(desk / "photo.png"), pixels(desk / "mask.png")
    assert edited.shape == photo.shape
    assert np.array_equal(filled[mask == 0], photo[mask == 0])
    assert not np.array_equal(filled, photo)
    assert np.array_equal(extended[:, 128:-128], photo)
    said = typed("reproduce", "generated/0-00000-2.png")
    assert "the same picture, to the byte" in said
    assert not (desk / "generated" / "0-00000-4.png").exists()
    assert '"a cat"' in typed("info", "generated/0-00000-2.png")


def test_a_photo_is_enlarged_as_the_manual_says(desk: Path, typed: Typed) -> None:
    for model in ("UPSCALER", "MODEL"):
        typed("upscale", model, "small.png", "a pool", "--factor", "4", "--steps", "5", "--out", model + "s")
        assert pixels(desk / f"{model}s" / "0-00000.png").shape == (32, 36, 3)


@pytest.mark.parametrize("verb", VERBS)
def test_help_says_something_of_every_option(verb: str, desk: Path, typed: Typed) -> None:
    said = typed(verb, "--help")
    for group in ("Arguments", "Parameters", "Output", "Sampling", "The model"):
        assert f"─ {group} ─" in said
    options = re.findall(r"^│ +(?:\* +)?(--?[a-z][^ ]*.*?)│$", said, re.MULTILINE)
    assert len(options) > 30
    for option in options:
        assert re.sub(r"^((-[^ ]*|[A-Z]+(\.\.\.)?) +)+", "", option).strip(), option
    assert "--empty" not in said
    assert "--no-" not in said


def test_prompts_come_from_a_file_one_a_line(desk: Path, typed: Typed) -> None:
    (desk / "prompts.txt").write_text("a cat\n\n  a dog \n")
    asked = ["generate", "MODEL", "--size", "64x64", "--steps", "2", "--out", "listed"]
    assert "2 pictures" in typed(*asked, "--prompts", "prompts.txt")
    said = [typed("info", f"listed/0-0000{number}.png", "--as-json") for number in (0, 1)]
    assert ['"prompt": "a cat"' in said[0], '"prompt": "a dog"' in said[1]] == [True, True]
    assert "say the same thing" in typed(*asked, "a cow", "--prompts", "prompts.txt", ends=1)


def test_what_is_cut_and_what_is_converted_is_said(desk: Path, typed: Typed) -> None:
    asked = ["edit", "MODEL", "deep.png", "--steps", "2", "--strength", "1"]
    Image.fromarray(np.full((16, 16), 40000, np.uint16)).save(desk / "deep.png")
    said = typed(*asked, "word " * 200, "--long-prompt", "cut")
    assert "note: the prompt is" in said
    assert "note: deep.png: 16 bits a channel to 8, rounded" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("generate MODEL x --size 100", "is not width x height"),
        ("generate MODEL x --size 60x64", "take 56x64 or 64x64"),
        ("generate MODEL x --label 3", "conditioned on text, not on labels"),
        ("generate MODEL x --out photo.png", "photo.png is a file"),
        ("generate MODEL x --negative y --guidance 1", "set it above 1"),
        ("generate MODEL x --prompts nothing.txt", "say the same thing"),
        ("generate MODEL --prompts nothing.txt", "cannot be read"),
        ("generate MODEL x --lora nothing.safetensors", "nothing.safetensors"),
        ("edit MODEL nothing.png x", "nothing.png is missing"),
        ("edit MODEL photo.png x --strength 1.5", "at most 1, not 1.5"),
        ("inpaint MODEL photo.png small.png x", "the mask small.png is 9x8 and the photo is 70x45"),
        ("outpaint MODEL photo.png x", "left 0, right 0"),
        ("upscale UPSCALER small.png x --factor 3", "take --factor 4"),
        ("upscale PIXELS small.png x", "reads no text"),
        ("reproduce photo.png", "does not say how it was made"),
        ("info photo.png", "does not say how it was made"),
    ],
)
def test_a_mistake_is_one_sentence(words: str, said: str, desk: Path, typed: Typed) -> None:
    """And it comes before anything is written."""
    before = sorted(desk.rglob("*"))
    assert said in re.sub(r"\s+", " ", typed(*words.split(), ends=1))
    assert sorted(desk.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--method inverse", 'Did you mean "inversion"?'),
        ("--strenght 0.5", "Did you mean --strength?"),
        ("--steps many", "many is no whole number"),
    ],
)
def test_an_option_that_is_none_is_refused_with_the_closest(words: str, said: str, typed: Typed) -> None:
    shown = typed("edit", "MODEL", "photo.png", "x", *words.split(), ends=2)
    assert said in re.sub(r"[\s│]+", " ", shown)


def test_ctrl_c_leaves_nothing_behind(desk: Path) -> None:
    words = "generate PIXELS -n 64 --batch 1 --steps 200 --preview 2 --out stopped --device cpu"
    command = [sys.executable, "-m", "neblina.cli.main", *words.split()]
    process = subprocess.Popen(
        command, cwd=desk, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    deadline = time.monotonic() + 60
    while not (desk / "stopped" / "preview.png").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "neblina: stopped" in said
    assert "Traceback" not in said
    assert list((desk / "stopped").iterdir()) == []
