"""What the claims about discrete diffusion are measured with: pictures, their tokens, models and a reader of digits."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from discrete_train_ar import open_net
from safetensors.torch import load_file, save_file
from torch import Tensor

from neblina.codecs.vq import VQCodec
from neblina.core.atomic import write_file
from neblina.data.holding import split
from neblina.data.pictures import Pictures, to_float, to_uint8
from neblina.data.sources import open_pictures
from neblina.evaluation.classifier import ClassifierFeatures, SmallClassifier, fit_classifier
from neblina.nets.autoregressive import AutoregressiveTransformer
from neblina.tasks.token_model import TokenModel, load_tokens

CLASSES = 10
HOLDOUT, SEED = 0.05, 0  # of the recipe mnist-tokens
AT_ONCE = 100
KINDS = ("mask-and-replace", "absorbing")  # of diffusion that are compared


@dataclass(frozen=True)
class Models:
    """What is compared: models of the same tokens, and their codec.

    Attributes:
        diffusion: by the names of their kernels.
        writer: the autoregressive network; its last label says that none is told.
    """

    diffusion: dict[str, TokenModel]
    writer: AutoregressiveTransformer

    @property
    def codec(self) -> VQCodec:
        codec = next(iter(self.diffusion.values())).bundle.codec
        assert isinstance(codec, VQCodec)
        return codec

    @torch.no_grad()
    def decoded(self, tokens: Tensor) -> Tensor:
        """uint8 pictures of tokens, int64 of shape (B, 7, 7)."""
        return torch.cat([to_uint8(self.codec.decode_codes(some)) for some in tokens.split(AT_ONCE)])

    @torch.no_grad()
    def encoded(self, pictures: Tensor) -> Tensor:
        """Tokens of uint8 pictures."""
        return torch.cat([self.codec.codes(to_float(some)) for some in pictures.split(AT_ONCE)])


def open_models(runs: Path) -> Models:
    """The models in RUNS/mask-and-replace, RUNS/absorbing and RUNS/ar."""
    return Models(
        {kind: load_tokens(runs / kind / "model", device="cpu") for kind in KINDS},
        open_net(runs / "ar"),
    )


def balanced(pictures: Pictures, count: int) -> tuple[Tensor, Tensor]:
    """Pictures, uint8 of shape (count, 1, 28, 28), classes in turn as they are sampled, and their labels."""
    assert pictures.labels is not None
    places = [(pictures.labels == label).nonzero()[:, 0].tolist() for label in range(CLASSES)]
    chosen = [places[number % CLASSES][number // CLASSES] for number in range(count)]
    return pictures.read(chosen), torch.arange(count) % CLASSES


def real_pictures(mnist: Path) -> tuple[Pictures, Pictures, Pictures]:
    """Those that were trained on, those held out of it, and the test set's."""
    training, held = split(open_pictures(str(mnist))[0], HOLDOUT, SEED)
    return training, held, open_pictures(str(next(mnist.glob("t10k-images*"))))[0]


def reader_of(folder: Path, training: Pictures) -> ClassifierFeatures:
    """A reader of digits: from its file in a folder, or fitted on training pictures and written there."""
    place, name = folder / "reader.safetensors", "MNIST"
    if place.exists():
        net = SmallClassifier(1, CLASSES)
        net.load_state_dict(load_file(place))
        return ClassifierFeatures(f"small-classifier-64@{name}", net.eval().requires_grad_(False))
    reader = fit_classifier(training, name)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in reader.net.state_dict().items()}, place)
    return reader


@dataclass
class Table:
    """Rows of a measurement in a JSON file: those that are there are not measured again."""

    place: Path

    @property
    def rows(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.place.read_text()) if self.place.exists() else {}
        return found

    def put(self, name: str, row: dict[str, Any]) -> None:
        """Keep a row, and say it."""
        rows = {**self.rows, name: row}
        write_file(self.place, lambda aside: aside.write_text(json.dumps(rows, indent=1)))
        print(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)

    def missing(self, names: Sequence[str]) -> list[str]:
        """Those that are not there yet."""
        rows = self.rows
        return [name for name in names if name not in rows]
