"""What is drawn: places over a picture, and the way of a picture out of the noise."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import small_bundle
from PIL import Image, ImageColor

from neblina.core.errors import SettingError, StorageError
from neblina.core.plan import Query
from neblina.core.posterior import Gaussian
from neblina.data.pictures import to_uint8
from neblina.samplers import samplers
from neblina.samplers.drive import Step
from neblina.tasks.animation import Animation
from neblina.tasks.model import Model
from neblina.tasks.outlines import outlined, save_outlined
from neblina.tasks.scenes import Scene, scene_of

CPU = torch.device("cpu")


def scene(size: tuple[int, int], *places: Any) -> Scene:
    """A scene of (width, height) with an element at each place."""
    elements = [
        {"prompt": f"thing {number}", ("polygon" if isinstance(place[0], list) else "box"): place}
        for number, place in enumerate(places)
    ]
    return scene_of({"size": list(size), "elements": elements})


def ground(height: int, width: int, channels: int = 3) -> torch.Tensor:
    return torch.full((channels, height, width), 200, dtype=torch.uint8)


def coloured(image: Image.Image) -> np.ndarray[Any, Any]:
    """Where a drawing is no longer the grey ground."""
    return (np.asarray(image) != 200).any(-1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (56, 56), (40, 97), (300, 400), (1000, 1400)])
def test_a_small_picture_is_drawn_large_enough_to_read_and_a_large_one_at_its_size(
    size: tuple[int, int], channels: int
) -> None:
    drawn = outlined(ground(*size, channels), scene(size[::-1], [0.1, 0.1, 0.6, 0.9], [[0, 0], [1, 0], [0.5, 1]]))
    factor = max(1, 768 // max(size))
    assert drawn.size == (size[1] * factor, size[0] * factor)
    assert max(drawn.size) >= 400
    assert coloured(drawn).mean() < 0.5  # the picture is still to be seen


def test_an_outline_lies_on_the_border_of_its_place_and_leaves_the_inside_as_it_was() -> None:
    drawn = coloured(outlined(ground(100, 100), scene((100, 100), [20, 30, 80, 90])))
    scale = 7
    left, top, right, bottom = (scale * side for side in (20, 30, 80, 90))
    for row, column in ((top + 300, left), (top + 300, right), (bottom, left + 200), (top, right - 9)):
        assert drawn[row - 3 : row + 4, column - 3 : column + 4].any()
    assert not drawn[top + 60 : bottom - 9, left + 9 : right - 9].any()
    assert not drawn[: top - 9].any()
    assert not drawn[bottom + 9 :].any()


def test_neighbours_have_colours_of_their_own_and_words_do_not_lie_on_each_other() -> None:
    drawn = np.asarray(outlined(ground(64, 64), scene((64, 64), [0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 0.999])))
    rooms = []
    for name in ("#e69f00", "#56b4e9", "#009e73"):
        rows = (drawn == ImageColor.getrgb(name)).all(-1)[:, 8:80].sum(1)
        rooms.append(set(np.flatnonzero(rows > 20)))
        assert len(rooms[-1]) > 8
    assert not rooms[0] & rooms[1]
    assert not rooms[1] & rooms[2]


def test_a_mask_picture_is_outlined_along_its_border(tmp_path: Path) -> None:
    down, along = np.mgrid[0:64, 0:64]
    disc = ((down - 32) ** 2 + (along - 32) ** 2 < 400).astype(np.uint8) * 255
    Image.fromarray(disc).save(tmp_path / "disc.png")
    given = {"size": [64, 64], "elements": [{"prompt": "x", "mask": str(tmp_path / "disc.png")}]}
    drawn = coloured(outlined(ground(64, 64), scene_of(given)))
    large = np.kron(disc > 0, np.ones((12, 12), bool))
    words = np.zeros_like(drawn)
    words[140:200, 140:400] = True
    assert not (drawn & ~large & ~words).any()
    assert not drawn[300:460, 300:460].any()
    assert drawn[384, 144:160].any()


def test_words_of_any_length_and_language_fit_on_the_picture() -> None:
    for name in ("a" * 500, "красный диван", "two\nlines", "'quotes' \"both\""):
        given = {"size": [40, 30], "elements": [{"prompt": name, "box": [0.5, 0.5, 1, 1]}]}
        assert outlined(ground(30, 40), scene_of(given)).size == (760, 570)


def test_drawings_take_the_place_of_drawings_and_of_nothing_else(tmp_path: Path) -> None:
    places = scene((8, 8), [0, 0, 0.5, 0.5])
    for _ in range(2):
        assert save_outlined(ground(8, 8), places, tmp_path / "0-00000.png") == tmp_path / "0-00000-boxes.png"
    (tmp_path / "1-boxes.png").write_bytes(b"mine")
    assert save_outlined(ground(8, 8), places, tmp_path / "1.png").name == "1-boxes-2.png"
    assert (tmp_path / "1-boxes.png").read_bytes() == b"mine"
    assert np.array_equal(
        np.asarray(Image.open(tmp_path / "0-00000-boxes.png")), np.asarray(outlined(ground(8, 8), places))
    )


# animations


def model() -> Model:
    return Model(small_bundle(schedule="cosine", parameterisation="v"), CPU)


def frames(place: Path) -> list[tuple[np.ndarray[Any, Any], int]]:
    """Pixels and milliseconds of every frame."""
    found = []
    with Image.open(place) as moving:
        for number in range(moving.n_frames):
            moving.seek(number)
            moving.load()
            found.append((np.asarray(moving.convert("RGB")).copy(), int(moving.info["duration"])))
    return found


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_an_animation_has_a_frame_an_answer_and_stays_on_the_picture(suffix: str, tmp_path: Path) -> None:
    """The beliefs about the first picture, though two are made at once and others later."""
    animation = Animation(model())
    torch.manual_seed(0)
    beliefs = torch.rand(2, 6, 2, 3, 8, 8) * 2 - 1
    for batch in beliefs:
        for number, means in enumerate(batch, 1):
            animation(Step(number, Query(means, torch.ones(2)), Gaussian(means)))
    made = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    seen = frames(animation.save(tmp_path / f"a.{suffix}", made))
    assert len(seen) == 7
    for (pixels, _), belief in zip(seen, [*to_uint8(beliefs[0, :, 0]), made], strict=True):
        exact = belief.permute(1, 2, 0).numpy().repeat(64, 0).repeat(64, 1)
        assert pixels.shape == (512, 512, 3)
        assert np.abs(pixels.astype(int) - exact).mean() < 8  # a palette, or a lossy format
    assert all(seen[-1][1] >= 5 * time for _, time in seen[:-1])


def test_an_animation_of_a_walk_ends_with_its_picture(tmp_path: Path) -> None:
    """What looks alike is one frame, seen as long as all of them."""
    animation = Animation(model())
    made = to_uint8(animation.model.generate(n=3, steps=6, sampler="ddim", seed=2, batch=2, on_step=animation))
    assert len(animation.frames) == 6
    seen = frames(animation.save(tmp_path / "a.gif", made[0]))
    assert sum(time for _, time in seen) == 6 * 200 + 2000
    exact = made[0].permute(1, 2, 0).numpy().repeat(64, 0).repeat(64, 1)
    assert np.abs(seen[-1][0].astype(int) - exact).mean() < 8


def test_a_long_walk_is_seen_in_a_hundred_frames_evenly_over_all_of_it() -> None:
    for answers in (99, 100, 101, 450, 1000):
        animation = Animation(model())
        for number in range(answers):
            mean = torch.full((1, 3, 8, 8), number / 500 - 1)
            animation(Step(number + 1, Query(mean, torch.ones(1)), Gaussian(mean)))
        assert min(answers, 50) <= len(animation.frames) <= 100
        levels = np.array([np.asarray(frame)[0, 0, 0] for frame in animation.frames]).astype(int)
        stride = -(-answers // len(animation.frames))
        assert np.abs(np.diff(levels) - stride * 127.5 / 500).max() <= 1
        assert levels[-1] >= (answers - 1 - stride) * 127.5 / 500 - 1


@pytest.mark.parametrize("sampler", ["heun", "adaptive", "repaint"])
def test_samplers_that_ask_twice_or_of_some_pictures_alone_are_seen_too(sampler: str, tmp_path: Path) -> None:
    animation = Animation(model())
    settings = {} if samplers[sampler].adaptive else {"steps": 3}
    if sampler == "repaint":
        mask = np.zeros((8, 8), np.uint8)
        mask[:4] = 255
        made = animation.model.inpaint(
            np.zeros((8, 8, 3), np.uint8), mask, n=2, sampler=sampler, on_step=animation, **settings
        )
    else:
        made = to_uint8(animation.model.generate(n=2, sampler=sampler, on_step=animation, **settings))
    assert len(frames(animation.save(tmp_path / "a.webp", made[0]))) >= 3


def test_an_animation_is_written_over_nothing_and_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    animation = Animation(model())
    animation.model.generate(n=1, steps=2, on_step=animation)
    (tmp_path / "animation.gif").write_bytes(b"mine")
    assert animation.save(tmp_path / "animation.gif", ground(8, 8)).name == "animation-2.gif"
    assert (tmp_path / "animation.gif").read_bytes() == b"mine"
    with pytest.raises(SettingError, match=r"does not end in \.gif or \.webp"):
        animation.save(tmp_path / "animation.mp4", ground(8, 8))

    def full(_: Image.Image, place: Path, **__: Any) -> None:
        place.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(StorageError, match="the disk is full"):
        animation.save(tmp_path / "animation.gif", ground(8, 8))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["animation-2.gif", "animation.gif"]
