"""`neblina convert`, as a user types it."""

from pathlib import Path

from pipelines import pictures
from test_commands import neblina, refused


def test_convert_writes_a_folder_and_says_where_it_is(tmp_path: Path) -> None:
    pictures(tmp_path).save_pretrained(tmp_path / "model")
    given = ("--dtype", "bf16", "--save-variant", "bf16", "--max-shard", "50KB")
    done = neblina("convert", "model", "folder", *given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "check folder --variant bf16" in done.stdout
    assert (tmp_path / "folder" / "unet" / "diffusion_pytorch_model.safetensors.index.bf16.json").exists()
    assert "folder is there already" in refused("convert", "model", "folder", cwd=tmp_path)
