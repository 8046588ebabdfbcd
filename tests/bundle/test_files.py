"""The files that a model's and a classifier's folder share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from models import small_bundle, small_classifier

from neblina.bundle.classifier import load_classifier_bundle, save_classifier
from neblina.bundle.files import CARD, read_json, refuse_strangers
from neblina.bundle.folder import load_bundle, save_bundle
from neblina.core.errors import CheckpointError, StorageError
from neblina.version import __version__

FOLDERS: list[tuple[Callable[[], Any], Callable[[Any, Path], None], Callable[[Path], Any], str]] = [
    (small_bundle, save_bundle, load_bundle, "a model"),
    (small_classifier, save_classifier, load_classifier_bundle, "a classifier"),
]


@pytest.mark.parametrize(("make", "save", "load", "what"), FOLDERS, ids=[folder[-1] for folder in FOLDERS])
def test_both_folders_refuse_strangers_and_damage_in_the_same_words(
    make: Callable[[], Any], save: Callable[[Any, Path], None], load: Callable[[Path], Any], what: str, tmp_path: Path
) -> None:
    place = tmp_path / "saved"
    save(make(), place)
    card = read_json(place / CARD)
    assert (card["format"], card["version"]) == (1, __version__)
    (place / "photo.jpg").write_bytes(b"precious")
    with pytest.raises(CheckpointError, match=rf"holds photo\.jpg, which saving {what} would delete"):
        save(make(), place)
    assert (place / "photo.jpg").read_bytes() == b"precious"
    for content, said in (
        (b"[1]", "holds a list where names and values belong"),
        (b'{"form', "damaged or cut short"),
        (b"\xff\xfe\x00", "damaged or cut short"),
        (b"[" * 100_000, "damaged or cut short"),
    ):
        (place / CARD).write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"neblina\.json .*{said}"):
            load(place)


def test_a_folder_that_is_not_there_yet_holds_nothing_strange(tmp_path: Path) -> None:
    refuse_strangers(tmp_path / "new", set(), "a model")
    with pytest.raises(CheckpointError, match=r"new is missing"):
        read_json(tmp_path / "new")


@pytest.mark.parametrize(("make", "save", "load", "what"), FOLDERS, ids=[folder[-1] for folder in FOLDERS])
def test_the_folder_that_one_stands_in_is_opened_by_its_shortest_name(
    make: Callable[[], Any],
    save: Callable[[Any, Path], None],
    load: Callable[[Path], Any],
    what: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save(make(), tmp_path / "saved")
    (tmp_path / "saved" / "below").mkdir()
    for place, name in ((tmp_path / "saved", "."), (tmp_path / "saved" / "below", "..")):
        monkeypatch.chdir(place)
        assert load(Path(name)).net.config == load(tmp_path / "saved").net.config
    with pytest.raises(CheckpointError):
        load(Path("/"))  # which has no name at all


def test_the_folder_that_one_stands_in_is_not_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaced, it would leave a shell that stands in nothing."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match="is where this runs"):
        save_bundle(small_bundle(), Path("."))
    assert list(tmp_path.iterdir()) == []
    save_bundle(small_bundle(), Path("new"))
    assert load_bundle(tmp_path / "new").label_names == ()
