"""Models of tokens are measured in bits a token, on what their training did not see."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from neblina.bundle.tokens import TokenBundle
from neblina.codecs.levels import Levels
from neblina.core.errors import DataError, SettingError
from neblina.evaluation.likelihood import How
from neblina.nets.token_config import SequenceTransformerConfig
from neblina.nets.token_transformer import TokenTransformer
from neblina.processes.kernels import absorbing
from neblina.tasks.evaluate import evaluate
from neblina.tasks.token_model import TokenModel
from neblina.training.recipe import load_recipe

HOW = How(steps=10)


def _knowing(logits: Tensor, places: int | tuple[int, int], **parts: Any) -> TokenModel:
    """A model that believes the same of every token, whatever it sees: classes independent, of these probabilities."""
    config = SequenceTransformerConfig(len(logits) + 1, places, 2, 8, 1, num_embeds_ada_norm=10)
    net = TokenTransformer(config).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.startswith("out."):
                parameter.zero_()
        net.get_parameter("out.bias").copy_(logits)
    return TokenModel(TokenBundle(net, absorbing(len(logits)), 10, **parts), torch.device("cpu"))


def test_independent_letters_cost_their_own_information(tmp_path: Path) -> None:
    """−log2 p of each letter; the bound of the absorbing process is exact for letters that are independent."""
    (tmp_path / "some.txt").write_text("abaaabca" * 64)
    logits = torch.tensor([0.6, 0.3, 0.1]).log()
    model = _knowing(logits, 8, alphabet="abc")
    found = evaluate(model, ["nll"], tmp_path / "out", data=str(tmp_path / "some.txt"), how=HOW)
    exact = -(5 * math.log2(0.6) + 2 * math.log2(0.3) + math.log2(0.1)) / 8
    bits = json.loads(found.report.read_text())["nll"]
    assert bits["total"]["bits"] == pytest.approx(exact, abs=3 * bits["total"]["error"])
    assert bits["prior"]["bits"] < 1e-3
    assert bits["unit"] == "bits/character"
    assert "64 of 64 passages: the text of" in found.words
    assert found.pictures["nll"].exists()


def test_pixels_cost_bits_per_dimension_on_the_pictures_that_were_held_out(tmp_path: Path) -> None:
    for number in range(20):
        Image.new("L", (4, 4), 255 if number % 2 else 0).save(tmp_path / f"{number}.png")
    overrides = {"data": {"source": str(tmp_path), "holdout": 0.25}}
    card = {"recipe": load_recipe("mnist-binary", overrides).model_dump(mode="json")}
    model = _knowing(torch.zeros(2), (4, 4), codec=Levels(2), card=card)
    found = evaluate(model, ["nll"], tmp_path / "out", how=HOW)
    bits = json.loads(found.report.read_text())["nll"]
    assert (bits["rows"], bits["unit"]) == (5, "bits/dim")
    assert "held out of training" in found.words
    assert bits["total"]["bits"] == pytest.approx(1, abs=3 * bits["total"]["error"])


def test_a_few_steps_of_the_bound_are_said_to_be_an_estimate(tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text("abab" * 8)
    model = _knowing(torch.zeros(2), 4, alphabet="ab")
    found = evaluate(model, ["nll"], tmp_path / "out", data=str(tmp_path / "some.txt"), how=How(steps=10, terms=2))
    assert "from 2 of 10 steps a row" in "".join(found.results["nll"].sentences())


@pytest.mark.parametrize(
    ("how", "text", "said"),
    [
        (How(methods=("ode",)), "ab" * 8, "no ODE"),
        (How(steps=10, terms=11), "ab" * 8, r"terms 11 is not 1 … 10"),
        (HOW, "abz" * 8, "holds 'z', a letter that the model does not know"),
        (HOW, "ab", "a passage has 4"),
    ],
)
def test_what_cannot_be_measured_is_refused(how: How, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text(text)
    model = _knowing(torch.zeros(2), 4, alphabet="ab")
    with pytest.raises((SettingError, DataError), match=said):
        evaluate(model, ["nll"], tmp_path / "out", data=str(tmp_path / "some.txt"), how=how)
    with pytest.raises(SettingError, match="held out"):
        evaluate(model, ["nll"], tmp_path / "out", how=how)
