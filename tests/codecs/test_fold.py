"""The codec without weights: it moves numbers and changes none, in a model as outside of one."""

from pathlib import Path

import pytest
import torch

import neblina
from neblina.bundle.files import CARD, read_json
from neblina.bundle.folder import load_bundle, save_bundle
from neblina.codecs.fold import Fold
from neblina.core.conditions import NULL_LABEL
from neblina.core.errors import CheckpointError, SettingError
from neblina.data.pictures import InMemory
from neblina.evaluation.likelihood import How, likelihood
from neblina.guidance.operators import AveragePool
from neblina.tasks.held import Held
from neblina.tasks.inverse import restore
from neblina.tasks.metrics import LikelihoodResult, metrics
from neblina.training.build import new_model
from neblina.training.recipe import Recipe, build_recipe
from neblina.training.trainer import Trainer


def _recipe(**training: object) -> Recipe:
    network = {"channels": [8, 16], "attention": 4, "groups": 4, "head_dim": None, "blocks": 1, "fold": 2}
    return build_recipe({"network": network, "training": {"batch": 4, "images": 8, **training}}, "here")


def _pictures() -> InMemory:
    drawn = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (8, 3, 16, 24), generator=drawn, dtype=torch.uint8)
    return InMemory(pixels, torch.arange(8) % 2, ("a", "b"))


@pytest.mark.parametrize("factor", [2, 4])
def test_decoding_is_the_inverse_and_every_number_is_kept(factor: int) -> None:
    codec, pictures = Fold(3, factor), _pictures().pixels.float()
    cells = codec.encode(pictures)
    assert cells.shape == (8, codec.channels, 16 // factor, 24 // factor)
    assert torch.equal(codec.decode(cells), pictures)
    assert torch.equal(cells.flatten().sort().values, pictures.flatten().sort().values)


def test_a_cell_holds_the_pixels_of_one_square() -> None:
    pictures = torch.zeros(1, 1, 4, 6)
    pictures[0, 0, 2:4, 4:6] = 1
    cells = Fold(1, 2).encode(pictures)
    assert torch.equal(cells[0, :, 1, 2], torch.ones(4))
    assert cells.sum() == 4


def test_a_trained_model_makes_pictures_of_the_size_it_was_shown(tmp_path: Path) -> None:
    trainer = Trainer(_recipe(), _pictures(), device="cpu")
    seen = trainer.examples(0)
    assert seen.x0.shape == (4, 12, 8, 12)
    trainer.advance()
    assert trainer.preview().shape == (8, 3, 16, 24)
    save_bundle(trainer.bundle, tmp_path / "model")
    model = neblina.load(tmp_path / "model", device="cpu")
    assert model.shape == (3, 16, 24)
    assert model.generate(n=1, steps=2).shape == (1, 3, 16, 24)
    assert read_json(tmp_path / "model" / CARD)["fold"] == 2


def test_it_is_trained_on_the_pictures_folded() -> None:
    plain = build_recipe({"network": {"channels": [8, 16], "groups": 4, "head_dim": None}}, "here")
    plain = plain.model_copy(update={"training": _recipe().training})
    folded = Trainer(_recipe(), _pictures(), device="cpu").examples(0)
    assert torch.equal(Fold(3, 2).decode(folded.x0), Trainer(plain, _pictures(), device="cpu").examples(0).x0)


def test_a_fold_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="15x16 cannot be folded 2 by 2"):
        new_model(_recipe(), InMemory(torch.zeros(4, 1, 16, 15, dtype=torch.uint8)))
    with pytest.raises(SettingError, match="not 1"):
        Fold(1, 1)
    save_bundle(new_model(_recipe(), _pictures()), tmp_path / "model")
    card = tmp_path / "model" / CARD
    card.write_text(card.read_text().replace('"fold": 2', '"fold": 5'))
    with pytest.raises(CheckpointError, match=r"fold = 5.*12 channels"):
        load_bundle(tmp_path / "model")


def test_bits_per_dimension_are_those_of_the_folded_numbers(tmp_path: Path) -> None:
    save_bundle(new_model(_recipe(), _pictures()), tmp_path / "model")
    model = neblina.load(tmp_path / "model", device="cpu")
    pictures, how = _pictures(), How(("bound",), steps=4, batch=3)
    labels = torch.full((3,), NULL_LABEL)
    found = metrics["nll"](model, Held(pictures, "some", [0, 1, 2], labels), how, None)
    folded = InMemory(Fold(3, 2).fold(pictures.pixels))
    alone = likelihood(model.bundle.denoiser(), folded, [0, 1, 2], labels, how, device=torch.device("cpu"))
    assert isinstance(found, LikelihoodResult)
    assert found.found == alone


def test_a_measurement_is_not_followed_in_folded_pictures(tmp_path: Path) -> None:
    save_bundle(new_model(_recipe(), _pictures()), tmp_path / "model")
    model = neblina.load(tmp_path / "model", device="cpu")
    with pytest.raises(SettingError, match="pictures themselves"):
        restore(model, torch.zeros(1, 3, 8, 12), AveragePool(2))
