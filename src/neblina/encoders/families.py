"""From prompts to a Condition, as each family of models was trained to read them.

| family | encoders | vectors of | pooled | numbers |
| --- | --- | --- | --- | --- |
| Stable Diffusion 1, 2 | one | the last layer, normalised | no | none |
| SDXL | two, side by side | the last layer but one, as it is | of the second | size, corner, target |
| SDXL's refiner | SDXL's second | the last layer but one, as it is | yes | size, corner, aesthetic score |
| latent diffusion | one, BERT-like | the last layer, normalised | no | none |

Clip-skip k reads k layers earlier still (and normalises where the family does). As in diffusers it is of the prompt
alone: what guidance goes away from is read at the family's own layer.

Rombach et al. High-Resolution Image Synthesis with Latent Diffusion Models. CVPR 2022.
Podell et al. SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis. ICLR 2024, §2.2.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from neblina.core.conditions import Condition, Wants
from neblina.core.errors import CheckpointError, SettingError
from neblina.encoders.architectures import Reading
from neblina.encoders.prompts import Piece, pieces_of
from neblina.encoders.text import TextEncoder


@dataclass(frozen=True)
class Framing:
    """What SDXL is told about a picture: pixels, height before width.

    Attributes:
        original: its size before it was cut.
        target: its size.
        corner: where its top left corner was in the original.
        aesthetic: how well people liked it, from 1 to 10; the refiner alone is told.
    """

    original: tuple[int, int]
    target: tuple[int, int]
    corner: tuple[int, int] = (0, 0)
    aesthetic: float = 6.0


def base_numbers(framing: Framing) -> tuple[float, ...]:
    """The six numbers that SDXL reads."""
    return (*framing.original, *framing.corner, *framing.target)


def refiner_numbers(framing: Framing) -> tuple[float, ...]:
    """The five numbers that SDXL's refiner reads."""
    return (*framing.original, *framing.corner, framing.aesthetic)


@dataclass(frozen=True)
class Family:
    """How a family of models reads text.

    Attributes:
        encoders: how many; their vectors stand side by side.
        skipped: layers at the end that are never read.
        normalised: whether the encoder's final normalisation is applied.
        pooled: whether the last encoder's vector of the whole text is read.
        numbers: what is told of the picture, None for nothing.
        zero_unsaid: guidance goes away from zeros where no negative prompt is given, rather than from the empty
            prompt; diffusers' `force_zeros_for_empty_prompt`, which a checkpoint may set otherwise (use `replace`).
        window: the most tokens read at once, where the family sets it rather than the encoder.
    """

    encoders: int = 1
    skipped: int = 0
    normalised: bool = True
    pooled: bool = False
    numbers: Callable[[Framing], tuple[float, ...]] | None = None
    zero_unsaid: bool = False
    window: int | None = None


STABLE_DIFFUSION = Family()
LATENT_DIFFUSION = Family(window=77)
SDXL = Family(2, 1, normalised=False, pooled=True, numbers=base_numbers, zero_unsaid=True)
SDXL_REFINER = Family(1, 1, normalised=False, pooled=True, numbers=refiner_numbers)

UNSAID_AESTHETIC = 2.5  # what the refiner goes away from, where nothing else is asked for


def check_fit(family: Family, encoders: Sequence[TextEncoder], wants: Wants) -> None:
    """Refuse encoders that do not give what the network reads.

    Raises:
        CheckpointError: saying what is missing or of another width.
    """
    if len(encoders) != family.encoders:
        raise CheckpointError(f"this model reads text through {family.encoders} encoder(s), and has {len(encoders)}")
    widths = [encoder.width for encoder in encoders]
    if sum(widths) != wants.text:
        raise CheckpointError(
            f"the text encoder does not fit: its vectors are {' + '.join(map(str, widths))} wide and the network reads "
            f"text {wants.text} wide (cross_attention_dim, or caption_channels where it has them)"
        )
    pooled = encoders[-1].pooled if family.pooled else None
    if pooled != wants.pooled:
        raise CheckpointError(
            f"the text encoder does not fit: its vector of the whole text is {pooled} wide and the network reads one "
            f"{wants.pooled} wide"
        )


