"""Where a model lies: paths are themselves, repositories are downloaded, and every way to fail says what to do."""

import fnmatch
import importlib
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import errors
from huggingface_hub.utils import filter_repo_objects

from neblina.bundle.sources import resolve
from neblina.core.errors import CheckpointError, SettingError, StorageError

client = importlib.import_module(errors.HfHubHTTPError.__bases__[0].__module__.split(".")[0])  # httpx, by its name
REPOSITORY = [
    "model_index.json",
    "README.md",
    "v1-5.ckpt",
    "v1-5.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.bin",
    "vae/diffusion_pytorch_model-00001-of-00002.safetensors",
    "vae/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
    "vae/diffusion_pytorch_model.safetensors.index.json",
    "text_encoder/model.safetensors",
    "text_encoder/model.fp16.safetensors",
    "text_encoder/pytorch_model.bin",
    "text_encoder/flax_model.msgpack",
    "text_encoder/model.onnx",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "safety_checker/model.safetensors",
]

INDEX = '{"_class_name": "StableDiffusionPipeline", "unet": [], "vae": [], "text_encoder": [], "safety_checker": []}'


class Hub:
    """Stands in for the download: keeps what was asked, and fills a folder with what matches."""

    def __init__(self, folder: Path, files: list[str]) -> None:
        self.folder, self.files, self.asked = folder, files, list[dict[str, Any]]()

    def __call__(self, name: str, **settings: Any) -> str:
        self.asked.append({"name": name, **settings})
        patterns = {key: settings[key] for key in ("allow_patterns", "ignore_patterns")}
        for file in filter_repo_objects(self.files, **patterns):
            (self.folder / file).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / file).write_text(INDEX if file == "model_index.json" else "{}")
        return str(self.folder)

    def fetched(self) -> set[str]:
        return {str(file.relative_to(self.folder)) for file in self.folder.rglob("*") if file.is_file()}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub(tmp_path / "cache", REPOSITORY)
    monkeypatch.setattr("huggingface_hub.snapshot_download", made)
    monkeypatch.chdir(tmp_path)
    return made


def test_a_path_that_exists_is_itself(tmp_path: Path, hub: Hub) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    (tmp_path / "a.safetensors").touch()
    assert resolve("owner/name") == Path("owner/name")
    assert resolve(tmp_path / "a.safetensors", variant="fp16") == tmp_path / "a.safetensors"
    assert hub.asked == []
    with pytest.raises(SettingError, match="lies on this machine: revision 'v2' is of a repository"):
        resolve("owner/name", revision="v2")


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_of_a_repository_only_what_is_needed_is_fetched(hub: Hub, variant: str | None) -> None:
    assert resolve("owner/name", revision="v2", variant=variant) == hub.folder
    assert [(asked["name"], asked["revision"]) for asked in hub.asked] == [("owner/name", "v2")]
    texts = {"model_index.json", "unet/config.json", "tokenizer/vocab.json", "tokenizer/merges.txt"}
    texts.add("vae/diffusion_pytorch_model.safetensors.index.json")
    mark = f".{variant}" if variant else ""
    assert hub.fetched() == texts | {
        f"unet/diffusion_pytorch_model{mark}.safetensors",
        f"vae/diffusion_pytorch_model{mark}-00001-of-00002.safetensors",
        f"text_encoder/model{mark}.safetensors",
    }


def test_older_files_are_fetched_where_there_are_no_safetensors(hub: Hub) -> None:
    hub.files = [file for file in REPOSITORY if not fnmatch.fnmatch(file, "*.safetensors")]
    resolve("owner/name")
    assert {"unet/diffusion_pytorch_model.bin", "text_encoder/pytorch_model.bin"} <= hub.fetched()


