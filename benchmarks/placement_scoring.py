"""Which digit stands in which box: scenes of digits, a reader of them, and what a picture of a scene is scored by.

The reader is a small classifier of what a box holds, cut to its ink and centred as MNIST's digits are, so that it reads
every size alike; it is fitted on real training digits, and on rubbish (pieces of digits, digits run together, blots),
which it is to read as no digit. It knows nothing of the diffusion model. Its accuracy is measured on test digits at the
sizes used.

A box's region of influence is all pixels nearer to it than to any other box; the ink of an element is the ink there.

| score | of | is |
| --- | --- | --- |
| right     | an element | its box is read as the class asked for |
| iou       | an element | box around its ink, over its box: area shared by both over area of either |
| neglected | an element | its box is read as no digit, or holds hardly any ink |
| leakage   | a picture  | share of the ink, by brightness, that is outside all boxes |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from placement_data import BLANK, INK, SIDE, SIZES, Corners, Digits, Grey, ink_box, scaled
from safetensors.torch import load_file, save_file

from neblina.data.pictures import InMemory
from neblina.evaluation.classifier import ClassifierFeatures, SmallClassifier, fit_classifier

HEIGHTS, WIDTHS = (36, 48), (28, 48)  # of boxes, pixels: any training digit fits
CANVAS = (56, 112)  # sides of canvases, multiples of 8
SPECK = 10  # a box with fewer pixels of ink than this holds nothing
READ = 28  # side of what the reader is given
CLASSES = (*"0123456789", "none")


@dataclass(frozen=True)
class Element:
    """What is asked for: a digit of this class in this box."""

    label: int
    box: Corners

    @property
    def longer(self) -> int:
        """The longer side of the box."""
        x0, y0, x1, y1 = self.box
        return max(x1 - x0, y1 - y0)


@dataclass(frozen=True)
class Asked:
    """A scene.

    Attributes:
        size: (height, width) of the canvas.
        elements: two to four; their boxes do not overlap.
    """

    size: tuple[int, int]
    elements: tuple[Element, ...]


@dataclass(frozen=True)
class Found:
    """The scores of one element in one picture.

    Attributes:
        element: that was asked for.
        read: class that its box is read as; BLANK for no digit.
        iou: of its ink's box and its own; 0 without ink.
        neglected: whether there is no digit.
    """

    element: Element
    read: int
    iou: float
    neglected: bool

    @property
    def right(self) -> bool:
        """The class asked for, in the box asked for."""
        return self.read == self.element.label and not self.neglected


@dataclass(frozen=True)
class Scored:
    """The scores of one picture of a scene."""

    elements: tuple[Found, ...]
    leakage: float


def random_scenes(count: int, seed: int) -> list[Asked]:
    """Scenes of 2 to 4 digits on canvases of 56x56 to 112x112; the k-th depends on (seed, k) alone."""
    return [_scene(np.random.Generator(np.random.Philox(key=[seed, number]))) for number in range(count)]


def _scene(random: np.random.Generator) -> Asked:
    while True:
        height, width = (8 * int(side) for side in random.integers(CANVAS[0] // 8, CANVAS[1] // 8 + 1, 2))
        wanted, elements = int(random.integers(2, 5)), list[Element]()
        for _ in range(100):
            h = int(random.integers(HEIGHTS[0], HEIGHTS[1] + 1))
            w = int(np.clip(round(h * random.uniform(0.75, 1.1)), *WIDTHS))
            if h > height or w > width:
                continue
            x, y = int(random.integers(width - w + 1)), int(random.integers(height - h + 1))
            box = (x, y, x + w, y + h)
            if not any(_shared(box, one.box) for one in elements):
                elements.append(Element(int(random.integers(10)), box))
            if len(elements) == wanted:
                return Asked((height, width), tuple(elements))


def drawn(scene: Asked, digits: Digits, random: np.random.Generator) -> Grey:
    """A picture of a scene made of real digits: what a perfect model would make.

    Their sizes are those of a digit on a training canvas, given that it lies in the box: a longer side of s pixels is
    as probable as the share of the places on the canvas that are in the box.
    """
    canvas = np.zeros(scene.size, np.uint8)
    for element in scene.elements:
        x0, y0, x1, y1 = element.box
        digit = digits.pixels[random.choice(np.flatnonzero(digits.labels == element.label))]
        shapes = {longer: scaled(digit, longer).shape for longer in range(SIZES[0], min(SIZES[1], element.longer) + 1)}
        room = {s: max(0, x1 - x0 - w + 1) * max(0, y1 - y0 - h + 1) for s, (h, w) in shapes.items()}
        odds = np.array([room[s] / ((SIDE - w + 1) * (SIDE - h + 1)) for s, (h, w) in shapes.items()])
        longer = int(random.choice(list(shapes), p=odds / odds.sum()))
        ink = scaled(digit, longer)
        h, w = ink.shape
        x, y = x0 + int(random.integers(x1 - x0 - w + 1)), y0 + int(random.integers(y1 - y0 - h + 1))
        canvas[y : y + h, x : x + w] = ink
    return canvas


def scored(scenes: Sequence[Asked], pictures: Sequence[Grey], reader: ClassifierFeatures) -> list[Scored]:
    """Scores of a picture of each scene, read together."""
    crops = [seen(picture, one.box) for scene, picture in zip(scenes, pictures, strict=True) for one in scene.elements]
    reads = iter(reader.classify(torch.from_numpy(np.stack(crops))[:, None]).tolist())
    made = []
    for scene, picture in zip(scenes, pictures, strict=True):
        regions, found = influence(scene), []
        for number, element in enumerate(scene.elements):
            x0, y0, x1, y1 = element.box
            specks = int((picture[y0:y1, x0:x1] >= INK).sum())
            said = next(reads)
            read = said if specks >= SPECK else BLANK
            around = ink_box(np.where(regions == number, picture, 0).astype(np.uint8))
            iou = 0.0 if around is None else _over(around, element.box)
            found.append(Found(element, read, iou, read == BLANK))
        made.append(Scored(tuple(found), leakage(scene, picture)))
    return made


def leakage(scene: Asked, picture: Grey) -> float:
    """Share of a picture's ink, by brightness, outside all boxes; 0 for a picture without ink."""
    ink = np.where(picture >= INK, picture, 0).astype(np.float64)
    inside = np.zeros(scene.size, bool)
    for element in scene.elements:
        x0, y0, x1, y1 = element.box
        inside[y0:y1, x0:x1] = True
    return float(ink[~inside].sum() / ink.sum()) if ink.any() else 0.0


