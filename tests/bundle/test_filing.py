"""Weights are filed as diffusers files them, of a variant and in shards; any model becomes such a folder."""

from pathlib import Path
from typing import Any

import pytest
import torch
from beside import both
from diffusers import DiffusionPipeline
from oracle import clip_tokenizer
from pipelines import sd1, sdxl
from safetensors.torch import save_file
from test_single_file import small

from neblina.core.errors import CheckpointError, SettingError
from neblina.core.shards import Filing, bytes_of
from neblina.tasks.convert import convert
from neblina.tasks.loading import load

PROMPT = "a red boat"


def listing(folder: Path) -> set[str]:
    """The weight files and the indices of a model's folder."""
    return {
        str(file.relative_to(folder)) for kind in ("safetensors", "index*.json") for file in folder.rglob(f"*.{kind}")
    }


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("size", [None, 60_000])
def test_files_are_named_as_diffusers_names_them_and_open_there_and_here(
    variant: str | None, size: int | None, tmp_path: Path
) -> None:
    pair = both(sdxl(tmp_path), tmp_path)
    pair.model.save(tmp_path / "ours", variant=variant, max_shard=size)
    pair.theirs.save_pretrained(
        tmp_path / "theirs", variant=variant, **({} if size is None else {"max_shard_size": size})
    )
    ours, theirs = listing(tmp_path / "ours"), listing(tmp_path / "theirs")
    kinds = {name.rpartition("/")[2].partition("-")[0] for name in ours}
    assert kinds == {name.rpartition("/")[2].partition("-")[0] for name in theirs}
    if size is None:
        assert ours == theirs
    else:
        assert len([name for name in ours if name.startswith("unet/")]) > 3
        assert len([name for name in ours if name.startswith("text_encoder/")]) > 1
    opened = DiffusionPipeline.from_pretrained(tmp_path / "ours", variant=variant)
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        before, after = getattr(pair.theirs, part).state_dict(), getattr(opened, part).state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
    asked: dict[str, Any] = {"steps": 2, "seed": 1}
    again = load(tmp_path / "ours", device="cpu", variant=variant)
    assert torch.equal(again.generate(PROMPT, **asked), pair.model.generate(PROMPT, **asked))


def test_a_single_file_becomes_a_folder_that_diffusers_opens_in_half_precision(tmp_path: Path) -> None:
    state, models = small("sd1")
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "model.safetensors")
    words = clip_tokenizer(tmp_path / "words")
    assert words is not None
    made = convert(
        tmp_path / "model.safetensors", tmp_path / "folder", save_variant="fp16", max_shard="1MB",
        dtype="fp16", tokenizer=tmp_path / "words",
    )  # fmt: skip
    assert made.files == len([name for name in listing(made.model) if name.endswith(".safetensors")]) > 3
    theirs = DiffusionPipeline.from_pretrained(made.model, variant="fp16", torch_dtype=torch.float16)
    for part in ("unet", "vae"):
        held = getattr(theirs, part).state_dict()
        for name, value in models[part].state_dict().items():
            assert torch.equal(held[name], value.half())


def test_a_lora_and_another_autoencoder_go_into_the_folder(tmp_path: Path) -> None:
    sd1(tmp_path).save_pretrained(tmp_path / "model")
    torch.manual_seed(7)
    other = sd1(tmp_path / "other").vae
    for value in other.parameters():
        value.data.add_(0.01)
    other.save_pretrained(tmp_path / "vae")
    layer = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    state = {f"{layer}.lora_A.weight": torch.ones(2, 16), f"{layer}.lora_B.weight": torch.ones(16, 2)}
    save_file(state, tmp_path / "film.safetensors")
    made = convert(
        tmp_path / "model", tmp_path / "folder", vae=tmp_path / "vae", loras=[(tmp_path / "film.safetensors", 0.5)]
    )
    theirs, before = (DiffusionPipeline.from_pretrained(place) for place in (made.model, tmp_path / "model"))
    key = f"{layer.removeprefix('unet.')}.weight"
    added = theirs.unet.state_dict()[key] - before.unet.state_dict()[key]
    assert torch.allclose(added, torch.ones_like(added), atol=1e-6)
    assert all(torch.equal(value, theirs.vae.state_dict()[name]) for name, value in other.state_dict().items())


def test_nothing_is_written_over_and_names_and_sizes_are_checked_first(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "letter.txt").write_text("dear")
    with pytest.raises(CheckpointError, match="is there already"):
        convert(tmp_path / "nowhere", tmp_path / "there")
    with pytest.raises(SettingError, match="no size of a file"):
        convert(tmp_path / "nowhere", tmp_path / "new", max_shard="5 apples")
    with pytest.raises(SettingError, match="part of a file's name"):
        convert(tmp_path / "nowhere", tmp_path / "new", save_variant="../fp16")
    with pytest.raises(SettingError, match="holds nothing"):
        Filing(max_shard=0)
    assert (bytes_of("5GB"), bytes_of("60 kb")) == (5 * 10**9, 60_000)
