"""Where a model lies: a folder or file on this machine, or a repository of the hub, which is downloaded once.

Only what a model is built from is fetched: configurations, tokenizers, and the weights of one variant (safetensors,
and the older .bin files where there are none). Without a network, what is in the hub's cache is used.
"""

import re
from difflib import get_close_matches
from pathlib import Path

from neblina.bundle.files import read_json
from neblina.bundle.weights import STEM
from neblina.core.errors import CheckpointError, SettingError, StorageError

DEFAULT = "emoji-64"  # the model of this package that is taken where none is named
_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?")
_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".json")
_TEXTS = ["*.json", "*merges.txt", "*vocab.txt", "*.model"]
_UNUSED = ["safety_checker/*", "feature_extractor/*", "*flax*", "*openvino*", "*.onnx"]


def resolve(model: str | Path, *, revision: str | None = None, variant: str | None = None) -> Path:
    """The folder or file of a model, downloaded if it has to be.

    Args:
        model: a path, the name of a model in this package, or the id of a repository, owner/name or
            owner/name@revision.
        revision: branch, tag or commit of a repository, None for its main branch.
        variant: of the weights to download, such as "fp16".
    Raises:
        CheckpointError: nothing of that name is here or on the hub, it is gated, or the hub cannot be reached.
        SettingError: a revision of something that lies on this machine, or two.
        StorageError: the disk is full.
    """
    place = Path(model).expanduser()
    if str(model) in packaged() and not place.exists():
        if revision is not None:
            raise SettingError(f"{model} comes with this package: revision {revision!r} is of a repository on the hub")
        return packaged()[str(model)]
    if place.exists():
        if revision is not None:
            raise SettingError(f"{model} lies on this machine: revision {revision!r} is of a repository on the hub")
        return place
    close, found = _neighbours(place), _ID.fullmatch(str(model))
    if close or found is None or place.suffix in _FILES:
        hint = f"Did you mean {place.with_name(close[0])}?" if close else _what_is_there(place)
        raise CheckpointError(f"{model} is not there. {hint}")
    if found[2] and revision is not None:
        raise SettingError(f"{model} names its revision, and revision {revision!r} is given too: leave one out")
    return _download(found[1], found[2] or revision, variant)


def packaged() -> dict[str, Path]:
    """The models that come with this package, by name."""
    place = Path(__file__).parent.parent / "models"
    return {folder.name: folder for folder in sorted(place.iterdir())} if place.is_dir() else {}


def names_a_model(word: str) -> bool:
    """Whether a word is where a model may be, and not something to say: a path, a file, a model's name."""
    if not word:  # the path of nothing is where this runs
        return False
    place = Path(word).expanduser()
    if word in packaged() or place.suffix in _FILES or _ID.fullmatch(word):
        return True
    return ("/" in word and " " not in word) or (place.exists() and place.suffix.lower() not in (".yaml", ".yml"))


def cached_file(name: str, file: str) -> Path | None:
    """A file of a repository that the hub's cache holds, None where it does not; nothing is downloaded."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, file)
    return Path(found) if isinstance(found, str) else None


def cached_folder(name: str, revision: str | None = None) -> Path | None:
    """A repository's snapshot, named after its commit, that the hub's cache holds; nothing is downloaded.

    Args:
        name: of the repository, also as owner/name@revision; of anything else there is none.
        revision: branch, tag or commit, None for the main branch.
    """
    found = _ID.fullmatch(name)
    if found is None:
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(found[1], revision=found[2] or revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def _neighbours(place: Path) -> list[str]:
    names = [entry.name for entry in place.parent.iterdir()] if place.parent.is_dir() else []
    return get_close_matches(place.name, names, n=1) or get_close_matches(place.stem, names, n=1)


def _what_is_there(place: Path) -> str:
    if place.parent.is_dir():
        return "Give the path of a model's folder or file, or the id of one on the hub, as owner/name."
    return f"There is no folder {place.parent}."


def _download(name: str, revision: str | None, variant: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    client_error: type[Exception] = HfHubHTTPError.__bases__[0]  # of whatever the hub's client is made with
    try:
        patterns = [*_TEXTS, *_weights("safetensors", variant)]
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=patterns, ignore_patterns=_UNUSED))
        if not any(folder.rglob("*.safetensors")):
            older = _weights("bin", variant)
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=older, ignore_patterns=_UNUSED))
        for kind, of in (("safetensors", None), ("bin", variant), ("bin", None)):
            others = [f"{part}/{file}" for part in _unfilled(folder) for file in _weights(kind, of) if "/" not in file]
            if others:  # of components that lack the variant or safetensors, in a model that has them
                snapshot_download(name, revision=revision, allow_patterns=others, ignore_patterns=_UNUSED)
    except GatedRepoError as error:
        raise CheckpointError(
            f"{name} is gated: accept its licence at https://huggingface.co/{name}, then log in with: hf auth login"
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{name} has no revision {revision!r}; see https://huggingface.co/{name}") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{name} is neither a path here nor a model on huggingface.co. If it is private, log in with: hf auth login"
        ) from error
    except HfHubHTTPError as error:
        raise CheckpointError(f"{name} could not be downloaded: {error}") from error
    except (LocalEntryNotFoundError, ConnectionError, client_error) as error:
        raise CheckpointError(
            f"{name} is neither a path here nor in the hub's cache, and huggingface.co cannot be reached. Where there "
            f"is a network, run: hf download {name} --local-dir FOLDER; then bring FOLDER here and give its path, or "
            f"copy the cache's folder models--{name.replace('/', '--')} into {HF_HUB_CACHE}"
        ) from error
    except OSError as error:
        raise StorageError(f"{name} could not be downloaded to {HF_HUB_CACHE}: {error}") from error
    return folder


def _unfilled(folder: Path) -> list[str]:
    """The components that the index names and of which there is a configuration alone; none where all are so."""
    index = read_json(folder / "model_index.json") if (folder / "model_index.json").exists() else {}
    parts = [folder / part for part in index if (folder / part / "config.json").exists()]
    empty = [part.name for part in parts if not any(file.suffix in (".safetensors", ".bin") for file in part.iterdir())]
    return [] if len(empty) == len(parts) else empty


def _weights(kind: str, variant: str | None) -> list[str]:
    """Patterns of one variant's files and shards, in the repository and in any folder of it; an index is among the
    texts."""
    between = f".{variant}" if variant else ""
    stems = (STEM, "model" if kind == "safetensors" else "pytorch_model")
    ends = (f"{between}.{kind}", f"{between}-*-of-*.{kind}")
    return [f"{start}{stem}{end}" for stem in stems for end in ends for start in ("", "*/")]
