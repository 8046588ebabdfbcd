"""The archive of emoji is what its two sources say, byte for byte the same every time."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neblina.core.errors import DataError
from neblina.data.files import read_files
from neblina.data.noto import emoji_of, make_archive

ENTRIES = [
    {
        "label": "flag: France",
        "hexcode": "1F1EB-1F1F7",
        "emoji": "🇫🇷",
        "order": 9,
        "group": 1,
        "subgroup": 3,
        "tags": [],
    },
    {"label": "copyright", "hexcode": "00A9", "emoji": "©️", "order": 8, "group": 1, "subgroup": 3, "tags": ["C"]},
    {
        "label": "man: beard",
        "hexcode": "1F9D4-200D-2642-FE0F",
        "emoji": "🧔‍♂️",
        "order": 2,
        "group": 0,
        "subgroup": 2,
        "tags": ["beard"],
        "skins": [
            {
                "label": "man: dark skin tone, beard",
                "hexcode": "1F9D4-1F3FF-200D-2642-FE0F",
                "emoji": "🧔🏿‍♂️",
                "order": 3,
                "group": 0,
                "subgroup": 2,
                "tone": 5,
            }
        ],
    },
    {
        "label": "kiss",
        "hexcode": "1F48F",
        "emoji": "💏",
        "order": 4,
        "group": 0,
        "subgroup": 2,
        "tags": ["couple"],
        "skins": [
            {
                "label": "kiss: person, person, light skin tone, medium skin tone",
                "hexcode": "1F9D1-1F3FB-200D-1F48B-200D-1F9D1-1F3FD",
                "emoji": "🧑",
                "order": 5,
                "group": 0,
                "subgroup": 2,
                "tone": [1, 3],
            }
        ],
    },
    {"label": "regional indicator A", "hexcode": "1F1E6", "emoji": "🇦"},
]
MESSAGES = {
    "groups": [{"order": 0, "message": "people & body"}, {"order": 1, "message": "symbols"}],
    "subgroups": [{"order": 2, "key": "person"}, {"order": 3, "key": "other"}],
}
FILES = {
    "png/128/emoji_u00a9.png": (128, 128),
    "png/128/emoji_u1f9d4_200d_2642.png": (128, 128),
    "png/128/emoji_u1f9d4_1f3ff_200d_2642.png": (128, 128),
    "png/128/emoji_u1f48f.png": (128, 128),
    "png/128/emoji_u1f9d1_1f3fb_200d_1f48b_200d_1f9d1_1f3fd.png": (128, 128),
    "png/128/emoji_u1f1e6.png": (128, 128),
    "third_party/region-flags/png/FR.png": (120, 60),
}


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Path, Path]:
    """A tiny checkout of the pictures, red on nothing, and of the names."""
    pictures, names = tmp_path / "noto", tmp_path / "names"
    for file, size in FILES.items():
        (pictures / file).parent.mkdir(parents=True, exist_ok=True)
        picture = Image.new("RGBA", size, (0, 0, 0, 0))
        picture.paste((255, 0, 0, 255), (0, 0, size[0], size[1] // 2))
        picture.save(pictures / file)
    (names / "en").mkdir(parents=True)
    (names / "en" / "data.json").write_text(json.dumps(ENTRIES))
    (names / "en" / "messages.json").write_text(json.dumps(MESSAGES))
    return pictures, names


def test_records_say_names_tones_and_what_they_vary(sources: tuple[Path, Path]) -> None:
    found = {emoji.record["text"]: emoji.record for emoji in emoji_of(sources[1])}
    assert list(found) == [
        "man: beard",
        "man: dark skin tone, beard",
        "kiss",
        "kiss: person, person, light skin tone, medium skin tone",
        "copyright",
        "flag: France",
        "regional indicator A",
    ]
    toned = found["man: dark skin tone, beard"]
    assert toned["skin_tones"] == ["dark"]
    assert toned["base_text"] == "man: beard"
    assert toned["keywords"] == ["beard"]
    assert toned["codepoints"] == "1f9d4-1f3ff-200d-2642"
    both = found["kiss: person, person, light skin tone, medium skin tone"]
    assert both["skin_tones"] == ["light", "medium"]
    assert both["base_text"] == "kiss"
    assert found["copyright"]["codepoints"] == "a9"
    assert (found["copyright"]["group"], found["copyright"]["subgroup"]) == ("symbols", "other")
    assert found["regional indicator A"]["group"] == "components"


def test_pictures_lie_on_white_in_the_middle_of_a_square(sources: tuple[Path, Path], tmp_path: Path) -> None:
    count, missing = make_archive(*sources, tmp_path / "emoji.zip", size=32, variants="all")
    assert (count, missing) == (7, [])
    pictures, bad = read_files(tmp_path / "emoji.zip")
    assert not bad
    assert pictures.shape == (3, 32, 32)
    assert pictures.records is not None
    flag = next(n for n, record in enumerate(pictures.records) if record["source"] == "region-flags")
    column = pictures.read([flag])[0, :, :, 16].numpy()
    assert np.array_equal(column[:, 4], [255, 255, 255])  # the margin above
    assert np.array_equal(column[:, 12], [255, 0, 0])
    assert np.array_equal(column[:, 20], [255, 255, 255])  # what was transparent


def test_the_same_sources_make_the_same_bytes(sources: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("one.zip", "two.zip"):
        make_archive(*sources, tmp_path / name)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert archive.namelist()[0] == "metadata.jsonl"


def test_variants_are_all_some_or_none(sources: tuple[Path, Path], tmp_path: Path) -> None:
    counts = {v: make_archive(*sources, tmp_path / "e.zip", variants=v)[0] for v in ("all", "some", "none")}
    assert counts == {"all": 7, "some": 7, "none": 5}  # none of these two is among those that are left out


def test_a_few_names_without_pictures_are_told_and_many_refused(sources: tuple[Path, Path], tmp_path: Path) -> None:
    (sources[0] / "png/128/emoji_u00a9.png").unlink()
    assert make_archive(*sources, tmp_path / "e.zip") == (6, ["copyright"])
    (sources[0] / "png/128/emoji_u1f48f.png").unlink()
    with pytest.raises(DataError, match="lacks the pictures of 2 of 7"):
        make_archive(*sources, tmp_path / "other.zip")
    assert not (tmp_path / "other.zip").exists()


def test_folders_that_are_something_else_are_refused(sources: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no checkout of googlefonts/noto-emoji"):
        make_archive(sources[1], sources[1], tmp_path / "e.zip")
    with pytest.raises(DataError, match="holds no names"):
        make_archive(sources[0], sources[0], tmp_path / "e.zip")
    (sources[1] / "en" / "data.json").write_text('[{"label": "a"}]')
    with pytest.raises(DataError, match="is not emojibase's data"):
        make_archive(*sources, tmp_path / "e.zip")
