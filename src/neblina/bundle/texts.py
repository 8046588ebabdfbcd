"""The text encoders of a model: which of its components read prompts, and how its family does."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from neblina.bundle.components import Opening
from neblina.bundle.files import read_json
from neblina.bundle.index import class_of
from neblina.bundle.pipelines import Pipeline
from neblina.bundle.weights import read_weights
from neblina.core.conditions import Condition, Wants
from neblina.core.errors import CheckpointError
from neblina.core.shards import Filing
from neblina.encoders.families import Family, Framing, check_fit, encode_prompts, refiner_numbers
from neblina.encoders.text import TextEncoder, make_text_encoder
from neblina.encoders.tokens import Tokenizer, load_tokenizer


@dataclass(frozen=True)
class Texts:
    """Reads prompts, as a family of models does.

    Attributes:
        family: how they are read.
        encoders: by the names of their components, in the order in which their vectors stand side by side.
        tokenizers: the component that holds each one's tokenizer.
        written: library and class of every component, for the index.
    """

    family: Family
    encoders: Mapping[str, TextEncoder]
    tokenizers: Mapping[str, str]
    written: Mapping[str, tuple[str, str]]

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The networks by the names of their components."""
        return {name: encoder.net for name, encoder in self.encoders.items()}

    def encode(
        self,
        prompts: Sequence[str],
        negative: str | Sequence[str] | None = None,
        *,
        size: tuple[int, int],
        long: str = "refuse",
        clip_skip: int | None = None,
    ) -> Condition:
        """The condition of each prompt, with that of its negative one as guidance's other branch.

        Args:
            negative: one for all, one a prompt, or None for what the family goes away from.
            size: (height, width) of the pictures in pixels.
            long, clip_skip: as in `encode_prompts`.
        Raises:
            SettingError: a prompt that is too long or cannot be parsed, or a setting out of range.
        """
        framing = None if self.family.numbers is None else Framing(original=size, target=size)
        return encode_prompts(
            self.family,
            list(self.encoders.values()),
            prompts,
            negative,
            long=long,
            clip_skip=clip_skip or 0,
            framing=framing,
        )

    def check(self, wants: Wants) -> None:
        """Refuse a network that reads something else.

        Raises:
            CheckpointError: saying what is missing or of another width.
        """
        check_fit(self.family, list(self.encoders.values()), wants)

    def save(self, folder: Path, filing: Filing | None = None) -> dict[str, tuple[str, str]]:
        """Write the components into a model folder; library and class of each, for the index."""
        for name, encoder in self.encoders.items():
            encoder.save(folder / name, folder / self.tokenizers[name], filing)
        return dict(self.written)


def read_texts(folder: Path, pipeline: Pipeline, index: Mapping[str, Any], opening: Opening) -> Texts | None:
    """What reads prompts for a model, None for one that takes none.

    Raises:
        CheckpointError: a file is missing, damaged, or does not fit the others.
    """
    if pipeline.family is None:
        return None
    present = [pair for pair in pipeline.texts if (index.get(pair[0]) or [None])[0] is not None]
    if not present:
        raise CheckpointError(f"{folder} has no text encoder, and a {pipeline.name} reads text")
    encoders = {}
    for name, tokenizer in present:
        words = load_tokenizer(folder / tokenizer)
        _check_tokenizer(words, class_of(folder, index, pipeline, tokenizer), folder / tokenizer)
        # the index decides which class it is, as in diffusers
        encoders[name] = read_text_encoder(
            folder / name, words, opening, architecture=class_of(folder, index, pipeline, name)
        )
    written = {part: (index[part][0], index[part][1]) for part in pipeline.text_parts & index.keys()}
    return Texts(family_of(pipeline.family, index, len(present)), encoders, dict(present), written)


def read_text_encoder(
    folder: Path, tokenizer: Tokenizer, opening: Opening, *, architecture: str | None = None
) -> TextEncoder:
    """The text encoder in a component's folder.

    Args:
        architecture: its class, None for what its configuration says.
    Raises:
        CheckpointError: a file is missing, damaged, or does not fit the others.
    """
    if not (folder / "config.json").exists():
        raise CheckpointError(f"{folder} is not a text encoder's folder: config.json is missing")
    config = read_json(folder / "config.json")
    return make_text_encoder(
        config if architecture is None else {**config, "architectures": [architecture]},
        read_weights(folder, "model", opening.variant_in(folder, "model")),
        tokenizer,
        what=str(folder),
        dtype=opening.dtype,
        device=opening.device,
    )


def _check_tokenizer(tokenizer: Tokenizer, listed: str, place: Path) -> None:
    own = json.loads(tokenizer.files.get("tokenizer_config.json", "{}")).get("tokenizer_class") or listed
    if own.removesuffix("Fast") != listed.removesuffix("Fast"):
        raise CheckpointError(f"{place}: the model's index says a {listed}, and tokenizer_config.json a {own}")


def family_of(family: Family, settings: Mapping[str, Any], encoders: int) -> Family:
    """How a model reads text, where its index says it otherwise than its family does."""
    if family.numbers is None:
        return family
    return replace(
        family,
        encoders=encoders,
        numbers=refiner_numbers if settings.get("requires_aesthetics_score") else family.numbers,
        zero_unsaid=bool(settings.get("force_zeros_for_empty_prompt", family.zero_unsaid)),
    )
