"""`compose` and `panorama` as they are typed."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from models import small_bundle
from PIL import Image
from typed import Typed, typed_in

from neblina.bundle.folder import save_bundle
from neblina.tasks.provenance import read_provenance

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")

ROOM = """\
size: [24, 16]
background: {label: 0}
elements:
  - {label: 1, box: [0, 0, 0.5, 1]}
  - {label: 2, mask: masks/place.png}
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models, a scene, its mask and a photo in it."""
    place = tmp_path_factory.mktemp("desk")
    save_bundle(small_bundle(classes=3, schedule="cosine", parameterisation="v"), place / "CLASSES")
    save_bundle(small_bundle(schedule="cosine", parameterisation="v"), place / "PIXELS")
    values = np.zeros((16, 24), np.uint8)
    values[4:12, 14:22] = 255
    (place / "scenes" / "masks").mkdir(parents=True)
    Image.fromarray(values).save(place / "scenes" / "masks" / "place.png")
    inside = values.copy()
    inside[4:12, 8:14] = 255  # something of either element
    Image.fromarray(inside).save(place / "inside.png")
    Image.fromarray(np.dstack([values, 255 - values, values // 2 + 60])).save(place / "photo.png")
    (place / "scenes" / "room.yaml").write_text(ROOM)
    return place


@pytest.fixture
def typed(desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Commands in a folder, in this process: they start in no time."""
    return typed_in(desk, monkeypatch, capsys)


def names(folder: Path) -> list[str]:
    return sorted(place.name for place in folder.iterdir())


def test_a_scene_becomes_pictures_with_drawings_and_an_animation_beside_them(desk: Path, typed: Typed) -> None:
    words = "-n 2 --steps 4 --boxes --animation --share 0.5 --colours white,#204060 --max-batch 3 --out placed"
    said = typed("compose", "CLASSES", "scenes/room.yaml", *words.split())
    assert "compose: 2 pictures" in said
    assert "placed/sheet.png\nplaced/0-00000-boxes.png\nplaced/animation.gif" in said
    assert names(desk / "placed") == [
        *(f"0-0000{number}{end}.png" for number in (0, 1) for end in ("-boxes", "")),
        "animation.gif",
        "sheet.png",
    ]
    assert Image.open(desk / "placed" / "0-00000.png").size == (24, 16)
    assert Image.open(desk / "placed" / "0-00001-boxes.png").size == (768, 512)
    said = read_provenance(desk / "placed" / "0-00001.png").arguments
    assert said["scene"]["bootstrap"] == {"share": 0.5, "colours": ["white", "#204060"]}
    assert said["max_batch"] == 3


def test_a_picture_shows_its_scene_as_a_file_that_can_be_used_again(desk: Path, typed: Typed) -> None:
    typed("compose", "CLASSES", "scenes/room.yaml", "--steps", "2", "--colours", "red,white", "--out", "shown")
    said = typed("info", "shown/0-00000.png")
    rows = said[said.index("# the scene") :]
    values = yaml.safe_load(rows)
    assert values == json.loads(typed("info", "shown/0-00000.png", "--as-json"))["arguments"]["scene"]
    (desk / "again.yaml").write_text(rows)
    typed("compose", "CLASSES", "again.yaml", "--steps", "2", "--out", "shown")
    assert names(desk / "shown") == ["0-00000.png"]  # the same picture, made in the same way


def test_a_composed_picture_is_reproduced_also_where_its_masks_moved(desk: Path, typed: Typed) -> None:
    typed("compose", "CLASSES", "scenes/room.yaml", "--steps", "2", "--out", "once")
    assert "the same picture, to the byte" in typed("reproduce", "once/0-00000.png", "--out", "twice")
    masks = desk / "scenes" / "masks"
    masks.rename(desk / "elsewhere")
    try:
        assert "say where with --inputs" in typed("reproduce", "once/0-00000.png", ends=1)
        said = typed("reproduce", "once/0-00000.png", "--inputs", "elsewhere", "--out", "twice")
        assert "the same picture, to the byte" in said
    finally:
        (desk / "elsewhere").rename(masks)


