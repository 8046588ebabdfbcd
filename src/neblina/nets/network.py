"""What all denoising networks have in common: a configuration that says what they read and write."""

from typing import Any, Protocol

import torch
from torch import nn

from neblina.core.conditions import Wants


class NetworkConfig(Protocol):
    """What a denoising network's configuration says of it."""

    @property
    def sample_size(self) -> int | tuple[int, int] | None:
        """The resolution it is meant for, in cells of what it denoises."""
        ...

    @property
    def in_channels(self) -> int: ...
    @property
    def made(self) -> int:
        """Channels that come out."""
        ...

    @property
    def num_labels(self) -> int:
        """Rows of its label embedding, the null's included; 0 for none."""
        ...

    @property
    def wants(self) -> Wants:
        """What it reads beside labels; what is joined to its input is not the network's to say."""
        ...

    @property
    def multiple(self) -> int:
        """What height and width must be multiples of."""
        ...

    def check_size(self, height: int, width: int) -> None:
        """Refuse a resolution that it cannot take."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """What goes into config.json."""
        ...


class Network(nn.Module):
    """net(x, time, **condition) -> prediction, where the condition's fields come by their names."""

    config: NetworkConfig

    def channels_last(self) -> None:
        """Lay the weights out with the channels last: convolutions are faster so, most of all in half precision."""
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class TokenNetworkConfig(Protocol):
    """What the configuration of a network over tokens says of it."""

    @property
    def num_categories(self) -> int:
        """K: how many values a token of the data has; the mask is token K."""
        ...

    @property
    def places(self) -> int:
        """How many tokens there are."""
        ...

    @property
    def grid(self) -> tuple[int, int] | None:
        """Height and width of the places, None for a line."""
        ...

    @property
    def num_labels(self) -> int:
        """Rows of its label embedding, the null's included; 0 for none."""
        ...

    @property
    def wants(self) -> Wants:
        """What it reads beside labels."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """What goes into config.json."""
        ...


class TokenNetwork(nn.Module):
    """net(x, time, **condition) -> logits of shape (B, N, K), of tokens x of shape (B, N)."""

    config: TokenNetworkConfig
