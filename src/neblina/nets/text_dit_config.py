"""The configuration of the diffusion transformer that reads a text, and what it refuses."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neblina.core.conditions import Wants
from neblina.core.errors import SettingError, choose
from neblina.nets.configuration import check_sample_size, read_config, write_config
from neblina.nets.patches import check_cut
from neblina.nets.transformer import bends

_NAME = "PixArtTransformer2DModel"
_TOLD_SIZES = 128  # the sample_size at which diffusers takes null for true
_COUNTS = (
    "num_attention_heads",
    "attention_head_dim",
    "in_channels",
    "out_channels",
    "num_layers",
    "cross_attention_dim",
    "patch_size",
    "caption_channels",
)


@dataclass(frozen=True)
class TextDiTConfig:
    """The configuration, field for field diffusers' PixArtTransformer2DModel's; only what each does to us is said here.

    Attributes:
        attention_head_dim: channels of a head; the tokens are num_attention_heads times as wide.
        out_channels: None for in_channels; twice in_channels where the variance is learned.
        norm_num_groups: nothing: there is no group normalisation.
        cross_attention_dim: width of the text that the blocks read: the tokens' where there are caption_channels.
        attention_bias: whether queries, keys and values have a bias.
        sample_size: side of the latents it was trained on. Others run: their positions are stretched to its range.
        num_embeds_ada_norm: nothing: the time is told by waves.
        upcast_attention: nothing to do: PyTorch's attention keeps its scores in float32.
        norm_elementwise_affine, norm_eps: of the normalisations in the blocks.
        interpolation_scale: by what positions are divided; None for sample_size // 64, at least 1.
        use_additional_conditions: whether it is told the picture's size and shape, which this network is not; None
            is true at a sample_size of 128, as in diffusers.
        caption_channels: width of the text where two layers make it as wide as the tokens; None for no such layers.
        attention_type: nothing but "default": no boxes are told.
    """

    num_attention_heads: int = 16
    attention_head_dim: int = 72
    in_channels: int = 4
    out_channels: int | None = 8
    num_layers: int = 28
    dropout: float = 0.0
    norm_num_groups: int = 32
    cross_attention_dim: int | None = 1152
    attention_bias: bool = True
    sample_size: int = 128
    patch_size: int = 2
    activation_fn: str = "gelu-approximate"
    num_embeds_ada_norm: int | None = 1000
    upcast_attention: bool = False
    norm_type: str = "ada_norm_single"
    norm_elementwise_affine: bool = False
    norm_eps: float = 1e-6
    interpolation_scale: float | None = None
    use_additional_conditions: bool | None = None
    caption_channels: int | None = None
    attention_type: str | None = "default"

    def __post_init__(self) -> None:
        """Refuse what the network cannot honour.

        Raises:
            SettingError: naming the field.
        """
        choose("feed-forward activation (activation_fn)", self.activation_fn, bends)
        choose("norm_type this network has", self.norm_type, ("ada_norm_single",))
        choose("attention_type this network has", self.attention_type or "default", ("default",))
        if self.num_embeds_ada_norm is None:
            raise SettingError("text dit config: num_embeds_ada_norm is missing: say how many steps there are")
        for field in _COUNTS:
            if (count := getattr(self, field)) is not None and count < 1:
                raise SettingError(f"text dit config: {field} = {count} is less than 1")
        if not 0 <= self.dropout <= 1:
            raise SettingError(f"text dit config: dropout = {self.dropout} is no probability: take 0 to 1")
        if self.width % 4:
            raise SettingError(
                f"text dit config: num_attention_heads {self.num_attention_heads} of attention_head_dim "
                f"{self.attention_head_dim} make tokens {self.width} wide, no multiple of 4 as their positions need"
            )
        self._check_text()
        self._check_places()

    def _check_text(self) -> None:
        if self.cross_attention_dim is None:
            raise SettingError(
                "text dit config: cross_attention_dim is missing: say how wide the text is that the blocks read"
            )
        if self.caption_channels is not None and self.cross_attention_dim != self.width:
            raise SettingError(
                f"text dit config: caption_channels says that the text becomes as wide as the tokens, which are "
                f"num_attention_heads {self.num_attention_heads} · attention_head_dim {self.attention_head_dim} = "
                f"{self.width} wide, and cross_attention_dim = {self.cross_attention_dim}: say {self.width} there"
            )

    def _check_places(self) -> None:
        check_sample_size("text dit", self.sample_size)
        if self.sample_size < self.patch_size:
            raise SettingError(
                f"text dit config: sample_size {self.sample_size} is less than patch_size {self.patch_size}"
            )
        if self.interpolation_scale is not None and not self.interpolation_scale > 0:
            raise SettingError(f"text dit config: interpolation_scale = {self.interpolation_scale} is not above 0")
        told = self.use_additional_conditions
        if told or (told is None and self.sample_size == _TOLD_SIZES):
            why = "" if told else f" (which null stands for at a sample_size of {_TOLD_SIZES})"
            raise SettingError(
                f"text dit config: use_additional_conditions = true{why} is not supported: a network that is told the "
                "picture's size and shape is not opened here; for one that is not, say false"
            )

    @property
    def width(self) -> int:
        """Numbers in a token."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def multiple(self) -> int:
        """What height and width must be multiples of."""
        return self.patch_size

    @property
    def made(self) -> int:
        """Channels that come out."""
        return self.in_channels if self.out_channels is None else self.out_channels

    @property
    def wants(self) -> Wants:
        """It reads a text, as wide as the encoder's vectors."""
        return Wants(text=self.cross_attention_dim if self.caption_channels is None else self.caption_channels)

    @property
    def num_labels(self) -> int:
        """It is told no labels."""
        return 0

    @property
    def scale(self) -> float:
        """By what positions are divided."""
        return max(self.sample_size // 64, 1) if self.interpolation_scale is None else self.interpolation_scale

    def check_size(self, height: int, width: int) -> None:
        """Refuse a size that cannot be cut into patches.

        Raises:
            SettingError: naming the size.
        """
        check_cut(height, width, self.patch_size)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "TextDiTConfig":
        """Read a config.json.

        Raises:
            SettingError: an unknown or unsupported field.
        """
        return read_config(cls, _NAME, config)

    def to_dict(self) -> dict[str, Any]:
        """What goes into config.json, with the class that diffusers opens it as."""
        return write_config(self, _NAME)
