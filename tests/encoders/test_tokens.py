"""Tokens are those of transformers' own tokenizers, and a tokenizer's folder comes back as it was."""

import gzip
import json
from pathlib import Path

import pytest
from oracle import LONG, PROMPTS, START, STOP, bert_tokenizer, clip_tokenizer, small_vocabulary
from transformers import AutoTokenizer, BertTokenizer, CLIPTokenizer

from neblina.core.errors import CheckpointError
from neblina.encoders import tokens
from neblina.encoders.tokens import Tokenizer, load_tokenizer, published_vocabulary

TEXTS = [
    *PROMPTS,
    LONG,
    "x" * 500,
    "\n\t",
    "1/2 50% 3.14",
    "👩‍👩‍👧‍👦 🇪🇸 ❤️",
    "Ünïcödé İstanbul ß ǅ",
    "{a|b} [c] (d:1.2)",
    "...",
]


def windows(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.window_of(tokenizer.cut(text)[0], 0)


def agree(ours: Tokenizer, theirs: CLIPTokenizer | BertTokenizer) -> None:
    for text in TEXTS:
        assert windows(ours, text) == theirs(text).input_ids, text
    padded = theirs("a boat", padding="max_length", max_length=20).input_ids
    assert ours.window_of(ours.cut("a boat")[0], 20) == padded


@pytest.fixture(scope="module")
def published() -> Path:
    """CLIP's vocabulary, where the shared data lies beside the checkout."""
    for folder in Path(__file__).resolve().parents:
        place = folder / "shared" / "data" / "clip-bpe" / "bpe_simple_vocab_16e6.txt.gz"
        if place.exists():
            return place
    pytest.skip("shared/data/clip-bpe is not beside this checkout")


@pytest.mark.parametrize("pad", [STOP, "!"])
def test_clips_tokens_are_those_of_transformers(tmp_path: Path, pad: str) -> None:
    theirs = clip_tokenizer(tmp_path, pad)
    agree(load_tokenizer(tmp_path), theirs)


@pytest.mark.parametrize("pad", [STOP, "!"])
def test_with_clips_own_vocabulary_too(published: Path, tmp_path: Path, pad: str) -> None:
    vocabulary, merges = published_vocabulary(published)
    theirs = CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad, model_max_length=77)
    agree(tokens.clip_tokenizer(vocabulary, merges, pad=pad), theirs)
    assert len(vocabulary) == 49408
    for place in (published, published.parent):
        assert windows(load_tokenizer(place), "a photo of a cat") == [49406, 320, 1125, 539, 320, 2368, 49407]


@pytest.mark.parametrize(
    "settings", [{}, {"do_lower_case": False}, {"strip_accents": False}, {"tokenize_chinese_chars": False}]
)
def test_berts_tokens_are_those_of_transformers(tmp_path: Path, settings: dict[str, bool]) -> None:
    theirs = bert_tokenizer(tmp_path, **settings)
    agree(load_tokenizer(tmp_path), theirs)


def test_bert_is_read_from_its_list_of_words(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "boat", "##s", "cafe"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    agree(load_tokenizer(tmp_path), BertTokenizer.from_pretrained(tmp_path))


def folder_of_old(place: Path, **roles: object) -> Path:
    """As the published checkpoints are: vocab.json, merges.txt and the special tokens in a file of their own."""
    vocabulary, merges = small_vocabulary()
    place.mkdir(exist_ok=True)
    (place / "vocab.json").write_text(json.dumps(vocabulary))
    (place / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)))
    flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    special = {
        "bos_token": {"content": START, **flags},
        "eos_token": {"content": STOP, **flags},
        "unk_token": {"content": STOP, **flags},
        "pad_token": "!",
        **roles,
    }
    (place / "special_tokens_map.json").write_text(json.dumps(special))
    (place / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True})
    )
    return place


def test_the_files_of_published_checkpoints_are_read(tmp_path: Path) -> None:
    agree(load_tokenizer(folder_of_old(tmp_path)), CLIPTokenizer.from_pretrained(tmp_path))