def influence(scene: Asked) -> np.ndarray:
    """The number of the nearest box to each pixel, shape (H, W)."""
    y, x = np.mgrid[: scene.size[0], : scene.size[1]]
    away = []
    for element in scene.elements:
        x0, y0, x1, y1 = element.box
        away.append(
            np.hypot(np.maximum(np.maximum(x0 - x, x - x1 + 1), 0), np.maximum(np.maximum(y0 - y, y - y1 + 1), 0))
        )
    return np.argmin(away, axis=0)


def seen(picture: Grey, box: Corners) -> Grey:
    """What a box holds as the reader is shown it: cut to its ink, longer side 20 pixels, in the middle of 28x28."""
    x0, y0, x1, y1 = box
    crop = picture[y0:y1, x0:x1]
    around = ink_box(crop)
    shown = np.zeros((READ, READ), np.uint8)
    if around is not None:
        left, top, right, bottom = around
        ink = scaled(crop[top:bottom, left:right], 20)
        h, w = ink.shape
        y, x = (READ - h) // 2, (READ - w) // 2
        shown[y : y + h, x : x + w] = ink
    return shown


def _over(one: Corners, other: Corners) -> float:
    shared = _shared(one, other)
    return shared / (_area(one) + _area(other) - shared)


def _shared(one: Corners, other: Corners) -> int:
    x0, y0, x1, y1 = np.maximum(one, other)[:2].tolist() + np.minimum(one, other)[2:].tolist()
    return max(0, x1 - x0) * max(0, y1 - y0)


def _area(box: Corners) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def reader_of(folder: Path, digits: Digits, *, images: int = 240_000) -> ClassifierFeatures:
    """The reader: from its file in a folder, or fitted on training digits and written there."""
    place, name = folder / "reader.safetensors", "scattered digits"
    if place.exists():
        net = SmallClassifier(1, len(CLASSES))
        net.load_state_dict(load_file(place))
        return ClassifierFeatures(f"small-classifier-64@{name}", net.eval().requires_grad_(False))
    reader = fit_classifier(reading_matter(digits, seed=1), name, images=images)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in reader.net.state_dict().items()}, place)
    return reader


def reading_matter(digits: Digits, seed: int, *, rubbish: float = 0.15) -> InMemory:
    """What the reader is fitted on and tested with: every digit once at a size used, and rubbish on top."""
    random = np.random.Generator(np.random.Philox(key=seed))
    crops, labels = [], []
    for digit, label in zip(digits.pixels, digits.labels, strict=True):
        crops.append(_shown(scaled(digit, int(random.integers(SIZES[0], SIZES[1] + 1)))))
        labels.append(int(label))
    for _ in range(round(rubbish * len(digits.labels))):
        crops.append(_shown(_rubbish(digits, random)))
        labels.append(BLANK)
    return InMemory(torch.from_numpy(np.stack(crops))[:, None], torch.tensor(labels), CLASSES)


def _shown(ink: Grey) -> Grey:
    return seen(ink, (0, 0, ink.shape[1], ink.shape[0]))


def _rubbish(digits: Digits, random: np.random.Generator) -> Grey:
    """A piece of a digit, two digits side by side or on top of one another, a blot, or nothing."""
    one, other = (
        scaled(digits.pixels[n], int(random.integers(*SIZES))) for n in random.integers(len(digits.labels), size=2)
    )
    height, width = one.shape
    kind = random.choice(["piece", "pair", "blot", "nothing"], p=[0.35, 0.35, 0.25, 0.05])
    if kind == "piece":  # a corner or an edge, as of a digit that stands mostly outside
        h, w = max(3, round(height * random.uniform(0.2, 0.5))), max(3, round(width * random.uniform(0.2, 0.6)))
        y, x = int(random.integers(height - h + 1)) if height >= h else 0, int(random.integers(max(1, width - w + 1)))
        return np.ascontiguousarray(one[y : y + h, x : x + w])
    if kind == "pair":
        other = scaled(other, int(max(6, max(one.shape) * random.uniform(0.5, 1.0))))
        shape = (max(height, other.shape[0]), width + other.shape[1])
        both = np.zeros(shape, np.uint8)
        both[:height, :width] = one
        x = int(random.integers(width // 2, width + 1))
        place = both[shape[0] - other.shape[0] :, x : x + other.shape[1]]
        np.maximum(place, other, out=place)
        return both
    side = int(random.integers(8, SIZES[1]))
    if kind == "nothing":
        return np.zeros((side, side), np.uint8)
    coarse = (random.random((int(random.integers(2, 6)), int(random.integers(2, 6)))) ** 2 * 255).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC), np.uint8)