def encode_prompts(
    family: Family,
    encoders: Sequence[TextEncoder],
    prompts: Sequence[str],
    negative: str | Sequence[str] | None = None,
    *,
    long: str = "refuse",
    clip_skip: int = 0,
    framing: Framing | None = None,
    unsaid_framing: Framing | None = None,
) -> Condition:
    """Encode prompts, and what guidance goes away from.

    Args:
        prompts: one a picture; weights as in `weights`.
        negative: what is not wanted: one for all, one a picture, or None for the empty prompt.
        long: what happens to a prompt that is longer than the encoder's window: "refuse", "chunk" or "cut". In pieces,
            a prompt and what it goes away from are as long as the longer of the two, whatever else is in the batch.
        clip_skip: how many layers to skip beyond the family's own.
        framing: what the model is told of the picture, for a family that reads it.
        unsaid_framing: the same for guidance's other branch; None for `framing`, with a low aesthetic score.
    Returns:
        The condition, `unsaid` and all: text (B, L, D) with L a multiple of the window, pooled (B, P), sizes (B, N);
        and lengths (B,) where prompts are in different numbers of pieces, with zeros behind the shorter.
    Raises:
        SettingError: a prompt that is too long or cannot be parsed, or a setting that is out of range.
        CheckpointError: the encoders are not those of the family.
    """
    for each in (*prompts, *([] if negative is None else [negative] if isinstance(negative, str) else negative)):
        _check_letters(each)
    if isinstance(prompts, str) or not prompts:
        raise SettingError(f"prompts must be one text a picture, one at the least, not {prompts!r}")
    negatives = [negative or ""] * len(prompts) if negative is None or isinstance(negative, str) else list(negative)
    if len(negatives) != len(prompts):
        raise SettingError(f"{len(negatives)} negative prompts for {len(prompts)} prompts; give one, or one a prompt")
    if len(encoders) != family.encoders:
        raise CheckpointError(f"this model reads text through {family.encoders} encoder(s), and has {len(encoders)}")
    for encoder in encoders:
        if not 0 <= clip_skip <= encoder.layers - family.skipped:
            raise SettingError(
                f"clip-skip {clip_skip} is out of range: this text encoder has {encoder.layers} layers, and this model "
                f"skips {family.skipped}; choose 0 to {encoder.layers - family.skipped}"
            )
    if family.pooled and encoders[-1].pooled is None:
        raise CheckpointError("this model reads a vector of the whole text, and its last text encoder gives none")
    sizes, unsaid_sizes = _sizes(family, framing, unsaid_framing, len(prompts))

    said = {**dict.fromkeys(("", *negatives), "negative prompt"), **dict.fromkeys(prompts, "prompt")}
    cut = [
        {
            text: pieces_of(text, encoder.tokenizer, _window(family, encoder), long, what=what)
            for text, what in said.items()
        }
        for encoder in encoders
    ]
    counts = [max(len(each[text]) for each in cut for text in pair) for pair in zip(prompts, negatives, strict=True)]
    (text, pooled), (unsaid_text, unsaid_pooled) = (
        _each(family, encoders, cut, texts, counts, family.skipped + skip)
        for texts, skip in ((prompts, clip_skip), (negatives, 0))
    )
    one_piece = text.shape[1] // max(counts)
    lengths = None if len(set(counts)) == 1 else torch.tensor(counts) * one_piece
    if family.zero_unsaid and negative is None:
        unsaid_text = torch.zeros_like(text)
        unsaid_pooled = None if pooled is None else torch.zeros_like(pooled)
    device = text.device
    return Condition(
        text=text,
        pooled=pooled,
        sizes=None if sizes is None else sizes.to(device),
        lengths=lengths,
        unsaid=Condition(
            text=unsaid_text,
            pooled=unsaid_pooled,
            sizes=None if unsaid_sizes is None else unsaid_sizes.to(device),
            lengths=lengths,
        ),
    )


