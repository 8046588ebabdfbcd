"""A text encoder drafts latents before the denoiser is trained, and what it learned is where the denoiser begins."""

from pathlib import Path
from typing import Any

import pytest
import torch
from learners import KINDS, captioned, digest, gaussian_codec

from neblina.bundle.codec import weights_digest
from neblina.bundle.components import Opening
from neblina.bundle.texts import read_text_encoder
from neblina.core.errors import Interrupted, SettingError
from neblina.data.captions import captions_of
from neblina.encoders.tokens import load_tokenizer
from neblina.training.build_text import new_text_model
from neblina.training.checkpoint import list_checkpoints
from neblina.training.draft import Draft, cut, drafted
from neblina.training.encoded import Encoded, encoded, latent_size
from neblina.training.examples import divided
from neblina.training.recipe import Recipe
from neblina.training.run import Report
from neblina.training.text import train_text

KIND = KINDS["text after a draft"]


def draft_of(folder: Path, recipe: Recipe) -> tuple[Draft, Encoded]:
    pictures, codec = captioned(), gaussian_codec()
    latents = encoded(pictures, codec, folder)
    captions = captions_of(pictures)
    texts = new_text_model(recipe, pictures, captions, codec, latent_size(pictures, codec)).text
    assert texts is not None
    return Draft(recipe, texts, captions, latents, device="cpu"), latents


def test_a_patch_is_a_square_of_the_latents_row_by_row() -> None:
    latents = torch.randn(2, 3, 4, 6)
    patches = cut(latents, 2)
    assert patches.shape == (2, 4, 3 * 2 * 3)
    for number in range(4):
        row, column = divmod(number, 2)
        square = latents[:, :, 2 * row : 2 * row + 2, 3 * column : 3 * column + 3]
        assert patches[:, number].equal(square.flatten(1))


def test_before_it_learned_it_says_the_mean_of_all_patches(tmp_path: Path) -> None:
    draft, latents = draft_of(tmp_path, KIND.recipe())
    with torch.no_grad():
        said = draft.said(draft.net, ["red apple 0", ""])
    mean = cut(latents.latents, draft.patches).mean((0, 1))
    assert torch.allclose(said, mean.expand_as(said), atol=1e-6)


@pytest.mark.training
def test_of_every_caption_it_drafts_the_picture_that_is_called_so(tmp_path: Path) -> None:
    """Thirty pictures of noise, whose names it has to know by heart."""
    recipe = KIND.recipe(images=16 * 600, batch=16)
    recipe = recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update={"styles": (), "plain": 16}),
            "text": recipe.text.model_copy(update={"width": 48}),
        }
    )
    draft, latents = draft_of(tmp_path, recipe)
    began = draft.loss(0).item()
    while draft.step < recipe.steps:
        draft.advance()
    names = [caption.name for caption in draft.captions]
    with torch.no_grad():
        said = draft.said(draft.ema.net, names)
    wanted = cut(latents.latents, draft.patches)
    nearest = torch.cdist(said.flatten(1), wanted.flatten(1)).argmin(1)
    assert nearest.tolist() == list(range(len(names)))
    assert float((said - wanted).square().mean()) < 0.5 * began


@pytest.mark.training
def test_the_denoiser_begins_with_the_encoder_that_drafted(tmp_path: Path) -> None:
    recipe = KIND.recipe(images=8)
    recipe = recipe.model_copy(update={"optimizer": recipe.optimizer.model_copy(update={"lr": 1e-30})})
    model = KIND.run(recipe, tmp_path)
    encoders = []
    for place in (tmp_path / "draft" / "model", model):
        words = load_tokenizer(place / "tokenizer")
        encoders.append(weights_digest(read_text_encoder(place / "text_encoder", words, Opening()).net))
    assert encoders[0] == encoders[1]


@pytest.mark.training
def test_interrupted_in_its_draft_and_resumed_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    recipe = KIND.recipe(images=10 * 8)
    KIND.run(recipe, tmp_path / "undisturbed")
    stopped = tmp_path / "stopped"

    def stop(report: Report) -> None:
        if list_checkpoints(stopped / "draft" / "checkpoints"):
            raise Interrupted("stop", "stopped")

    with pytest.raises(Interrupted):
        KIND.run(recipe, stopped, on_report=stop)
    assert not (stopped / "checkpoints").exists()
    KIND.run(recipe, stopped, resume=True)
    assert digest(stopped / "draft") == digest(tmp_path / "undisturbed" / "draft")
    assert digest(stopped) == digest(tmp_path / "undisturbed")


@pytest.mark.training
def test_a_change_of_the_denoiser_leaves_the_draft_as_it_is(tmp_path: Path) -> None:
    recipe = KIND.recipe(images=8)
    KIND.run(recipe, tmp_path)
    (last,) = list_checkpoints(tmp_path / "checkpoints")
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    other = recipe.model_copy(update={"network": recipe.network.model_copy(update={"blocks": 2})})
    before = digest(tmp_path / "draft")
    KIND.run(other, tmp_path, resume=True)
    assert digest(tmp_path / "draft") == before


@pytest.mark.training
def test_several_processes_go_on_behind_a_draft_that_one_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, pictures, codec = KIND.recipe(images=8), captioned(), gaussian_codec()
    latents, captions = encoded(pictures, codec, tmp_path), captions_of(pictures)
    texts = new_text_model(recipe, pictures, captions, codec, latent_size(pictures, codec)).text
    assert texts is not None
    place, settings = tmp_path / "draft", {"device": "cpu", "on_report": None}
    with monkeypatch.context() as several:
        several.setattr("neblina.training.draft.world_size", lambda: 2)
        with pytest.raises(SettingError, match="drafts in one process"):
            drafted(recipe, texts, captions, latents, place, resume=True, **settings)
    made = drafted(recipe, texts, captions, latents, place, resume=True, **settings)
    monkeypatch.setattr("neblina.training.draft.world_size", lambda: 2)
    found = drafted(recipe, texts, captions, latents, place, resume=True, **settings)
    assert weights_digest(*found.modules.values()) == weights_digest(*made.modules.values())
    other = recipe.model_copy(update={"draft": recipe.draft.model_copy(update={"lr": 1e-4})})
    with pytest.raises(SettingError, match=r"draft\.lr"):
        drafted(other, texts, captions, latents, place, resume=True, **settings)


@pytest.mark.parametrize(
    ("draft", "window", "said"),
    [
        ({"patches": 3}, 24, "draft.patches 3 does not divide latents of 4x4"),
        ({"patches": 4}, 16, "16 tokens, and text.window has 16"),
    ],
)
def test_a_draft_that_does_not_fit_is_refused(draft: dict[str, Any], window: int, said: str, tmp_path: Path) -> None:
    recipe = KIND.recipe()
    recipe = recipe.model_copy(
        update={
            "draft": recipe.draft.model_copy(update=draft),
            "text": recipe.text.model_copy(update={"window": window}),
        }
    )
    pictures, _ = divided(recipe, captioned())
    with pytest.raises(SettingError, match=said):
        train_text(recipe, pictures, tmp_path, codec=gaussian_codec(), device="cpu")
    assert not (tmp_path / "draft").exists()
