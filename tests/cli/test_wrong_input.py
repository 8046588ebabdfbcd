"""Wrong input to the commands that make pictures: a sentence, a status, and nothing half done is left behind."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from models import small_bundle
from PIL import Image
from typed import Typed

from neblina.bundle.folder import save_bundle

PROGRAM = [sys.executable, "-m", "neblina.cli.main"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_bundle(small_bundle(), tmp_path / "model")
    Image.new("RGB", (8, 8), (90, 0, 0)).save(tmp_path / "photo.png")
    return tmp_path


def left(out: Path) -> list[str]:
    """Every file in a folder, hidden ones too."""
    return sorted(str(file.relative_to(out)) for file in out.rglob("*")) if out.exists() else []


def test_a_disk_that_fills_while_pictures_are_saved_is_said_and_leaves_no_half_of_one(model: Path) -> None:
    """No file may grow beyond 100 bytes, less than any picture with its recipe."""

    def full() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    words = ["generate", "model", "-n", "2", "--steps", "2", "--device", "cpu"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*PROGRAM, *words], cwd=model, capture_output=True, text=True, preexec_fn=full, env=environment, check=False
    )
    assert done.returncode == 1
    assert "could not be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert left(model / "generated") == []


def test_ctrl_c_leaves_no_picture_and_no_preview(model: Path) -> None:
    words = ["generate", "model", "-n", "256", "--steps", "900", "--preview", "1", "--device", "cpu"]
    process = subprocess.Popen(
        [*PROGRAM, *words], cwd=model, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    preview, deadline = model / "generated" / "preview.png", time.monotonic() + 60
    while not preview.exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped" in said
    assert "Traceback" not in said
    assert left(model / "generated") == []


@pytest.mark.parametrize("strength", ["0", "-0.2", "1.5", "nan"])
def test_a_strength_outside_its_range_is_refused(strength: str, model: Path, refused: Typed) -> None:
    words = ["edit", "model", "photo.png", "--strength", strength, "--device", "cpu"]
    assert "strength is " in refused(*words)
    assert left(model / "generated") == []


def test_check_says_what_is_wrong_and_exits_with_1(model: Path, typed: Typed, refused: Typed) -> None:
    assert "unet" in typed("check", "model")
    (model / "model" / "unet" / "config.json").write_text("{")
    assert "is damaged or cut short" in " ".join(refused("check", "model").split())


def test_a_network_that_answers_what_is_not_finite_is_said_by_check(tmp_path: Path, refused: Typed) -> None:
    bundle = small_bundle()
    with torch.no_grad():
        bundle.net.get_parameter("conv_in.weight").fill_(3e38)
    save_bundle(bundle, tmp_path / "model")
    assert "not finite" in " ".join(refused("check", "model").split())
