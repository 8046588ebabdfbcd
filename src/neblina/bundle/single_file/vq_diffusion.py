"""VQ-Diffusion's original release, a `.pth` and a yaml beside it, as components under the names of a folder.

Names and tables become those of `TokenTransformer` and of diffusers' VQModel. Three things the release does by program
are baked into the tables here. The class models have tables of 32 rows and 32 columns of places and 16 × 16 tokens:
the sums of both are cut flat, so that token n is at

    p_n = h_{⌊n / 32⌋} + w_{n mod 32}.

Label 1000 is the null; where the tables of labels end before it, it is told the mean of their rows, which is appended.
And where a codec has more codes than the model tokens, a file says which token each code is: of the codes of a token,
the first is decoded.

Gu et al. Vector Quantized Diffusion Model for Text-to-Image Synthesis. CVPR 2022, section 4 and figure 2.
Tang et al. Improved Vector Quantized Diffusion Models. 2022 (the null).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neblina.bundle.single_file.autoencoder import read_autoencoder
from neblina.bundle.single_file.checkpoint import read_parts, read_tensor
from neblina.bundle.single_file.read import Component, part_of
from neblina.bundle.single_file.vq_diffusion_yaml import ReleaseSettings
from neblina.core.errors import CheckpointError

_NET, _NULL = "transformer.transformer.", "transformer.empty_text_embed"
_BLOCK = re.compile(r"blocks\.(\d+)\.(ln1_1|ln1|ln2|attn[12]?|mlp\.(?:\d|conv\d))\.(.+)")
_UNUSED = re.compile(r"blocks\.\d+\.attn\d?\.mask")  # of the causal attention that the cross-attention could be
_PARTS = {
    "ln1": "norm1",
    "ln1_1": "norm2",
    "ln2": "norm3",
    "attn": "attn1",
    "attn1": "attn1",
    "attn2": "attn2",
    "mlp.0": "ff.net.0.proj",
    "mlp.2": "ff.net.2",
    "mlp.conv1": "ff.conv1",
    "mlp.conv2": "ff.conv2",
}
_PROJECTIONS = {"query": "to_q", "key": "to_k", "value": "to_v", "proj": "to_out.0"}
_ENDS = {"to_logits.0": "norm_out", "to_logits.1": "out", "content_emb.emb": "latent_image_embedding.emb"}
_HEIGHT, _WIDTH = "content_emb.height_emb.weight", "content_emb.width_emb.weight"
_CODES = "quantize.embedding.weight"


@dataclass(frozen=True)
class Release:
    """What a file of the release holds.

    Attributes:
        network: the transformer.
        codec: the autoencoder, with a code for every token.
        null: the text that says nothing, shape (L, D), None for a model that learned none.
    """

    network: Component
    codec: Component
    null: Tensor | None


def read_release(place: Path, settings: ReleaseSettings) -> Release:
    """Read the `.pth`; nothing in it is executed. Averaged weights (`ema`) go before those they are the average of.

    Raises:
        CheckpointError: missing, cut short, a tensor that such a model has no place for or one that it lacks, or parts
            that do not fit one another.
    """
    held = read_parts(place, "model", "ema")
    if "model" not in held:
        raise CheckpointError(
            f"{place} is no checkpoint of VQ-Diffusion's release, which holds its weights under 'model'; models of "
            "other families are opened with neblina.load"
        )
    # the average is of the diffusion alone, which the model calls its transformer
    averaged = {f"transformer.{name}": tensor for name, tensor in held.get("ema", {}).items()}
    state = {**held["model"], **averaged}
    try:
        return Release(
            Component("diffusers", *_network(part_of(state, _NET), settings)),
            Component("diffusers", *_codec(state, settings, place)),
            state.get(_NULL) if settings.learned_null else None,
        )
    except CheckpointError as error:
        raise CheckpointError(f"{place} cannot be opened: {error}") from error
    except KeyError as error:
        raise CheckpointError(f"{place} cannot be opened: it lacks the tensor {error.args[0]}") from error


def _network(state: Mapping[str, Tensor], settings: ReleaseSettings) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not state:
        raise CheckpointError(f"it holds no transformer ({_NET}…)")
    config: dict[str, Any] = {
        "num_attention_heads": settings.heads,
        "attention_head_dim": settings.width // settings.heads,
        "num_layers": settings.layers,
        "cross_attention_dim": settings.text_width,
        "attention_bias": True,
        "num_vector_embeds": settings.tokens + 1,
        "activation_fn": settings.activation,
        "num_embeds_ada_norm": settings.steps,
    }
    places = {name: state[name] for name in (_HEIGHT, _WIDTH)}
    rest = {name: tensor for name, tensor in state.items() if name not in places and not _UNUSED.fullmatch(name)}
    weights = {_renamed(name): tensor for name, tensor in rest.items()}
    if settings.text_width is not None:
        weights |= {f"latent_image_embedding.{name.removeprefix('content_emb.')}": places[name] for name in places}
        own = {"_class_name": "Transformer2DModel", "norm_type": "ada_norm", "sample_size": settings.grid[0]}
        return {**config, **own}, weights
    weights["latent_image_embedding.position_emb.weight"] = _flat_places(places[_HEIGHT], places[_WIDTH], settings.grid)
    if settings.classes is not None:
        for block in range(settings.layers):
            name = f"transformer_blocks.{block}.norm3.emb.weight"
            if name not in weights:
                raise KeyError(f"{_NET}blocks.{block}.ln2.emb.weight")
            weights[name] = _with_null(weights[name], settings.classes)
    return {
        **config,
        "_class_name": "SequenceTransformer",
        "sample_size": list(settings.grid),
        "num_class_embeds": None if settings.classes is None else settings.classes + 1,
        "convolutional": settings.convolutional,
    }, weights


def _renamed(name: str) -> str:
    for old, new in _ENDS.items():
        if name.startswith(f"{old}."):
            return new + name.removeprefix(old)
    match = _BLOCK.fullmatch(name)
    if match is None:
        raise CheckpointError(f"its transformer holds {name}, which none of VQ-Diffusion has")
    layer, _, kind = match[3].rpartition(".")
    inner = [_PROJECTIONS.get(layer, layer)] if layer else []
    return ".".join(["transformer_blocks", match[1], _PARTS[match[2]], *inner, kind])


def _flat_places(rows: Tensor, columns: Tensor, grid: tuple[int, int]) -> Tensor:
    """The vector of each place, shape (N, D): the first N of the larger grid of the tables."""
    count = grid[0] * grid[1]
    if count > len(rows) * len(columns):
        raise CheckpointError(
            f"it has {grid[0]} × {grid[1]} tokens, and tables for the places of {len(rows)} × {len(columns)}"
        )
    return (rows[:, None] + columns).flatten(0, 1)[:count]


def _with_null(table: Tensor, classes: int) -> Tensor:
    """The rows of the labels and, behind them, of the null: the mean where the table has none of its own."""
    if len(table) not in (classes, classes + 1):
        raise CheckpointError(f"it knows {len(table)} labels, and its yaml says {classes}")
    return table if len(table) > classes else torch.cat([table, table.mean(0, keepdim=True)])


def _codec(
    state: Mapping[str, Tensor], settings: ReleaseSettings, place: Path
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    # two halves, each with the codebook; the halves' own names differ, so that their first part can go
    own = {name.removeprefix("enc.").removeprefix("dec."): t for name, t in part_of(state, "content_codec.").items()}
    if not own:
        raise CheckpointError("it holds no codec (content_codec.…): it was saved without one")
    for name, what in (("quantize.embed.weight", "a Gumbel codebook"), ("quantize.used", "a remapped codebook")):
        if name in own:
            raise CheckpointError(f"its codec has {what} ({name}), which is not opened; only plain codebooks are")
    averaged = own.pop("quantize.embedding", None)  # the codec of ITHQ was trained by moving averages
    own = {name: t for name, t in own.items() if name not in ("quantize.cluster_size", "quantize.embedding_avg")}
    if averaged is not None:
        own[_CODES] = averaged
    if settings.mapping is not None:
        own[_CODES] = own[_CODES][_first_codes(place.parent / settings.mapping, len(own[_CODES]), settings.tokens)]
    if len(own[_CODES]) != settings.tokens:
        raise CheckpointError(
            f"its transformer makes tokens of {settings.tokens} classes, and its codec has {len(own[_CODES])} codes"
        )
    levels = sum(re.fullmatch(r"encoder\.down\.\d+\.block\.0\.conv1\.weight", name) is not None for name in own)
    return read_autoencoder(own, 1.0, settings.grid[0] * 2 ** max(levels - 1, 0))


def _first_codes(place: Path, codes: int, tokens: int) -> Tensor:
    """The first code that stands for each token, shape (tokens,).

    Args:
        place: of a file with the token of each code.
    """
    if not place.is_file():
        raise CheckpointError(
            f"{place} is missing, which says for which of the {tokens} tokens each of the {codes} codes stands: put "
            "the release's help_folder/statistics file of that name there"
        )
    token_of = read_tensor(place).long()
    if token_of.shape != (codes,):
        raise CheckpointError(f"{place} is of shape {tuple(token_of.shape)}, and the codebook has {codes} codes")
    first = torch.full((tokens,), codes)
    inside = (token_of >= 0) & (token_of < tokens)
    first.scatter_reduce_(0, token_of[inside], torch.arange(codes)[inside], "amin")
    if not bool(inside.all()) or int(first.max()) == codes:
        raise CheckpointError(f"{place} does not say of every code a token in 0 … {tokens - 1}, and of every token one")
    return first
