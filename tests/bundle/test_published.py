"""Models as they are published open: their configurations, their files' names, and what older versions left in them.

No weight is read or made: see `published_models`. What is compared with the oracle is every name and shape.
"""

from pathlib import Path

import pytest
import torch
from published_models import NAMES, published, shapes_of, write_folder
from torch import Tensor

from neblina.bundle.components import Opening
from neblina.bundle.folder import load_bundle
from neblina.bundle.opening import open_codec
from neblina.encoders.tokens import clip_tokenizer, published_vocabulary

META = Opening(device="meta")
MODELS = [name for name in NAMES if "model_index.json" in published(name)["files"]]
CODECS = [name for name in NAMES if name not in MODELS]


@pytest.fixture(scope="module")
def words() -> dict[str, str]:
    """The files of CLIP's vocabulary."""
    for folder in Path(__file__).resolve().parents:
        place = folder / "shared" / "data" / "clip-bpe" / "bpe_simple_vocab_16e6.txt.gz"
        if place.is_file():
            files = clip_tokenizer(*published_vocabulary(place)).files
            return {name: files[name] for name in ("vocab.json", "merges.txt")}
    pytest.skip("shared/data/clip-bpe is not beside this checkout")


@pytest.fixture(autouse=True)
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Holes are of zeros: they need not be read to know that they are finite."""
    monkeypatch.setattr(Tensor, "isfinite", lambda tensor: torch.ones((), dtype=torch.bool))
    monkeypatch.setattr(Tensor, "aminmax", lambda tensor: (torch.zeros(()), torch.zeros(())))


def shapes(net: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name.removeprefix("text_model."): tuple(tensor.shape) for name, tensor in net.state_dict().items()}


@pytest.mark.parametrize("name", MODELS)
def test_a_published_model_opens(name: str, tmp_path: Path, words: dict[str, str]) -> None:
    write_folder(name, tmp_path, words)
    bundle = load_bundle(tmp_path, META)
    files = published(name)["files"]
    configs = {path.rpartition("/")[0]: said for path, said in files.items() if path.endswith("config.json")}
    for part, net in bundle.modules.items():
        theirs = shapes_of(files.get(f"{part}/config.json") or files["config.json"])
        assert shapes(net) == {key.removeprefix("text_model."): shape for key, shape in theirs.items()}, part
    assert set(bundle.modules) == {part or "unet" for part in configs if "scheduler" not in part and "token" not in part}
    assert bundle.sampling.scheduler is not None


@pytest.mark.parametrize("name", CODECS)
def test_a_published_autoencoder_opens(name: str, tmp_path: Path) -> None:
    write_folder(name, tmp_path, {})
    codec = open_codec(tmp_path, META)
    config = published(name)["files"]["config.json"]
    assert shapes(codec.net) == dict(shapes_of(config))  # type: ignore[attr-defined]
