"""A network that reads text, told a class instead: one learned vector a class, read as a text of one token.

So the first class-conditional latent diffusion models are conditioned; the last class is the null of guidance.

Rombach et al. High-Resolution Image Synthesis with Latent Diffusion Models. CVPR 2022, appendix E.1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from neblina.core.conditions import Wants
from neblina.core.errors import SettingError
from neblina.nets.configuration import read_config, write_config
from neblina.nets.network import Network
from neblina.nets.unet_condition import UNetCondition
from neblina.nets.unet_condition_config import UNetConditionConfig

_NAME = "ClassEmbedder"


@dataclass(frozen=True)
class ClassEmbedderConfig:
    """The configuration of a table of classes.

    Attributes:
        num_classes: its rows, the null included.
        embed_dim: width of a row.
    """

    num_classes: int
    embed_dim: int

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "ClassEmbedderConfig":
        """Read a config.json.

        Raises:
            SettingError: an unknown field.
        """
        return read_config(cls, _NAME, config)

    def to_dict(self) -> dict[str, Any]:
        """What goes into config.json."""
        return write_config(self, _NAME)


class ClassEmbedder(nn.Module):
    """A vector a class."""

    def __init__(self, config: ClassEmbedderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.num_classes, config.embed_dim)

    def forward(self, labels: Tensor) -> Tensor:
        """Labels of shape (B,) as texts of one token, shape (B, 1, D)."""
        vectors: Tensor = self.embedding(labels)[:, None]
        return vectors


@dataclass(frozen=True)
class LabelledConfig(UNetConditionConfig):
    """The U-Net's configuration, but for what it is told."""

    classes: int = 0

    @property
    def num_labels(self) -> int:
        """Classes, the null included."""
        return self.classes

    @property
    def wants(self) -> Wants:
        """Nothing beside labels."""
        return Wants()


class LabelledUNet(Network):
    """net(x, time, labels) -> prediction."""

    def __init__(self, unet: UNetCondition, embedder: ClassEmbedder) -> None:
        super().__init__()
        _check(embedder, unet.config.wants)
        self.unet, self.class_embedder = unet, embedder
        self.config: LabelledConfig = LabelledConfig(**vars(unet.config), classes=embedder.config.num_classes)

    def forward(self, x: Tensor, time: Tensor, *, labels: Tensor) -> Tensor:
        """Predict; x of shape (B, in_channels, H, W), labels of shape (B,)."""
        out: Tensor = self.unet(x, time, text=self.class_embedder(labels))
        return out


def _check(embedder: ClassEmbedder, wants: Wants) -> None:
    if wants.text != embedder.config.embed_dim:
        raise SettingError(
            f"the class embedder's vectors are {embedder.config.embed_dim} wide and the network reads text "
            f"{wants.text} wide"
        )
