"""What can be wrong is caught before sampling: at least 95 of 100, the rest by name."""

from pathlib import Path

import pytest
from carried_out import CAUGHT, SAID, Outcome, outcomes, page, share
from sabotages import KEY, MODELS, REQUESTS, SABOTAGES

SLIPS = {"U-Net: attention_head_dim", "U-Net: a square weight transposed"}
ONLY_SAID = {"a mask thinner than a latent cell"}

pytestmark = pytest.mark.timeout(1200)  # all are carried out before the first test: long, on a busy machine


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    return outcomes(tmp_path_factory.mktemp("sabotage"))


@pytest.mark.slow
def test_at_least_95_of_100_sabotages_are_caught_before_sampling(found: dict[str, Outcome]) -> None:
    assert len(found) == len(MODELS) + len(REQUESTS) == len(SABOTAGES) >= 60
    assert {name for name, one in found.items() if one.how == SAID} == ONLY_SAID
    assert {name for name, one in found.items() if one.how not in (*CAUGHT, SAID)} == SLIPS
    assert share(found) >= 0.95


@pytest.mark.slow
def test_whatever_is_caught_is_caught_by_what_is_wrong(found: dict[str, Outcome]) -> None:
    """A sabotage may be refused for the wrong reason: each says a word of its own deed."""
    for name, word in WORDS.items():
        assert word in found[name].sentence, (name, found[name])


WORDS = {
    "U-Net: a misspelt key": "cross_attention_dims",
    "model_index: a misspelt component": "a component of that name",
    "scheduler: betas of DDPM": "scaled-linear",
    "a trained eps network, said to predict v": "it predicts eps",
    "a trained v network, said to predict eps": "it predicts v",
    "a trained x0 network, said to predict eps": "it predicts x0",
    "saved here: another prediction in the scheduler's file": "delete neblina.json",
    "saved here: another scheduler put in": "EulerDiscreteScheduler",
    "VAE: overflows in float16": "float16 overflowed",
    "VAE: scaling_factor ten times too large": "scaling_factor",
    "text encoder of another vocabulary": "one of them is another model's",
    "tokenizer of another vocabulary": "a BertTokenizer",
    "U-Net: a weight quantised to int8": f"{KEY} is int8",
    "text encoder: all weights quantised to int8": "is int8",
    "weights: a pickle in disguise": "a pickle",
    "shards: the index points out of the folder": "../outside",
    "upscaler: without its scheduler of small pictures": "low_res_scheduler",
    "an inpainting model asked to generate": "use inpaint",
    "an upscaler asked to inpaint": "use upscale",
    "a label whose name two classes have": "labels 0 and 1",
    "outpainting to many times the model's size": "extend it by less",
    "a photo in place of a single file": "is no checkpoint",
    "a negative prompt too long": "the negative prompt is",
    "a setting that the sampler has not": "churn",
    "a label out of range": "1001",
    "U-Net: a size of less than nothing": "sample_size = -8",
    "U-Net: a size of no model": "200000x200000",
    "pictures of a model whose own size is a slip": "say which size to make",
    "U-Net: a width that is a word": "block_out_channels",
    "a mask thinner than a latent cell": "Widen the mask",
}


@pytest.mark.slow
def test_the_page_is_of_these_outcomes(found: dict[str, Outcome]) -> None:
    """Made by `python benchmarks/checks.py`."""
    assert page(found) == (Path(__file__).parents[2] / "docs" / "checks.md").read_text(encoding="utf-8")
