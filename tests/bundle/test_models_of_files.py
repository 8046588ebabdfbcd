"""Single files as models: they make pictures, and the folder that they are saved as makes the same."""

from pathlib import Path
from typing import Any

import pytest
import torch
from beside import change
from oracle import clip_tokenizer
from safetensors.torch import load_file, save_file
from test_single_file import small

from neblina.core.errors import CheckpointError, SettingError
from neblina.tasks.checks.check import check
from neblina.tasks.loading import load
from neblina.tasks.model import Model
from neblina.tasks.settings import Noticed

PROMPT = "a red boat"


def opened(name: str, place: Path, **settings: Any) -> Model:
    state, _ = small(name)
    save_file({key: value.contiguous() for key, value in state.items()}, place / "model.safetensors")
    clip_tokenizer(place / "words")
    return load(place / "model.safetensors", device="cpu", tokenizer=place / "words", **settings)


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl"])
def test_a_file_makes_pictures_and_its_folder_makes_the_same(name: str, tmp_path: Path) -> None:
    model = opened(name, tmp_path)
    asked: dict[str, Any] = {"steps": 3, "guidance": 4.0, "seed": 1, "size": (16, 24)}
    made = model.generate(PROMPT, **asked)
    assert made.shape == (1, 3, 16, 24)
    assert not torch.allclose(made, model.generate("the small cat", **asked), atol=1e-3)
    model.save(tmp_path / "folder")
    assert torch.allclose(load(tmp_path / "folder", device="cpu").generate(PROMPT, **asked), made, atol=1e-5)


def test_the_second_encoder_of_openclip_pads_as_it_was_trained_to(tmp_path: Path) -> None:
    texts = opened("sdxl", tmp_path).bundle.text
    assert texts is not None
    first, second = (encoder.tokenizer for encoder in texts.encoders.values())
    assert first.pad == first.end
    assert second.words.id_to_token(second.pad) == "!"


def test_a_model_of_classes_makes_pictures_of_them(tmp_path: Path) -> None:
    state, models = small("ldm-classes")
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "model.safetensors")
    model = load(tmp_path / "model.safetensors", device="cpu")
    assert len(model.bundle.label_names) == 10
    asked: dict[str, Any] = {"steps": 3, "guidance": 2.0, "seed": 1, "size": (16, 16)}
    made = model.generate(labels=[3, 7], **asked)
    assert made.shape == (2, 3, 16, 16)
    model.save(tmp_path / "folder")
    assert torch.allclose(load(tmp_path / "folder", device="cpu").generate(labels=[3, 7], **asked), made, atol=1e-5)
    rows = state["cond_stage_model.embedding.weight"]
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([10.0, 500.0])
    with torch.no_grad():
        theirs = models["unet"](x, t, rows[torch.tensor([3, 10])][:, None]).sample
        assert torch.allclose(model.bundle.net(x, t, labels=torch.tensor([3, 10])), theirs, atol=1e-5)


def test_what_a_file_does_not_hold_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, _ = small("sd1")
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "model.safetensors")
    monkeypatch.setattr("neblina.bundle.single.cached_file", lambda *_: None)
    with pytest.raises(CheckpointError, match=r"holds no tokenizer.*--tokenizer"):
        load(tmp_path / "model.safetensors", device="cpu")
    bare = {key: value.contiguous() for key, value in state.items() if not key.startswith("first_stage_model")}
    save_file(bare, tmp_path / "bare.safetensors")
    clip_tokenizer(tmp_path / "words")
    with pytest.raises(CheckpointError, match=r"no autoencoder.*--vae"):
        load(tmp_path / "bare.safetensors", device="cpu", tokenizer=tmp_path / "words")
    with_own = load(tmp_path / "model.safetensors", device="cpu", tokenizer=tmp_path / "words")
    given = load(
        tmp_path / "bare.safetensors", device="cpu", tokenizer=tmp_path / "words", vae=tmp_path / "model.safetensors"
    )
    asked: dict[str, Any] = {"steps": 2, "guidance": 4.0, "size": (16, 16)}
    assert torch.allclose(given.generate(PROMPT, **asked), with_own.generate(PROMPT, **asked), atol=1e-6)


def test_what_a_file_has_no_use_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        SettingError, match=r"variant 'fp16' is of a folder's weight files.*model\.safetensors is one file"
    ):
        opened("sd1", tmp_path, variant="fp16")
    with pytest.raises(SettingError, match=r"a tokenizer is for prompts, and .* reads none"):
        opened("ldm-classes", tmp_path)


def test_what_is_for_a_file_is_refused_for_a_folder(tmp_path: Path) -> None:
    model = opened("sd1", tmp_path)
    model.save(tmp_path / "folder")
    with pytest.raises(SettingError, match="prediction is for a single file"):
        load(tmp_path / "folder", prediction="v")


EMBEDDING = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"


def with_rows(rows: int, place: Path) -> Path:
    """Stable Diffusion 1 in a file, with vectors for so many tokens."""
    state, _ = small("sd1")
    table = state[EMBEDDING]
    state[EMBEDDING] = table[:1].repeat(rows, 1)
    state[EMBEDDING][: len(table)] = table
    save_file({key: value.contiguous() for key, value in state.items()}, place / "model.safetensors")
    clip_tokenizer(place / "words")
    return place / "model.safetensors"


def test_a_tokenizer_of_far_fewer_tokens_is_another_models(tmp_path: Path) -> None:
    """Its words would be others, in silence."""
    place = with_rows(1000, tmp_path)
    with pytest.raises(CheckpointError, match=r"vectors for 1,000 tokens and its tokenizer knows 529.*--tokenizer"):
        load(place, device="cpu", tokenizer=tmp_path / "words")
    (problem,) = check(place, device="cpu", tokenizer=tmp_path / "words").problems
    assert "1,000 tokens" in problem.says


def test_in_a_folder_it_is_said_with_the_pictures_and_is_a_problem_to_the_check(tmp_path: Path) -> None:
    opened("sd1", tmp_path).save(tmp_path / "folder")
    config, weights = tmp_path / "folder/text_encoder/config.json", tmp_path / "folder/text_encoder/model.safetensors"
    change(config, vocab_size=1000)
    state = load_file(weights)
    name = "text_model.embeddings.token_embedding.weight"
    save_file({**state, name: state[name][:1].repeat(1000, 1)}, weights)
    with pytest.warns(Noticed, match="the text_encoder has vectors for 1,000 tokens and its tokenizer knows 529"):
        load(tmp_path / "folder", device="cpu").generate(PROMPT, steps=1, size=(16, 16))
    (problem,) = check(tmp_path / "folder", device="cpu").problems
    assert "one of them is another model's" in problem.says


@pytest.mark.filterwarnings("error::neblina.tasks.settings.Noticed")
@pytest.mark.parametrize("rows", [536, 576])
def test_a_table_that_was_padded_is_no_other_models(rows: int, tmp_path: Path) -> None:
    """To a multiple of 8 or 64, or by words that were added."""
    place = with_rows(rows, tmp_path)
    load(place, device="cpu", tokenizer=tmp_path / "words").generate(PROMPT, steps=1, size=(16, 16))
    report = check(place, device="cpu", tokenizer=tmp_path / "words")
    assert report.problems == []
    assert any("the table was padded" in finding.says for finding in report.findings)
