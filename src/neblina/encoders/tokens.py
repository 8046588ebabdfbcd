"""Tokenizers: a text as the numbers that a text encoder has vectors for.

Two kinds are read: CLIP's byte-pair encoding (`vocab.json` and `merges.txt`) and BERT's word pieces (`vocab.txt`);
either may come as one `tokenizer.json`. The pieces are found by the `tokenizers` library, around which transformers'
own classes are a shell that is slow to import; what comes out is the same, token for token.

Radford et al. Learning Transferable Visual Models From Natural Language Supervision. ICML 2021.
Sennrich, Haddow, Birch. Neural Machine Translation of Rare Words with Subword Units. ACL 2016.
Wu et al. Google's Neural Machine Translation System. 2016 (word pieces).
"""

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neblina.core.errors import CheckpointError, SettingError, choose

if TYPE_CHECKING:
    import tokenizers

_FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
_PUBLISHED = ("bpe_simple_vocab_16e6.txt.gz", "bpe_simple_vocab_16e6.txt")  # CLIP's, with the code it came with
_START, _STOP = "<|startoftext|>", "<|endoftext|>"
_FLAGS = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
# settings that change the tokens, and the one value of each that is read
_ONLY = {
    "add_bos_token": True,
    "add_eos_token": True,
    "split_special_tokens": False,
    "padding_side": "right",
    "truncation_side": "right",
}


@dataclass(frozen=True)
class Tokenizer:
    """Cuts a text into tokens, none of them special.

    Attributes:
        words: finds the pieces.
        begin, end, pad: the tokens before a text, after it, and after that up to the window.
        window: how many tokens the encoder reads at once, `begin` and `end` among them.
        files: what it was made from, by file name, and is saved as.
    """

    words: "tokenizers.Tokenizer" = field(repr=False)
    begin: int
    end: int
    pad: int
    window: int
    files: Mapping[str, str] = field(repr=False)

    @property
    def size(self) -> int:
        """One more than the largest token: how many rows an encoder's table needs."""
        return 1 + max(self.words.get_vocab().values())

    def cut(self, text: str) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
        """The tokens of a text, and where in the text each begins and ends, in characters."""
        found = self.words.encode(text, add_special_tokens=False)
        return tuple(found.ids), tuple(found.offsets)

    def window_of(self, tokens: Sequence[int], length: int) -> list[int]:
        """A window: `tokens` between `begin` and `end`, padded to `length`."""
        return [self.begin, *tokens, self.end, *[self.pad] * (length - 2 - len(tokens))]

    def save(self, folder: Path) -> None:
        """Write the files that it was read from."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in self.files.items():
            (folder / name).write_text(text, encoding="utf-8")


def load_tokenizer(place: Path) -> Tokenizer:
    """Read a tokenizer's folder, or the merges that CLIP was published with (`bpe_simple_vocab_16e6.txt.gz`), in one.

    Raises:
        CheckpointError: a file is missing, damaged, or of a tokenizer that is not read here.
    """
    if place.is_file():
        return clip_tokenizer(*published_vocabulary(place))
    if not place.is_dir():
        raise CheckpointError(f"{place} is not a tokenizer's folder: there is no such folder")
    published = [place / name for name in _PUBLISHED if (place / name).is_file()]
    if published and not any((place / name).exists() for name in _FILES):
        return clip_tokenizer(*published_vocabulary(published[0]))
    try:
        files = {name: (place / name).read_text(encoding="utf-8") for name in _FILES if (place / name).exists()}
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{place}: the tokenizer cannot be read: {error}") from error
    return make_tokenizer(files, str(place))


def clip_tokenizer(
    vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]], *, pad: str = _STOP, window: int = 77
) -> Tokenizer:
    """CLIP's tokenizer from its vocabulary; `pad` is "!" in Stable Diffusion 2 and in SDXL's second encoder."""
    special = {"bos_token": _START, "eos_token": _STOP, "unk_token": _STOP, "pad_token": pad}
    files = {
        "vocab.json": json.dumps(vocabulary, ensure_ascii=False),
        "merges.txt": "\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)]) + "\n",
        "special_tokens_map.json": json.dumps(special, indent=2),
        "tokenizer_config.json": json.dumps(
            {"tokenizer_class": "CLIPTokenizer", "model_max_length": window, **special}, indent=2
        ),
    }
    return make_tokenizer(files, "this vocabulary")


def padded_with(tokenizer: Tokenizer, pad: str) -> Tokenizer:
    """The same tokenizer with another padding token.

    Raises:
        CheckpointError: its vocabulary lacks it.
    """
    files = dict(tokenizer.files)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if name in files or name == "tokenizer_config.json":
            files[name] = json.dumps({**json.loads(files.get(name, "{}")), "pad_token": pad}, indent=2)
    return make_tokenizer(files, "this tokenizer")


def published_vocabulary(place: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's vocabulary and merges from the file it was published with.

    Raises:
        CheckpointError: the file is damaged or something else.
    """
    try:
        content = place.read_bytes()
        text = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{place} is damaged or no vocabulary: {error}") from error
    merges = [(line.split(" ")[0], line.split(" ")[-1]) for line in text.split("\n")[1 : 49152 - 256 - 2 + 1]]
    if len(merges) != 49152 - 256 - 2 or not all(left and right for left, right in merges):
        raise CheckpointError(f"{place} is not CLIP's vocabulary: it holds {len(merges)} merges, not 48894")
    return clip_vocabulary(merges), merges


