"""Weights and pieces by identities: what changes nothing changes no bit, and the rest is its formula."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle import LONG, bert_tokenizer, clip, opened
from torch import Tensor

from neblina.core.conditions import Wants
from neblina.core.errors import SettingError
from neblina.encoders.families import SDXL, SDXL_REFINER, STABLE_DIFFUSION, Framing, encode_prompts
from neblina.encoders.prompts import Piece, PromptCut, pieces_of
from neblina.encoders.text import TextEncoder
from neblina.encoders.tokens import load_tokenizer

FRAMING = Framing((64, 64), (64, 64))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    place = tmp_path_factory.mktemp("model")
    clip(place)
    return opened(place)


@pytest.fixture(scope="module")
def projected(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    place = tmp_path_factory.mktemp("projected")
    clip(place, projected=True, pad="!", seed=3)
    return opened(place)


def text(encoder: TextEncoder, prompts: Sequence[str], **settings: Any) -> Tensor:
    encoded = encode_prompts(STABLE_DIFFUSION, [encoder], prompts, **settings).text
    assert encoded is not None
    return encoded


# -- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["a (red:1) boat", "((a red:1.0) boat:1)", "(a:1) (red boat:1)"])
def test_a_weight_of_one_changes_no_bit(encoder: TextEncoder, prompt: str) -> None:
    assert torch.equal(text(encoder, [prompt]), text(encoder, ["a red boat"]))


def test_a_weight_moves_its_token_away_from_the_empty_prompt(encoder: TextEncoder) -> None:
    plain, empty = text(encoder, ["the red cat"])[0], text(encoder, [""])[0]
    weighted = text(encoder, ["the (red:1.5) cat"])[0]
    tokens, spans = encoder.tokenizer.cut("the red cat")
    red = 1 + [("the red cat"[begin:end]) for begin, end in spans].index("red")
    assert torch.allclose(weighted[red], empty[red] + 1.5 * (plain[red] - empty[red]), atol=1e-6)
    others = [row for row in range(len(plain)) if row != red]
    assert torch.equal(weighted[others], plain[others])
    assert len(tokens) == 3


def test_a_weight_of_zero_says_nothing(encoder: TextEncoder) -> None:
    silent, empty = text(encoder, ["(the red cat:0)"])[0], text(encoder, [""])[0]
    assert torch.allclose(silent[1:4], empty[1:4], atol=1e-6)


def test_weights_reach_every_piece_the_negative_prompt_and_no_pooled_vector(
    encoder: TextEncoder, projected: TextEncoder
) -> None:
    heavy = f"{LONG} (red:2)"
    assert not torch.equal(text(encoder, [heavy], long="chunk"), text(encoder, [LONG + " red"], long="chunk"))
    encoded = encode_prompts(SDXL, [encoder, projected], ["the (cat:2)"], "(a:1.4) cat", framing=FRAMING, clip_skip=1)
    plain = encode_prompts(SDXL, [encoder, projected], ["the cat"], "a cat", framing=FRAMING, clip_skip=1)
    assert encoded.pooled is not None
    assert plain.pooled is not None
    assert torch.equal(encoded.pooled, plain.pooled)
    assert encoded.unsaid is not None
    assert encoded.unsaid.text is not None
    assert plain.unsaid is not None
    assert plain.unsaid.text is not None
    moved = (encoded.unsaid.text != plain.unsaid.text).any(-1)[0]
    assert moved.nonzero().flatten().tolist() == [1]


def test_a_weight_inside_a_token_is_refused(encoder: TextEncoder) -> None:
    with pytest.raises(SettingError, match="inside 'cat'"):
        text(encoder, ["a c(at:1.3)"])
    assert torch.equal(text(encoder, ["a c(at:1)"]), text(encoder, ["a cat"]))


# -- long prompts ----------------------------------------------------------------------------------------------------


def test_a_long_prompt_is_refused_with_what_would_be_lost(encoder: TextEncoder) -> None:
    prompt = "red " * 75 + "and a small red boat"
    with pytest.raises(SettingError, match="reads 77") as refused:
        text(encoder, [prompt])
    assert 'Cut from: "… and a small red boat"' in str(refused.value)
    assert "--long-prompt chunk" in str(refused.value)
    with pytest.raises(SettingError, match="Cut from"):
        text(encoder, ["a cat"], negative=prompt)


def test_a_long_negative_prompt_is_called_one(encoder: TextEncoder) -> None:
    for negative in (LONG, ["", LONG]):
        with pytest.raises(SettingError, match=r"^the negative prompt is .* tokens long"):
            encode_prompts(STABLE_DIFFUSION, [encoder], ["a boat", "a cat"], negative)
    with pytest.raises(SettingError, match=r"^the prompt is .* tokens long"):
        encode_prompts(STABLE_DIFFUSION, [encoder], [LONG], LONG)


def test_a_prompt_that_just_fits_is_neither_refused_nor_cut(encoder: TextEncoder) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fits = [text(encoder, ["red " * 75], long=long) for long in ("refuse", "cut", "chunk")]
    assert torch.equal(fits[0], fits[1])
    assert torch.equal(fits[0], fits[2])
    with pytest.raises(SettingError, match="78 tokens"):
        text(encoder, ["red " * 76])


def test_a_cut_prompt_is_its_beginning_and_says_so(encoder: TextEncoder) -> None:
    with pytest.warns(PromptCut, match='reads 77. Cut from: "… cat cat"'):
        cut = text(encoder, ["red " * 75 + "cat cat"], long="cut")
    assert torch.equal(cut, text(encoder, ["red " * 75]))


def test_what_is_cut_is_not_read_out_at_any_length(encoder: TextEncoder) -> None:
    with pytest.raises(SettingError) as refused:
        text(encoder, [LONG * 20])
    assert len(str(refused.value)) < 400


def test_chunking_a_short_prompt_changes_no_bit(encoder: TextEncoder) -> None:
    assert torch.equal(text(encoder, ["a red boat"], long="chunk"), text(encoder, ["a red boat"]))


def test_two_pieces_are_each_read_alone(encoder: TextEncoder) -> None:
    first, second = "red " * 75, "the (cat:1.5) on the sea"
    both = text(encoder, [first + second], long="chunk")
    assert both.shape == (1, 154, 16)
    alone = torch.cat([text(encoder, [first]), text(encoder, [second])], dim=1)
    assert (both - alone).abs().max() <= 1e-5


def test_a_prompt_in_pieces_makes_no_other_longer(encoder: TextEncoder, projected: TextEncoder) -> None:
    """Taken by itself, each is what it is when nothing else is encoded."""
    prompts = ["a cat", "red " * 160, "red " * 80]
    settings: dict[str, Any] = {"long": "chunk", "framing": FRAMING}
    together = encode_prompts(SDXL, [encoder, projected], prompts, "ugly", **settings)
    assert together.lengths is not None
    assert together.lengths.tolist() == [77, 3 * 77, 2 * 77]
    assert together.unsaid is not None
    assert together.structure == together.unsaid.structure
    wants = Wants(text=32, pooled=16, sizes=6)
    with pytest.raises(SettingError, match="of several lengths"):
        wants.check(together)
    for row, prompt in enumerate(prompts):
        taken, alone = (
            together.take(torch.tensor([row])),
            encode_prompts(SDXL, [encoder, projected], [prompt], "ugly", **settings),
        )
        wants.check(taken)
        for one, other in ((taken, alone), (taken.unsaid, alone.unsaid)):
            assert one is not None
            assert other is not None
            assert one.lengths is None
            assert one.structure == other.structure
            assert all((value - other.given[name]).abs().max() <= 1e-5 for name, value in one.given.items())
    both = together.take(torch.tensor([2, 0]))
    assert both.lengths is not None
    assert both.lengths.tolist() == [2 * 77, 77]
    assert both.text is not None
    assert both.text.shape == (2, 2 * 77, 32)


def test_a_long_negative_prompt_lengthens_the_prompt(encoder: TextEncoder) -> None:
    encoded = encode_prompts(STABLE_DIFFUSION, [encoder], ["a cat"], LONG, long="chunk")
    assert encoded.unsaid is not None
    assert encoded.structure == encoded.unsaid.structure
    assert dict(encoded.structure)["text"][0] > 77


def test_the_whole_texts_vector_is_that_of_the_first_piece(projected: TextEncoder) -> None:
    first, second = "red " * 75, "the cat"
    refined = [
        encode_prompts(SDXL_REFINER, [projected], [prompt], long="chunk", framing=FRAMING).pooled
        for prompt in (first + second, first)
    ]
    assert refined[0] is not None
    assert refined[1] is not None
    assert (refined[0] - refined[1]).abs().max() <= 1e-5


def test_nothing_said_without_a_negative_prompt_is_zeros_of_the_same_length(
    encoder: TextEncoder, projected: TextEncoder
) -> None:
    encoded = encode_prompts(SDXL, [encoder, projected], [LONG], long="chunk", framing=FRAMING)
    assert encoded.unsaid is not None
    assert encoded.structure == encoded.unsaid.structure


def test_equal_prompts_are_equal_rows(encoder: TextEncoder) -> None:
    encoded = text(encoder, ["a cat", "the sea", "a cat"])
    assert torch.equal(encoded[0], encoded[2])
    assert not torch.equal(encoded[0], encoded[1])


def test_pieces_are_cut_with_their_weights(tmp_path: Path) -> None:
    bert_tokenizer(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    a, red = tokenizer.cut("a red")[0]
    assert pieces_of("a (red:2) a (a red:3)", tokenizer, 5, "chunk") == [
        Piece((a, red, a), (1.0, 2.0, 1.0)),
        Piece((a, red), (3.0, 3.0)),
    ]
    assert pieces_of("", tokenizer, 5) == [Piece()]
