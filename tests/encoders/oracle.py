"""Small text encoders as transformers makes and saves them, and the tokenizers they go with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import BertTokenizer, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from neblina.bundle.components import Opening
from neblina.bundle.texts import read_text_encoder
from neblina.encoders.text import TextEncoder
from neblina.encoders.tokens import load_tokenizer

START, STOP = "<|startoftext|>", "<|endoftext|>"
PROMPTS = [
    "",
    "a red boat",
    "A  Photo of\tthe   CAT's naïve café, isn't it?!!!",
    "an emoji 🦊 and 1234 ﬁne ｗｉｄｅ letters – 東京",
    "they'll've done it; I'd'nt  ",
    "<|endoftext|> inside <|startoftext|>",
    "!!! hello ! world!",
    "e\u0301 combining, \u00a0no-break\u200b zero",
]
LONG = "a very long prompt about a small red boat on the sea, with many other boats, " * 9


def small_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Every byte, and the merges that make a few words."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(code) for code in visible] + [chr(256 + number) for number in range(256 - len(visible))]
    merges = [("a", "t</w>"), ("c", "at</w>"), ("o", "a"), ("b", "oa"), ("boa", "t</w>"), ("r", "e"), ("re", "d</w>")]
    merges += [("t", "h"), ("th", "e</w>"), ("!", "!"), ("!!", "!</w>"), ("s", "m"), ("sm", "a"), ("l", "l</w>")]
    merges += [("sma", "ll</w>")]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *(a + b for a, b in merges), START, STOP]
    return {token: number for number, token in enumerate(tokens)}, merges


def clip_tokenizer(place: Path, pad: str = STOP) -> CLIPTokenizer:
    vocabulary, merges = small_vocabulary()
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad, model_max_length=77)
    tokenizer.save_pretrained(place)
    return tokenizer


def bert_tokenizer(place: Path, **settings: Any) -> BertTokenizer:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "boat", "cat", "##s", "cafe", "café", "!", "'"]
    words += ["small", "on", "the", "sea", ",", "1", "##2", "東", "s", "very", "long", "e"]
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(words)}, **settings)
    tokenizer.save_pretrained(place)
    return tokenizer


def clip_config(**changes: Any) -> CLIPTextConfig:
    vocabulary, _ = small_vocabulary()
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    ends = {"vocab_size": len(vocabulary), "bos_token_id": len(vocabulary) - 2, "eos_token_id": len(vocabulary) - 1}
    return CLIPTextConfig(**{**sizes, **ends, "projection_dim": 16, **changes})


def loud(make: Callable[[], Any], seed: int) -> Any:
    """Weights large enough that every part of the network shows in its output, the norms' included."""
    torch.manual_seed(seed)
    model = make()
    for value in model.parameters():
        value.data = value.data + torch.randn_like(value) * 0.2
    return model.eval()


def clip(place: Path, seed: int = 0, projected: bool = False, pad: str = STOP, **changes: Any) -> tuple[Any, Any]:
    """transformers' model and tokenizer, saved in `place/text_encoder` and `place/tokenizer`."""
    model = loud(lambda: (CLIPTextModelWithProjection if projected else CLIPTextModel)(clip_config(**changes)), seed)
    model.save_pretrained(place / "text_encoder")
    return model, clip_tokenizer(place / "tokenizer", pad)


def opened(place: Path, **settings: Any) -> TextEncoder:
    return read_text_encoder(place / "text_encoder", load_tokenizer(place / "tokenizer"), Opening(**settings))