def clip_vocabulary(merges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """CLIP's vocabulary of some merges: bytes, bytes that end a word, what each merge makes, the two special tokens."""
    letters = _byte_letters()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges), _START, _STOP]
    return {token: number for number, token in enumerate(tokens)}


def make_tokenizer(files: Mapping[str, str], what: str) -> Tokenizer:
    """A tokenizer from the text of its files, by name.

    Args:
        what: is read, to begin an error with.
    Raises:
        CheckpointError: as `load_tokenizer`.
    """
    try:
        return _make(files, what)
    except CheckpointError:
        raise
    except SettingError as error:
        raise CheckpointError(f"{what}: {error}") from error
    except Exception as error:  # of json, of tokenizers (which raises bare Exceptions), or of a missing key
        raise CheckpointError(f"{what}: the tokenizer's files are damaged: {error!r}") from error


def _make(files: Mapping[str, str], what: str) -> Tokenizer:
    config = json.loads(files.get("tokenizer_config.json", "{}"))
    for name, only in _ONLY.items():
        if config.get(name, only) not in (only, None):
            raise CheckpointError(f"{what}: {name} = {config[name]!r} is not supported, only {only!r} is")
    by_files = "BertTokenizer" if "vocab.txt" in files else "CLIPTokenizer"
    kind = _KINDS[choose("tokenizer_class", (config.get("tokenizer_class") or by_files).removesuffix("Fast"), _KINDS)]
    named, added = _special_tokens(files, config, kind.special)
    model = json.loads(files["tokenizer.json"])["model"] if "tokenizer.json" in files else None
    words = kind.make(files, model, config, str(named["unk_token"]), what)
    words.add_tokens([*added, *named.values()])
    begin, end, pad = (_number(words, str(named[name]), what) for name in (kind.begin, kind.end, "pad_token"))
    window = config.get("model_max_length")
    return Tokenizer(
        words,
        begin,
        end,
        pad,
        int(window) if window is not None else 10**30,
        dict(files),
    )


def _number(words: "tokenizers.Tokenizer", token: str, what: str) -> int:
    number = words.token_to_id(token)
    if number is None:
        raise CheckpointError(f"{what}: the vocabulary lacks {token}")
    return number


