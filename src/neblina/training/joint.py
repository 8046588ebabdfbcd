"""A denoising network and the text encoder that is trained with it, as one network that reads tokens.

    net(x, time, text=tokens) = F(x, time, text=E(tokens))

So what trains a network trains both: one set of weights, one average, one optimiser, one checkpoint.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from neblina.bundle.bundle import Bundle
from neblina.core.conditions import Condition, Wants
from neblina.encoders.text import TextEncoder
from neblina.encoders.tokens import Tokenizer
from neblina.nets.network import Network, NetworkConfig


@dataclass(frozen=True)
class JointConfig:
    """The configuration of the denoising network, but for what it reads: a window of tokens in place of vectors."""

    own: NetworkConfig
    window: int

    @property
    def sample_size(self) -> int | tuple[int, int] | None:
        return self.own.sample_size

    @property
    def in_channels(self) -> int:
        return self.own.in_channels

    @property
    def made(self) -> int:
        return self.own.made

    @property
    def num_labels(self) -> int:
        return self.own.num_labels

    @property
    def wants(self) -> Wants:
        return replace(self.own.wants, text=self.window)

    @property
    def multiple(self) -> int:
        return self.own.multiple

    def check_size(self, height: int, width: int) -> None:
        self.own.check_size(height, width)

    def to_dict(self) -> dict[str, Any]:
        return self.own.to_dict()


class JointNetwork(Network):
    """The two as one."""

    def __init__(self, net: Network, encoder: TextEncoder) -> None:
        super().__init__()
        self.config = JointConfig(net.config, encoder.window)
        self.net = net
        self.encoder = encoder.net.requires_grad_(True)
        self._read = encoder.architecture.read

    def forward(self, x: Tensor, time: Tensor, *, text: Tensor) -> Tensor:
        """Predict; text: tokens of shape (B, L), of any dtype that holds them."""
        predicted: Tensor = self.net(x, time, text=self._read(self.encoder, text.long()).last)
        return predicted


def parted(bundle: Bundle, trained: nn.Module) -> Bundle:
    """The model with the weights of a trained joint network, as it is used and saved."""
    if not isinstance(trained, JointNetwork) or bundle.text is None:
        raise TypeError(f"a {type(trained).__name__} has no text encoder in it")
    encoders = {name: replace(encoder, net=trained.encoder) for name, encoder in bundle.text.encoders.items()}
    return replace(bundle, net=trained.net, text=replace(bundle.text, encoders=encoders))


def windows(tokenizer: Tokenizer, texts: list[str], length: int) -> Tensor:
    """A window of tokens of each text, its end left out where it is longer: shape (B, length), int64."""
    return torch.tensor([tokenizer.window_of(tokenizer.cut(text)[0][: length - 2], length) for text in texts])


def cut_short(tokenizer: Tokenizer, texts: Sequence[str], length: int) -> tuple[str, ...]:
    """What to say of texts whose ends a window leaves out: nothing, or a sentence."""
    long = [text for text in texts if len(tokenizer.cut(text)[0]) > length - 2]
    if not long:
        return ()
    return (
        f"{len(long):,} of {len(texts):,} captions are longer than the {length - 2} tokens that are read of one, and "
        f"their ends are left out: the first is {long[0]!r}. Shorten them, or train a text encoder of a larger "
        "text.window.",
    )


def reading(tokens: Tensor, empty: Tensor) -> Condition:
    """The condition of texts, guided away from the empty one; tokens (B, L) and (L,)."""
    return Condition(text=tokens, unsaid=Condition(text=empty.expand_as(tokens)))