@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.fp16.bin", "pytorch_model.bin"])
def test_a_component_that_lacks_what_the_others_have_is_fetched_as_it_is(hub: Hub, kind: str) -> None:
    kept = ["text_encoder/config.json", "text_encoder/flax_model.msgpack", f"text_encoder/{kind}"]
    hub.files = [*(file for file in REPOSITORY if not file.startswith("text_encoder")), *kept]
    resolve("owner/name", variant="fp16")
    assert {file for file in hub.fetched() if "text_encoder" in file} == {kept[0], kept[2]}
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in hub.fetched()
    assert "unet/diffusion_pytorch_model.safetensors" not in hub.fetched()


def test_where_no_component_has_a_variant_nothing_else_is_fetched_for_it(hub: Hub) -> None:
    resolve("owner/name", variant="fp8")
    assert not [file for file in hub.fetched() if file.endswith((".safetensors", ".bin"))]


def answer(status: int) -> Any:
    return client.Response(status, request=client.Request("GET", "https://huggingface.co/api/models/owner/name"))


FAILURES = [
    (
        errors.GatedRepoError("403", response=answer(403)),
        CheckpointError,
        r"is gated: accept .*log in with: hf auth login",
    ),
    (
        errors.RepositoryNotFoundError("404", response=answer(404)),
        CheckpointError,
        "nor a model on huggingface.co. If it",
    ),
    (errors.RevisionNotFoundError("404", response=answer(404)), CheckpointError, "owner/name has no revision 'v2'"),
    (errors.LocalEntryNotFoundError("no connection"), CheckpointError, "cannot be reached. Where .* give its path"),
    (
        errors.OfflineModeIsEnabled("offline"),
        CheckpointError,
        "cannot be reached. .* copy the cache's folder models--owner",
    ),
    (client.ConnectError("no route"), CheckpointError, "cannot be reached"),
    (errors.HfHubHTTPError("502 Bad Gateway", response=answer(502)), CheckpointError, "could not be downloaded: 502"),
    (OSError(28, "No space left on device"), StorageError, "could not be downloaded to .*: .*No space left"),
]


@pytest.mark.parametrize(("failure", "kind", "said"), FAILURES, ids=[type(failure[0]).__name__ for failure in FAILURES])
def test_every_failure_of_the_hub_says_what_to_do(
    failure: Exception, kind: type[Exception], said: str, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **settings: Any) -> str:
        raise failure

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(kind, match=said):
        resolve("owner/name", revision="v2")


def test_without_a_network_the_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the hub's own function, with its cache and its offline switch."""
    commit = "a" * 40
    kept = tmp_path / "models--owner--name"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text(commit)
    (kept / "snapshots" / commit).mkdir(parents=True)
    (kept / "snapshots" / commit / "model.safetensors").touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))
    assert resolve("owner/name") == kept / "snapshots" / commit
    with pytest.raises(CheckpointError, match=r"hf download owner/other --local-dir FOLDER"):
        resolve("owner/other")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("modle", r"modle is not there\. Did you mean model\?"),
        ("./models/sd15", r"Did you mean models/sd-15\?"),
        ("models/sd15", r"Did you mean models/sd-15\?"),  # rather than a repository
        ("models/sd-15.safetensors", "Did you mean models/sd-15"),
        ("nothing", "Give the path of a model's folder or file, or the id of one on the hub, as owner/name"),
        ("no/such/folder", "There is no folder no/such"),
        ("elsewhere/file.ckpt", "There is no folder elsewhere"),
    ],
)
def test_a_misspelt_path_is_answered_with_the_closest_one(model: str, said: str, tmp_path: Path, hub: Hub) -> None:
    for folder in ("model", "models/sd-15"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    with pytest.raises(CheckpointError, match=said):
        resolve(model)
    assert hub.asked == []


def test_a_revision_may_stand_behind_the_id(hub: Hub) -> None:
    resolve("owner/name@refs/pr/3")
    assert {(one["name"], one["revision"]) for one in hub.asked} == {("owner/name", "refs/pr/3")}
    with pytest.raises(SettingError, match="names its revision, and revision 'main' is given too"):
        resolve("owner/name@v1", revision="main")
