"""The text that says nothing, learned: what guidance goes away from in place of an empty prompt's encoding.

Parameter name and configuration are those of diffusers' LearnedClassifierFreeSamplingEmbeddings.

Tang et al. Improved Vector Quantized Diffusion Models. 2022 (discrete classifier-free guidance).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neblina.core.errors import SettingError
from neblina.nets.configuration import read_config, write_config

_NAME = "LearnedClassifierFreeSamplingEmbeddings"


@dataclass(frozen=True)
class LearnedNullConfig:
    """The configuration.

    Attributes:
        learnable: whether there is one; where there is none, the encoding of an empty prompt takes its place.
        hidden_size: width of its vectors.
        length: how many vectors, one a token of a prompt.
    """

    learnable: bool
    hidden_size: int | None = None
    length: int | None = None

    def __post_init__(self) -> None:
        """Refuse a text without a size.

        Raises:
            SettingError: naming the field.
        """
        for field in ("hidden_size", "length"):
            size = getattr(self, field)
            if self.learnable and (size is None or size < 1):
                raise SettingError(f"learned null config: {field} = {size}: a text that is learned has a size")

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "LearnedNullConfig":
        """Read a config.json.

        Raises:
            SettingError: an unknown field, or one that is missing.
        """
        return read_config(cls, _NAME, config)

    def to_dict(self) -> dict[str, Any]:
        """What goes into config.json, with the class that diffusers opens it as."""
        return write_config(self, _NAME)


class LearnedNull(nn.Module):
    """The text of no words."""

    def __init__(self, config: LearnedNullConfig) -> None:
        super().__init__()
        self.config = config
        # where there is none, diffusers files an empty tensor under this name
        size = (config.length or 0, config.hidden_size or 0) if config.learnable else (0,)
        self.embeddings = nn.Parameter(torch.zeros(size))

    def forward(self, count: int) -> Tensor:
        """One for each of `count` samples, shape (count, length, hidden_size); a view.

        Raises:
            SettingError: none was learned.
        """
        if not self.config.learnable:
            raise SettingError("this model learned no text that says nothing: encode an empty prompt")
        return self.embeddings.expand(count, -1, -1)
