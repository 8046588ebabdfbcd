"""A tokenizer learned from texts is CLIP's in all but its vocabulary."""

from pathlib import Path

import pytest
import torch

from neblina.core.errors import DataError, SettingError
from neblina.encoders.learning import BYTES, check_tokenizer, learn_tokenizer, new_text_encoder
from neblina.encoders.tokens import load_tokenizer, make_tokenizer

TEXTS = ["red apple", "green apple", "red boat", "a cat: medium-light skin tone"] * 3
SAID = ["red apple", "Red  APPLE, it's 2 boats!", "été ☃ apple", "", "zebra"]


def test_transformers_reads_it_and_cuts_the_same_tokens(tmp_path: Path) -> None:
    from transformers import CLIPTokenizer, CLIPTokenizerFast

    tokenizer = learn_tokenizer(TEXTS, 600, 12)
    tokenizer.save(tmp_path)
    for peer in (CLIPTokenizer.from_pretrained(tmp_path), CLIPTokenizerFast.from_pretrained(tmp_path)):
        assert peer.model_max_length == 12
        for text in SAID:
            theirs = peer(text, padding="max_length", truncation=True)["input_ids"]
            assert tokenizer.window_of(tokenizer.cut(text)[0][:10], 12) == theirs
    assert load_tokenizer(tmp_path).cut(SAID[1]) == tokenizer.cut(SAID[1])


def test_what_often_stands_together_is_one_token() -> None:
    tokenizer = learn_tokenizer(TEXTS, 600, 12)
    assert len(tokenizer.cut("red apple")[0]) == 2
    assert len(tokenizer.cut("zebra")[0]) > 1
    assert BYTES < tokenizer.size <= 600


def test_a_tokenizer_is_printed_without_its_vocabulary() -> None:
    assert len(repr(learn_tokenizer(TEXTS, 600, 12))) < 100


def test_sizes_without_room_and_texts_without_words_are_refused() -> None:
    with pytest.raises(SettingError, match="514 are bytes"):
        learn_tokenizer(TEXTS, 514, 12)
    with pytest.raises(SettingError, match="3 or more"):
        learn_tokenizer(TEXTS, 600, 2)
    with pytest.raises(DataError, match="no word"):
        learn_tokenizer(["a", "b c"], 600, 12)


def test_a_tokenizer_to_which_every_caption_is_unknown_is_refused() -> None:
    pieces = {"vocab.txt": "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "apple"])}
    foreign = make_tokenizer(pieces, "word pieces")
    check_tokenizer(foreign, ["boat", "apple"])
    with pytest.raises(DataError, match="no piece of any caption"):
        check_tokenizer(foreign, ["boat", "cat"])


def test_an_encoder_reads_the_windows_of_its_tokenizer() -> None:
    torch.manual_seed(0)
    encoder = new_text_encoder(learn_tokenizer(TEXTS, 600, 12), width=16, layers=2, heads=2)
    tokens = torch.tensor([encoder.tokenizer.window_of(encoder.tokenizer.cut("red apple")[0], 12)])
    assert encoder.read(tokens).last.shape == (1, 12, 16)
    assert encoder.window == 12
    assert encoder.mismatch is None
    with pytest.raises(SettingError, match="not divided by 3 heads"):
        new_text_encoder(encoder.tokenizer, width=16, layers=1, heads=3)


def test_the_blocks_of_an_untrained_encoder_do_not_drown_a_word() -> None:
    """Another word, or the same one elsewhere, is another vector by a good part of its length."""
    torch.manual_seed(0)
    encoder = new_text_encoder(learn_tokenizer(TEXTS, 600, 12), width=64, layers=3, heads=2)
    texts = ("red apple", "green apple", "a red apple")
    windows = [encoder.tokenizer.window_of(encoder.tokenizer.cut(text)[0], 12) for text in texts]
    red, green, later = encoder.read(torch.tensor(windows)).last
    assert float((red[1] - green[1]).norm() / red[1].norm()) > 1
    assert float((red[1] - later[2]).norm() / red[1].norm()) > 0.2