def test_a_scene_is_placed_on_a_photo_and_inside_a_mask_of_it(desk: Path, typed: Typed) -> None:
    asked = ["compose", "CLASSES", "scenes/room.yaml", "--photo", "photo.png", "--steps", "3", "--out", "over"]
    typed(*asked, "--strength", "0.5")
    typed(*asked, "--mask", "inside.png")
    photo, inside = (np.asarray(Image.open(desk / name)) for name in ("photo.png", "inside.png"))
    through, within = (np.asarray(Image.open(desk / "over" / f"0-00000{end}.png")) for end in ("", "-2"))
    assert not np.array_equal(through, photo)
    assert np.array_equal(within[inside == 0], photo[inside == 0])
    assert not np.array_equal(within, photo)
    strengths = [read_provenance(desk / "over" / f"0-00000{end}.png").arguments["strength"] for end in ("", "-2")]
    assert strengths == [0.5, 1.0]


def test_a_panorama_has_the_size_that_is_asked_for(desk: Path, typed: Typed) -> None:
    asked = ["panorama", "CLASSES", "--size", "64x16", "--steps", "3", "--out", "wide"]
    assert "panorama: 1 picture" in typed(*asked, "--label", "0")
    typed(*asked, "--label", "0", "--label", "1", "--wrap", "--overlap", "6", "--even")
    typed(*asked, "--label", "2", "-n", "3")
    assert names(desk / "wide") == [
        *("0-00000-2.png", "0-00000-3.png", "0-00000.png", "0-00001.png", "0-00002.png", "sheet.png"),
    ]
    assert Image.open(desk / "wide" / "0-00000-2.png").size == (64, 16)
    assert read_provenance(desk / "wide" / "0-00000-2.png").arguments["labels"] == ["0", "1"]


def test_any_picture_has_an_animation_on_request(desk: Path, typed: Typed) -> None:
    said = typed("generate", "PIXELS", "--steps", "3", "--animation", "--out", "moving")
    assert said.splitlines()[-1] == "moving/animation.gif"
    assert names(desk / "moving") == ["0-00000.png", "animation.gif"]


@pytest.mark.parametrize("verb", ["compose", "panorama"])
def test_help_says_something_of_every_option(verb: str, typed: Typed) -> None:
    said = typed(verb, "--help")
    options = re.findall(r"^│ +(?:\* +)?(--?[a-z][^ ]*.*?)│$", said, re.MULTILINE)
    assert len(options) > 30
    for option in options:
        assert re.sub(r"^((-[^ ]*|[A-Z]+(\.\.\.)?) +)+", "", option).strip(), option
    assert "--empty" not in said
    assert "--no-" not in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("compose CLASSES living_rom", "Did you mean living_room?"),
        ("compose CLASSES gone.yaml", "gone.yaml is missing"),
        (
            "compose CLASSES wrong.yaml",
            "'wrong.yaml', line 3: elements.1.lable is not a field. Did you mean label?",
        ),
        ("compose CLASSES scenes/room.yaml --share 1", "bootstrap.share is at least 0 and below 1, not 1"),
        ("compose CLASSES scenes/room.yaml --colours whit", "'whit' is none; write one as white"),
        ("compose CLASSES scenes/room.yaml --colours ²", "'²' is none; write one as white"),
        ("compose CLASSES scenes/room.yaml --background white", "and there is none"),
        ("compose CLASSES scenes/room.yaml --max-batch 0", "max_batch is at least 1"),
        ("compose CLASSES scenes/room.yaml --photo gone.png", "gone.png is missing"),
        ("compose CLASSES living_room", "words"),
        ("compose PIXELS scenes/room.yaml", "neither words nor classes"),
        ("panorama CLASSES --size 64 --label 0", "is not width x height"),
        ("panorama CLASSES a b --size 64x8", "reads no text"),
    ],
)
def test_a_mistake_is_one_sentence(words: str, said: str, desk: Path, typed: Typed) -> None:
    """And it comes before anything is written."""
    (desk / "wrong.yaml").write_text("size: [24, 16]\nelements:\n  - {lable: 1, box: [0, 0, 1, 1]}\n")
    before = sorted(desk.rglob("*"))
    assert said in re.sub(r"\s+", " ", typed(*words.split(), ends=1))
    assert sorted(desk.rglob("*")) == before