def _special_tokens(
    files: Mapping[str, str], config: Mapping[str, Any], defaults: Mapping[str, str]
) -> tuple[dict[str, "tokenizers.AddedToken"], list["tokenizers.AddedToken"]]:
    """The tokens with a role, by role, and those that were added to the vocabulary, in the order of their numbers."""
    from tokenizers import AddedToken

    def token(value: Any, **told: Any) -> AddedToken:
        said = {"content": value} if isinstance(value, str) else {key: value[key] for key in _FLAGS if key in value}
        return AddedToken(**{**said, **told})

    named = {name: token(config.get(name) or default, special=True) for name, default in defaults.items()}
    added: dict[int, AddedToken] = {}
    if "added_tokens_decoder" in config:
        added = {int(number): token(value) for number, value in config["added_tokens_decoder"].items()}
    else:
        roles = json.loads(files.get("special_tokens_map.json", "{}"))
        named |= {name: token(roles[name], special=True) for name in defaults if roles.get(name)}
        special = {value.content for value in named.values()}
        for content, number in json.loads(files.get("added_tokens.json", "{}")).items():
            added[number] = token(content, normalized=content not in special, special=content in special)
        for value in json.loads(files.get("tokenizer.json", "{}")).get("added_tokens", ()):
            added[value["id"]] = token(value)
    known = {value.content: value for value in added.values()}
    named = {name: known.get(value.content, value) for name, value in named.items()}
    return named, [added[number] for number in sorted(added)]


def _clip_words(
    files: Mapping[str, str], model: Mapping[str, Any] | None, config: Mapping[str, Any], unknown: str, what: str
) -> "tokenizers.Tokenizer":
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    if model is None:
        for name in ("vocab.json", "merges.txt"):
            if name not in files:
                raise CheckpointError(f"{what} is not a tokenizer's folder: {name} is missing")
        lines = files["merges.txt"].split("\n")
        merges = [line for line in lines if line and not line.startswith("#version")]
        model = {"vocab": json.loads(files["vocab.json"]), "merges": merges}
    halves = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    bytes_merged = models.BPE(
        vocab=model["vocab"],
        merges=[(left, right) for left, right in halves],
        continuing_subword_prefix="",
        end_of_word_suffix="</w>",
        fuse_unk=False,
        unk_token=unknown,
    )
    words = Tokenizer(bytes_merged)
    words.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    # a contraction, a run of letters, one digit, or a run of anything else but white space
    word = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(word), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    words.decoder = decoders.ByteLevel()
    return words


def _bert_words(
    files: Mapping[str, str], model: Mapping[str, Any] | None, config: Mapping[str, Any], unknown: str, what: str
) -> "tokenizers.Tokenizer":
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    if model is None:
        if "vocab.txt" not in files:
            raise CheckpointError(f"{what} is not a tokenizer's folder: vocab.txt is missing")
        lines = files["vocab.txt"].removesuffix("\n").split("\n")
        model = {"vocab": {line.rstrip("\r"): number for number, line in enumerate(lines)}}
    words = Tokenizer(models.WordPiece(vocab=model["vocab"], unk_token=unknown))
    words.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", True),
    )
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.decoder = decoders.WordPiece(prefix="##")
    return words


@dataclass(frozen=True)
class _Kind:
    make: Callable[..., "tokenizers.Tokenizer"]
    begin: str
    end: str
    special: Mapping[str, str]


_KINDS = {
    "CLIPTokenizer": _Kind(
        _clip_words,
        "bos_token",
        "eos_token",
        {"bos_token": _START, "eos_token": _STOP, "unk_token": _STOP, "pad_token": _STOP},
    ),
    "BertTokenizer": _Kind(
        _bert_words,
        "cls_token",
        "sep_token",
        {
            "unk_token": "[UNK]",
            "sep_token": "[SEP]",
            "pad_token": "[PAD]",
            "cls_token": "[CLS]",
            "mask_token": "[MASK]",
        },
    ),
}


def _byte_letters() -> list[str]:
    """A visible character for each byte: itself where it is one, else the next unused one from 256 on."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = 256 - len(visible)
    return [chr(code) for code in visible] + [chr(256 + number) for number in range(hidden)]
