"""A model folder whose denoiser is a transformer that reads CLIP's text: its parts open in diffusers and make the same
pictures, and what is saved is what is opened."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from beside import CLOSE, SEED, change, far, noise_of
from diffusers import PixArtSigmaPipeline, PixArtTransformer2DModel
from pipelines import text_dit
from torch import Tensor

from neblina.bundle.files import CARD
from neblina.bundle.folder import load_bundle, save_bundle
from neblina.core.errors import CheckpointError, NeblinaError, SettingError
from neblina.tasks.checks.opened import predicted
from neblina.tasks.loading import load
from neblina.tasks.model import Model

PROMPTS, NEGATIVE = ["A red boat!", "the small cat"], "a boat"
ASKED: dict[str, Any] = {"steps": 5, "guidance": 3.0, "seed": SEED}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_dit(tmp_path_factory.mktemp("text-dit"))


@pytest.fixture(scope="module")
def model(place: Path) -> Model:
    return load(place, device="cpu")


def their_pictures(place: Path, model: Model, size: Sequence[int] = (16, 16)) -> Tensor:
    """What PixArt's pipeline makes of the folder, given the texts as Stable Diffusion reads them: without a mask."""
    theirs = PixArtSigmaPipeline.from_pretrained(place)
    theirs.set_progress_bar_config(disable=True)

    def read(texts: list[str]) -> Tensor:
        ids = theirs.tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt").input_ids
        with torch.no_grad():
            vectors: Tensor = theirs.text_encoder(ids).last_hidden_state
        return vectors

    everything = torch.ones(2, 77)
    pictures: Tensor = theirs(
        prompt=None,
        negative_prompt=None,
        prompt_embeds=read(PROMPTS),
        prompt_attention_mask=everything,
        negative_prompt_embeds=read([NEGATIVE] * 2),
        negative_prompt_attention_mask=everything,
        num_inference_steps=5,
        guidance_scale=3.0,
        height=size[0],
        width=size[1],
        latents=noise_of(model, 2, (size[0], size[1])),
        use_resolution_binning=False,
        output_type="pt",
    ).images
    return pictures * 2 - 1


@pytest.mark.parametrize("size", [(16, 16), (16, 24)], ids=str)
def test_a_prompt_makes_the_picture_that_diffusers_makes_of_the_same_folder(
    place: Path, model: Model, size: tuple[int, int]
) -> None:
    ours = model.generate(PROMPTS, negative=NEGATIVE, size=size, **ASKED)
    assert ours.shape == (2, 3, *size)
    assert far(ours.clamp(-1, 1), their_pictures(place, model, size)) < CLOSE
    others = model.generate(PROMPTS[::-1], negative=NEGATIVE, size=size, **ASKED)
    assert far(ours, others) > 100 * CLOSE, "the prompt says nothing"


def test_a_learned_variance_is_passed_over_as_there(tmp_path: Path) -> None:
    place = text_dit(tmp_path, out_channels=8)
    model = load(place, device="cpu")
    assert model.bundle.learned_variance
    ours = model.generate(PROMPTS, negative=NEGATIVE, **ASKED)
    assert far(ours.clamp(-1, 1), their_pictures(place, model)) < CLOSE


@pytest.mark.parametrize("with_card", [True, False])
def test_what_is_saved_is_opened_again_to_the_bit(place: Path, model: Model, with_card: bool, tmp_path: Path) -> None:
    save_bundle(load_bundle(place), tmp_path / "again")
    if not with_card:
        (tmp_path / "again" / CARD).unlink()
    again = load(tmp_path / "again", device="cpu")
    assert again.bundle.net.config == model.bundle.net.config
    for name, module in model.bundle.modules.items():
        saved = again.bundle.modules[name].state_dict()
        assert saved.keys() == module.state_dict().keys()
        assert all(torch.equal(saved[key], value) for key, value in module.state_dict().items()), name
    ours = model.generate(PROMPTS, **ASKED)
    assert torch.equal(again.generate(PROMPTS, **ASKED), ours)
    index = json.loads((tmp_path / "again" / "model_index.json").read_text())
    assert (index["_class_name"], index["transformer"][1]) == ("TextDiTPipeline", "PixArtTransformer2DModel")
    theirs = PixArtTransformer2DModel.from_pretrained(tmp_path / "again" / "transformer")
    x, time, text = torch.randn(2, 4, 8, 8), torch.tensor([5.0, 900.0]), torch.randn(2, 7, 16)
    with torch.no_grad():
        assert far(again.bundle.net(x, time, text=text), theirs(x, text, time).sample) < 1e-5


MUTATIONS: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False,),
    "attention_head_dim": (4, 7),
    "attention_type": (None, "gated"),
    "activation_fn": ("gelu", "nonsense"),
    "caption_channels": (8, None),
    "cross_attention_dim": (8, None),
    "in_channels": (3, "four"),
    "interpolation_scale": (2, 0),
    "norm_elementwise_affine": (True,),
    "norm_eps": (0.1,),
    "norm_type": ("ada_norm_zero",),
    "num_attention_heads": (1, 4),
    "num_layers": (1,),
    "out_channels": (8, 5),
    "patch_size": (4,),
    "sample_size": (12, 7.5, None),
    "upcast_attention": (True,),
    "use_additional_conditions": (True, False),
    "_class_name": ("DiTTransformer2DModel", "Nonsense"),
    "nonsense": (1,),
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in MUTATIONS.items() for value in values], ids=str
)
def test_a_changed_field_is_followed_or_refused_by_name(place: Path, field: str, value: Any, tmp_path: Path) -> None:
    shutil.copytree(place, tmp_path / "model")
    change(tmp_path / "model" / "transformer/config.json", **{field: value})
    model, error = opened_or_refused(tmp_path / "model")
    if model is None:
        assert re.search(
            "|".join((field, str(value), "the weights (lack|hold) ", "has shape .* in the weights")), error
        )
        return
    ours = model.generate(PROMPTS, negative=NEGATIVE, **ASKED)  # as large as its sample_size says
    assert far(ours.clamp(-1, 1), their_pictures(tmp_path / "model", model, ours.shape[2:])) < CLOSE


def opened_or_refused(folder: Path) -> tuple[Model | None, str]:
    """The model in a folder, or why it does not open."""
    try:
        return load(folder, device="cpu"), ""
    except NeblinaError as error:
        return None, str(error)


def test_a_text_encoder_of_another_width_is_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"16 wide and the network reads text 24 wide .*caption_channels"):
        load(text_dit(tmp_path, caption_channels=24), device="cpu")


def test_a_size_that_cannot_be_cut_into_patches_is_refused_before_anything_is_made(model: Model) -> None:
    with pytest.raises(SettingError, match="multiple"):
        model.generate("a boat", size=(16, 18), steps=1)


def test_what_it_predicts_is_asked_at_its_own_size(tmp_path: Path) -> None:
    """Positions are stretched: at another size it would be asked about what it never saw."""
    model = load(text_dit(tmp_path, sample_size=36), device="cpu")  # above what other networks are asked at
    sizes = []
    model.bundle.net.register_forward_pre_hook(lambda net, given: sizes.append(tuple(given[0].shape[-2:])))
    predicted(model)
    assert set(sizes) == {(36, 36)}
