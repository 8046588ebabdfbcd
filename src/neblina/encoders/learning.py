"""A text encoder before training: a tokenizer learned from the texts, and CLIP's network with random weights.

The tokenizer is CLIP's in all but its vocabulary: bytes, and merges of what often stands together, the most frequent
first, of which the texts at hand decide.

Sennrich, Haddow, Birch. Neural Machine Translation of Rare Words with Subword Units. ACL 2016.
Radford et al. Learning Transferable Visual Models From Natural Language Supervision. ICML 2021, section 2.4.
"""

import json
from collections.abc import Iterable
from typing import Any

import torch

from neblina.core.errors import DataError, SettingError
from neblina.encoders.architectures import ARCHITECTURES
from neblina.encoders.text import TextEncoder, make_text_encoder
from neblina.encoders.tokens import Tokenizer, clip_tokenizer, clip_vocabulary

BYTES = 512  # tokens of single bytes, within a word and at its end
_SPECIAL = 2
_KIND = "CLIPTextModel"


def learn_tokenizer(texts: Iterable[str], size: int, window: int) -> Tokenizer:
    """A tokenizer with CLIP's rules whose merges are those of the texts.

    Args:
        texts: to learn from, each as often as it counts.
        size: most tokens.
        window: most tokens that are read at once, the first and the last special ones among them.
    Raises:
        SettingError: no room for a single merge, or for a single token between the special ones.
        DataError: texts without a word.
    """
    if size <= BYTES + _SPECIAL:
        raise SettingError(f"a tokenizer of {size} tokens holds no word: {BYTES + _SPECIAL} are bytes and markers")
    if window < 1 + _SPECIAL:
        raise SettingError(f"a window of {window} tokens has no room between its two markers: give 3 or more")
    from tokenizers import pre_tokenizers, trainers

    words = clip_tokenizer(clip_vocabulary(()), (), window=window).words
    trainer = trainers.BpeTrainer(
        vocab_size=size - _SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    words.train_from_iterator(texts, trainer)
    learned = json.loads(words.to_str())["model"]["merges"]
    merges = [(left, right) for left, right in learned][: size - BYTES - _SPECIAL]
    if not merges:
        raise DataError("the captions hold no word of two letters, so there is nothing to learn a tokenizer from")
    return clip_tokenizer(clip_vocabulary(merges), merges, window=window)


def check_tokenizer(tokenizer: Tokenizer, texts: Iterable[str]) -> None:
    """Refuse a tokenizer to which the texts say nothing.

    Raises:
        DataError: it makes of every text none but its token for what it does not know, or nothing at all.
    """
    model = json.loads(tokenizer.words.to_str())["model"]
    unknown = tokenizer.words.token_to_id(str(model.get("unk_token")))
    for text in texts:
        if any(token != unknown for token in tokenizer.cut(text)[0]):
            return
    raise DataError(
        "the tokenizer knows no piece of any caption, so every prompt would be the same to the model: it is of another "
        "language or another model's"
    )


def new_text_encoder(tokenizer: Tokenizer, *, width: int, layers: int, heads: int) -> TextEncoder:
    """CLIP's text network with random weights from torch's generator.

    Raises:
        SettingError: a width that the heads do not divide.
    """
    if width % heads:
        raise SettingError(f"a text of width {width} is not divided by {heads} heads (text.width, text.heads)")
    config: dict[str, Any] = {
        "architectures": [_KIND],
        "model_type": "clip_text_model",
        "vocab_size": tokenizer.size,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": tokenizer.window,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "projection_dim": width,
        "bos_token_id": tokenizer.begin,
        "eos_token_id": tokenizer.end,
        "pad_token_id": tokenizer.pad,
    }
    net = ARCHITECTURES[_KIND].build(config)
    for name, parameter in net.named_parameters():
        if (
            "embedding" in name
        ):  # CLIP's 0.02 and 0.01, at which the blocks of a small encoder drown a word (docs/log.md)
            torch.nn.init.normal_(parameter, std=0.5 if "position" in name else 1.0)
    weights = {name: value.detach().clone() for name, value in net.state_dict().items()}
    return make_text_encoder(config, weights, tokenizer, dtype=torch.float32)