def test_added_tokens_are_read(tmp_path: Path) -> None:
    folder_of_old(tmp_path)
    size = len(small_vocabulary()[0])
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<cat-toy>": size, "quixotic": size + 1}))
    ours, theirs = load_tokenizer(tmp_path), CLIPTokenizer.from_pretrained(tmp_path)
    assert ours.size == size + 2
    for text in ("a <cat-toy>!", "Quixotic <Cat-Toy> red"):
        assert windows(ours, text) == theirs(text).input_ids
    decoder = {str(size): {"content": "<cat-toy>", "special": False, "normalized": False, "lstrip": True}}
    config = json.loads((tmp_path / "tokenizer_config.json").read_text()) | {"added_tokens_decoder": decoder}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours, theirs = load_tokenizer(tmp_path), CLIPTokenizer.from_pretrained(tmp_path)
    for text in ("a <cat-toy>!", "Quixotic <Cat-Toy> red"):
        assert windows(ours, text) == theirs(text).input_ids


def test_a_saved_tokenizer_is_the_same_to_transformers(tmp_path: Path) -> None:
    vocabulary, merges = small_vocabulary()
    ours = tokens.clip_tokenizer(vocabulary, merges, pad="!")
    ours.save(tmp_path / "made")
    agree(ours, AutoTokenizer.from_pretrained(tmp_path / "made"))
    agree(load_tokenizer(tmp_path / "made"), AutoTokenizer.from_pretrained(tmp_path / "made"))
    clip_tokenizer(tmp_path / "theirs")
    load_tokenizer(tmp_path / "theirs").save(tmp_path / "back")
    assert (tmp_path / "back/tokenizer.json").read_text() == (tmp_path / "theirs/tokenizer.json").read_text()


def test_spans_quote_the_text(tmp_path: Path) -> None:
    clip_tokenizer(tmp_path)
    text = "The  RED cat, 🦊!"
    found, spans = load_tokenizer(tmp_path).cut(text)
    assert len(found) == len(spans)
    quoted = [text[begin:end] for begin, end in spans]
    assert [word for word in quoted if word in ("The", "RED", "cat", ",")] == ["The", "RED", "cat", ","]
    assert set(quoted[-5:-1]) == {"🦊"}  # one token a byte, all of them of one character


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda place: (place / "merges.txt").unlink(), "merges.txt is missing"),
        (lambda place: (place / "vocab.json").unlink(), "vocab.json is missing"),
        (lambda place: (place / "vocab.json").write_text('{"a": 0, '), "damaged"),
        (lambda place: (place / "vocab.json").write_text('{"a": 0}'), "damaged"),
        (lambda place: (place / "merges.txt").write_text("#version: 0.2\na b c\n"), "damaged"),
        (lambda place: (place / "vocab.json").write_bytes(b"\xff\xfe"), "cannot be read"),
        (lambda place: (place / "tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokeniser"}'), "Did you"),
        (lambda place: (place / "tokenizer_config.json").write_text('{"padding_side": "left"}'), "padding_side"),
        (lambda place: (place / "tokenizer_config.json").write_text('{"split_special_tokens": true}'), "split_special"),
        (lambda place: (place / "tokenizer_config.json").write_text("[]"), "damaged"),
    ],
)
def test_a_tokenizer_that_cannot_be_read_is_refused(tmp_path: Path, break_it: object, says: str) -> None:
    folder_of_old(tmp_path)
    assert callable(break_it)
    break_it(tmp_path)
    with pytest.raises(CheckpointError, match=says) as refused:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(refused.value)


def test_a_missing_folder_and_a_wrong_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        load_tokenizer(tmp_path / "none")
    (tmp_path / "vocabulary.txt.gz").write_bytes(gzip.compress(b"version\na b\n"))
    with pytest.raises(CheckpointError, match="is not CLIP's vocabulary"):
        load_tokenizer(tmp_path / "vocabulary.txt.gz")
    (tmp_path / "vocabulary.txt.gz").write_bytes(gzip.compress(b"version\na b\n")[:-9])
    with pytest.raises(CheckpointError, match="damaged"):
        load_tokenizer(tmp_path / "vocabulary.txt.gz")
