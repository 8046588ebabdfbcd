"""The model that comes with the package: small, whole, the same in diffusers, and the one that is taken where none is
named."""

from pathlib import Path
from typing import Any

import pytest
import torch
from beside import SEED, noise_of

import neblina
from neblina.bundle.sources import DEFAULT, packaged, resolve
from neblina.core.errors import SettingError
from neblina.tasks.model import Model
from neblina.training.recipe import build_recipe, load_recipe


@pytest.fixture(scope="module")
def model() -> Model:
    return neblina.load(device="cpu")


def test_it_is_small_and_has_a_card(model: Model) -> None:
    place = packaged()[DEFAULT]
    files = [file for file in place.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 24_000_000
    assert sum(value.numel() for module in model.bundle.modules.values() for value in module.parameters()) <= 12e6
    card = (place / "README.md").read_text("utf-8")
    for word in ("Apache-2.0", "MIT", "neblina train emoji", "PSNR", "chance", "cannot"):
        assert word in card


def test_it_was_trained_by_the_recipe_of_the_package(model: Model) -> None:
    was = build_recipe(model.bundle.card["recipe"], "the model's recipe")
    now = load_recipe("emoji")
    assert was.model_copy(update={"latents": now.latents}) == now
    assert model.bundle.card["metrics"]["codec"]["psnr"] >= 27


def test_its_words_change_its_pictures_and_picture_k_is_picture_k(model: Model) -> None:
    two = model.generate(["red apple", "flag: Japan"], seed=3, steps=5)
    assert two.shape == (2, 3, 64, 64)
    again = model.generate(["flag: Japan"], seed=3, steps=5, offset=1)
    assert torch.allclose(two[1:], again, atol=1e-4)
    assert not torch.allclose(two[1:], model.generate(["red apple"], seed=3, steps=5, offset=1), atol=0.1)


def test_diffusers_opens_it_unchanged_and_makes_the_same_pictures(model: Model) -> None:
    from diffusers import StableDiffusionPipeline

    theirs = StableDiffusionPipeline.from_pretrained(packaged()[DEFAULT])
    theirs.set_progress_bar_config(disable=True)
    prompts = ["woman astronaut: dark skin tone", "flag: Japan, mosaic"]
    guidance = model.bundle.sampling.guidance
    asked: dict[str, Any] = {"num_inference_steps": 25, "guidance_scale": guidance, "latents": noise_of(model, 2)}
    wanted = theirs(prompts, **asked, output_type="pt").images * 2 - 1
    ours = model.generate(prompts, seed=SEED).clamp(-1, 1)
    assert float((ours - wanted).abs().max()) <= 1e-3


def test_its_name_is_its_own_and_a_folder_of_that_name_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve(DEFAULT) == packaged()[DEFAULT]
    with pytest.raises(SettingError, match="comes with this package"):
        resolve(DEFAULT, revision="main")
    (tmp_path / DEFAULT).mkdir()
    assert resolve(DEFAULT) == Path(DEFAULT)
