"""Text encoders: tokens as vectors, read from a model's folder and written back.

transformers named CLIP's parameters `text_model.…` until 5 took the prefix away. Files of both kinds are read, and the
prefix is written: version 4 reads nothing else, 5 takes it off, and the tools made for published checkpoints know it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from neblina.core.errors import CheckpointError, SettingError, choose
from neblina.core.shards import Filing, write_weights
from neblina.core.tensors import check_floating, is_finite
from neblina.encoders.architectures import ARCHITECTURES, Architecture, Reading
from neblina.encoders.tokens import Tokenizer

STEM = "model"
_SPARE = 0.1  # of an encoder's rows that its own tokenizer may lack: a padded table, new words whose names were lost


@dataclass(frozen=True)
class TextEncoder:
    """A tokenizer and the network that reads its tokens.

    Attributes:
        tokenizer: cuts a text.
        net: the network, in evaluation mode.
        config: its config.json.
        window: how many tokens it reads at once, the first and the last special ones among them.
        width: D of its vectors.
        layers: how many layers it has.
        pooled: P of the vector of the whole text, None for an encoder that has none.
    """

    tokenizer: Tokenizer
    net: nn.Module
    config: Mapping[str, Any]
    window: int
    width: int
    layers: int
    pooled: int | None
    architecture: Architecture = field(repr=False)

    @property
    def rows(self) -> int:
        """How many tokens it has vectors for."""
        return int(config_of(self.net)[self.architecture.sizes[-1]])

    @property
    def mismatch(self) -> str | None:
        """What to say of a tokenizer that knows far fewer tokens than there are vectors for, whose words are others.

        None where it knows about as many: published tables are padded, or longer by words that were added.
        """
        if self.tokenizer.size >= (1 - _SPARE) * self.rows:
            return None
        return (
            f"has vectors for {self.rows:,} tokens and its tokenizer knows {self.tokenizer.size:,}: one of them is "
            "another model's"
        )

    @torch.no_grad()
    def read(self, tokens: Tensor) -> Reading:
        """Read tokens of shape (B, L), L at most `window`."""
        return self.architecture.read(self.net, tokens.to(next(self.net.parameters()).device))

    def normalise(self, vectors: Tensor) -> Tensor:
        """The encoder's final normalisation, of vectors of an earlier layer."""
        return self.architecture.norm(self.net)(vectors)

    def save(self, folder: Path, tokenizer_folder: Path, filing: Filing | None = None) -> None:
        """Write both folders as diffusers and transformers, old and new, open them."""
        folder.mkdir(parents=True, exist_ok=True)
        # transformers opens it in this, or else as it is stored, and diffusers opens what is beside it in float32
        dtypes = {key: "float32" for key in ("dtype", "torch_dtype") if key in self.config} or {"dtype": "float32"}
        (folder / "config.json").write_text(json.dumps({**self.config, **dtypes}, indent=2) + "\n")
        named = {
            self.architecture.written(self.architecture.plain(name)): value
            for name, value in self.net.state_dict().items()
        }
        write_weights(named, folder, STEM, filing)
        self.tokenizer.save(tokenizer_folder)


def make_text_encoder(
    config: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    tokenizer: Tokenizer,
    *,
    what: str = "the text encoder",
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> TextEncoder:
    """A text encoder from its configuration and its weights, as they are named in a `text_encoder/`.

    Args:
        what: is read, to begin an error with.
    Raises:
        CheckpointError: a configuration that is not read here, or weights or a tokenizer that do not fit it.
    """
    try:
        architecture = ARCHITECTURES[choose("text encoder (architectures)", _named(config, what), ARCHITECTURES)]
        with torch.device("meta"), _Uninitialised():
            net = architecture.build(config)
    except (SettingError, TypeError) as error:
        raise CheckpointError(f"{what}: {error}") from error
    _fill(net, architecture, weights, what, dtype, torch.device(device))
    width, positions, layers, rows = (int(config_of(net)[name]) for name in architecture.sizes)
    if tokenizer.size > rows:
        raise CheckpointError(
            f"{what} has vectors for {rows} tokens and its tokenizer knows {tokenizer.size}; one of them is another "
            "model's"
        )
    end = config_of(net).get("eos_token_id")
    if architecture.pooled and end not in (2, tokenizer.end):  # 2 is how the published files say: the largest token
        raise CheckpointError(
            f"{what} finds the end of a text at token {end} (eos_token_id), and its tokenizer ends it with "
            f"{tokenizer.end}"
        )
    return TextEncoder(
        tokenizer,
        net.eval().requires_grad_(False),
        dict(config),
        min(tokenizer.window, positions),
        width,
        layers,
        int(config_of(net)[architecture.pooled]) if architecture.pooled else None,
        architecture,
    )


def config_of(net: nn.Module) -> Mapping[str, Any]:
    """A network's configuration, defaults included."""
    return vars(net.config)


class _Uninitialised(TorchFunctionMode):
    """Inside, torch.nn.init leaves parameters as they are: on the meta device `normal_` alone imports torch._dynamo."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return named["tensor"] if "tensor" in named else args[0]
        return func(*args, **named)


def _named(config: Mapping[str, Any], what: str) -> str:
    named = config.get("architectures")
    if not isinstance(named, list) or not named:
        raise CheckpointError(f"{what}: config.json does not say of which architecture (architectures) it is")
    return str(named[0])


def _fill(
    net: nn.Module,
    architecture: Architecture,
    weights: Mapping[str, Tensor],
    what: str,
    dtype: torch.dtype | None,
    device: torch.device,
) -> None:
    """Give a network without memory its weights."""
    own = {architecture.plain(name): name for name in net.state_dict()}
    given = {architecture.plain(name): name for name in weights}
    shapes = {name: value.shape for name, value in net.state_dict().items()}
    floating = {name: value.is_floating_point() for name, value in net.state_dict().items()}
    for plain in given:
        if plain not in own and not plain.endswith("position_ids"):  # old files store 0, 1, 2, … under this name
            raise CheckpointError(f"{what}: the weights hold {given[plain]}, which the configuration has no place for")
    for name in weights:
        if given[architecture.plain(name)] != name:
            raise CheckpointError(f"{what}: the weights hold {name} twice, as {given[architecture.plain(name)]} too")
    state = {}
    for plain, name in own.items():
        if plain not in given:
            raise CheckpointError(f"{what}: the weights lack {name}, which the configuration asks for")
        value = weights[given[plain]]
        if value.shape != shapes[name]:
            raise CheckpointError(
                f"{what}: {given[plain]} has shape {tuple(value.shape)} in the weights and {tuple(shapes[name])} by "
                "the configuration"
            )
        if floating[name]:
            check_floating(given[plain], value, what)
        if not is_finite(value):
            raise CheckpointError(f"{what}: {given[plain]} holds values that are not finite")
        state[name] = value.to(device, dtype)
        if state[name].dtype is not value.dtype and not is_finite(state[name]):
            raise CheckpointError(f"{what}: {given[plain]} holds values beyond the largest number of {dtype}")
    net.load_state_dict(state, assign=True)
    for module in net.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:  # the positions, which no file need hold
                module.register_buffer(name, torch.arange(buffer.shape[-1], device=device)[None], persistent=False)