def _check_letters(text: str) -> None:
    """Refuse a text with bytes in it that are no letters, as a terminal of another encoding hands over."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SettingError(
            f"the prompt {text!r} is not valid text: character {error.start + 1} is {text[error.start]!r}, no letter; "
            "write it in UTF-8"
        ) from error


def _window(family: Family, encoder: TextEncoder) -> int:
    return encoder.window if family.window is None else min(family.window, encoder.window)


def _side_by_side(read: Sequence[tuple[Tensor, Tensor | None]]) -> Tensor:
    return torch.cat([text.to(read[-1][0]) for text, _ in read], dim=-1)


def _each(
    family: Family,
    encoders: Sequence[TextEncoder],
    cut: Sequence[Mapping[str, Sequence[Piece]]],
    texts: Sequence[str],
    counts: Sequence[int],
    skip: int,
) -> tuple[Tensor, Tensor | None]:
    """The vectors of texts, each in its own number of pieces and zeros behind them, and of the whole texts."""
    rows: dict[int, Tensor] = {}
    pooled: dict[int, Tensor] = {}
    for count in dict.fromkeys(counts):
        places = [place for place, own in enumerate(counts) if own == count]
        read = [
            _read(family, encoder, each, [texts[place] for place in places], count, skip)
            for encoder, each in zip(encoders, cut, strict=True)
        ]
        rows |= zip(places, _side_by_side(read), strict=True)
        whole = read[-1][1] if family.pooled else None
        pooled |= {} if whole is None else zip(places, whole, strict=True)
    text = torch.nn.utils.rnn.pad_sequence([rows[place] for place in range(len(texts))], batch_first=True)
    return text, torch.stack([pooled[place] for place in range(len(texts))]) if pooled else None


def _read(
    family: Family,
    encoder: TextEncoder,
    cut: Mapping[str, Sequence[Piece]],
    prompts: Sequence[str],
    count: int,
    skip: int,
) -> tuple[Tensor, Tensor | None]:
    """The vectors of prompts in `count` pieces each, shape (B, count L, D), and of the whole texts, (B, P)."""
    window = _window(family, encoder)
    different = list(dict.fromkeys(prompts))
    pieces = [[*cut[prompt], *[Piece()] * (count - len(cut[prompt]))] for prompt in different]
    flat = [piece for row in pieces for piece in row]
    tokens = torch.tensor([encoder.tokenizer.window_of(piece.tokens, window) for piece in flat])
    reading = encoder.read(tokens)
    vectors = _layer(family, encoder, reading, skip)
    if any(weight != 1 for piece in flat for weight in piece.weights):
        empty = encoder.read(torch.tensor([encoder.tokenizer.window_of((), window)]))
        weights = torch.tensor([[1.0, *piece.weights, *[1.0] * (window - 1 - len(piece.weights))] for piece in flat])
        vectors = _weigh(vectors, _layer(family, encoder, empty, skip), weights.to(vectors))
    text = vectors.reshape(len(different), count * window, -1)
    rows = torch.tensor([different.index(prompt) for prompt in prompts], device=text.device)
    pooled = None if reading.pooled is None else reading.pooled[::count][rows]
    return text[rows], pooled


def _layer(family: Family, encoder: TextEncoder, reading: Reading, skip: int) -> Tensor:
    if not family.normalised:
        return reading.states[-1 - skip]
    return encoder.normalise(reading.states[-1 - skip]) if skip else reading.last


def _weigh(vectors: Tensor, empty: Tensor, weights: Tensor) -> Tensor:
    """e_∅ + w (e − e_∅), and e itself where w = 1, which rounding would move."""
    weights = weights[..., None]
    return torch.where(weights == 1, vectors, empty + weights * (vectors - empty))


def _sizes(
    family: Family, framing: Framing | None, unsaid: Framing | None, count: int
) -> tuple[Tensor | None, Tensor | None]:
    if family.numbers is None:
        if framing is not None or unsaid is not None:
            raise SettingError("this model is told nothing of the picture's size: leave framing out")
        return None, None
    if framing is None:
        raise SettingError("this model is told the size of the picture: give its framing")
    unsaid = replace(framing, aesthetic=UNSAID_AESTHETIC) if unsaid is None else unsaid
    told, untold = (torch.tensor([family.numbers(each)] * count, dtype=torch.float32) for each in (framing, unsaid))
    return told, untold
