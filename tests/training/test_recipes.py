"""Recipes: every packaged one builds, mistakes name their line, and overrides replace only what they name."""

from pathlib import Path

import pytest
import torch

from neblina.core.errors import SettingError
from neblina.data.pictures import InMemory
from neblina.samplers import samplers
from neblina.samplers.drive import Step
from neblina.tasks.model import Model
from neblina.training.build import new_model
from neblina.training.recipe import Draft, Network, Recipe, Text, build_recipe, differences, load_recipe, packaged

SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "scattered": (1, 56, 56)}


@pytest.mark.parametrize("name", packaged())
def test_every_packaged_recipe_builds_its_model(name: str) -> None:
    recipe = load_recipe(name)
    if recipe.kind != "denoiser" or recipe.text.layers:
        return  # test_classifier_training.py, test_codec_training.py, test_token_training.py, test_text_training.py
    pixels = torch.zeros(4, *SHAPES.get(name, (3, 32, 32)), dtype=torch.uint8)
    bundle = new_model(recipe, InMemory(pixels, torch.arange(4), ("a", "b", "c", "d")))
    assert bundle.null_label == 4
    assert recipe.sampling.sampler in samplers
    assert any("attentions" in name for name in bundle.net.state_dict())


def test_pictures_without_labels_make_an_unconditional_model() -> None:
    bundle = new_model(Recipe(), InMemory(torch.zeros(4, 1, 8, 8, dtype=torch.uint8)))
    assert bundle.net.config.num_class_embeds is None
    assert bundle.label_names == ()


def test_labels_can_be_left_aside_and_dropout_decides_about_the_null() -> None:
    pictures = InMemory(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.arange(4) % 2, ("a", "b"))
    assert new_model(build_recipe({"data": {"labels": False}}, "here"), pictures).label_names == ()
    never = new_model(build_recipe({"training": {"label_dropout": 0}}, "here"), pictures)
    assert (never.null_label, never.net.config.num_class_embeds) == (None, 2)


def test_a_path_takes_the_recipe_for_pictures_and_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    recipe = load_recipe(str(tmp_path / "cats"), {"training": {"batch": 7}})
    assert (recipe.name, recipe.data.source, recipe.training.batch) == ("cats", str(tmp_path / "cats"), 7)
    assert recipe.training.ema == load_recipe("pictures").training.ema


def test_overrides_replace_only_what_they_name() -> None:
    changed = load_recipe("digits", {"optimizer": {"lr": 0.5}})
    assert list(differences(load_recipe("digits"), changed)) == ["optimizer.lr: 0.004 there, 0.5 here"]


def test_another_kernel_or_schedule_begins_with_its_own_defaults() -> None:
    assert load_recipe("mnist-tokens", {"tokens": {"kernel": "mask-and-replace"}}).tokens.settings == {"masked": 0.9}
    assert load_recipe("mnist-tokens", {"tokens": {"kernel": "absorbing"}}).tokens.settings == {}
    given = {"kernel": "uniform", "settings": {"schedule": "cosine"}}
    assert load_recipe("mnist-tokens", {"tokens": given}).tokens.settings == {"schedule": "cosine"}


def test_a_switch_of_a_schedule_is_set_like_its_numbers() -> None:
    content = {"process": {"schedule": "linear", "settings": {"zero_snr": True, "steps": 100}}}
    schedule = new_model(build_recipe(content, "here"), InMemory(torch.zeros(4, 1, 8, 8, dtype=torch.uint8))).schedule
    assert float(schedule.alpha(torch.ones(1, dtype=torch.float64))) == 0
    assert schedule.steps == 100
    assert load_recipe("emoji", {"process": {"schedule": "cosine"}}).process.settings == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("optimizer:\n  lrr: 1\n", r"line 2: optimizer\.lrr is not a setting\. Did you mean lr\?"),
        ("trainin:\n  batch: 1\n", r"line 1: trainin is not a setting\. Did you mean training\?"),
        ("training:\n  batch: 0\n", r"line 2: training\.batch = 0"),
        ("training:\n  precision: fp8\n", r"training\.precision = 'fp8'"),
        ("optimizer:\n  clip: 1\nsampling:\n  clip: -1\n", r"line 4: sampling\.clip = -1"),
        ("a: [", "is not YAML"),
        ("- a\n", "is a list; a recipe is settings under names"),
    ],
)
def test_a_mistake_in_a_recipe_file_names_its_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(SettingError, match=said):
        load_recipe(str(tmp_path / "mine.yaml"))
    with pytest.raises(SettingError, match="does not exist"):
        load_recipe(str(tmp_path / "other.yaml"))


def test_pictures_are_clipped_to_their_range_unless_a_recipe_says_otherwise() -> None:
    """eps says nothing about the data where α vanishes: unclipped, a cosine schedule's first belief is huge."""
    pictures = InMemory(torch.zeros(4, 1, 8, 8, dtype=torch.uint8))
    eps = {"process": {"schedule": "cosine", "parameterisation": "eps"}}
    seen: list[float] = []

    def watch(step: Step) -> None:
        seen.append(float(step.posterior.mean.abs().max()))

    for clip in (1.0, None):
        bundle = new_model(build_recipe({**eps, "sampling": {"clip": clip}}, "here"), pictures)
        Model(bundle, torch.device("cpu")).generate(n=2, steps=2, on_step=watch)
    assert seen[0] <= 1
    assert seen[2] > 100
    of_pixels = [name for name in packaged() if not load_recipe(name).text.layers]
    assert all(load_recipe(name).sampling.clip == 1.0 for name in of_pixels)


def test_another_kind_of_network_drops_the_settings_of_the_other_one() -> None:
    dit = load_recipe("emoji", {"network": {"kind": "dit", "layers": 2}})
    assert dit.network == Network(kind="dit", layers=2)
    assert load_recipe("emoji", {"network": {"kind": "unet", "blocks": 2}}).network.channels == (64, 128, 144)
    assert load_recipe("emoji", {"network": {"blocks": 2}}).network.channels == (64, 128, 144)


def test_another_models_text_encoder_drops_the_settings_of_one_that_is_trained() -> None:
    plain, changed = load_recipe("emoji"), load_recipe("emoji", {"text": {"encoder": "a model"}})
    assert plain.draft.images > 0
    assert changed.draft == Draft()
    assert changed.text == Text(encoder="a model", prompts=plain.text.prompts)
