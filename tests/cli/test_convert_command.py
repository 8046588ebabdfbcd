"""`neblina convert`, as a user types it."""

from pathlib import Path

from pipelines import pictures
from typed import Typed


def test_convert_writes_a_folder_and_says_where_it_is(tmp_path: Path, typed: Typed, refused: Typed) -> None:
    pictures(tmp_path).save_pretrained(tmp_path / "model")
    given = ("--dtype", "bf16", "--save-variant", "bf16", "--max-shard", "50KB")
    done = typed("convert", "model", "folder", *given)
    assert "check folder --variant bf16" in done
    assert (tmp_path / "folder" / "unet" / "diffusion_pytorch_model.safetensors.index.bf16.json").exists()
    assert "folder is there already" in refused("convert", "model", "folder")
