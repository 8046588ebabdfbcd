"""What a text-conditioned U-Net is made of, field for field the configuration of diffusers' UNet2DConditionModel.

Every field is honoured or refused by name: many change the output without changing a single key.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neblina.core.conditions import Wants
from neblina.core.errors import SettingError, choose
from neblina.nets.blocks import activations
from neblina.nets.configuration import check_sample_size, read_config, write_config
from neblina.nets.label_embeddings import LABELS
from neblina.nets.levels import READING_DOWN, READING_MIDDLE, READING_UP

_NAME = "UNet2DConditionModel"
_WIDENING = {"positional": 4, "fourier": 2}  # time_embedding_type: the time's embedding is as many times as wide
# fields of which one value alone is understood
_ONLY: dict[str, Any] = {
    "num_attention_heads": None,  # diffusers takes no other either: attention_head_dim counts the heads
    "dual_cross_attention": False,
    "resnet_skip_time_act": False,
    "resnet_out_scale_factor": 1.0,
    "time_cond_proj_dim": None,
    "attention_type": "default",
    "cross_attention_norm": None,
}
_PER_LEVEL = ("only_cross_attention", "layers_per_block", "cross_attention_dim", "attention_head_dim")
BASE_SIZES, REFINER_SIZES = 6, 5


@dataclass(frozen=True)
class UNetConditionConfig:
    """The configuration; only what is not plain from a field's name, or differs from its name, is said here.

    Where a tuple is allowed it holds one value a level, from the full resolution down.

    Attributes:
        sample_size: the latents it is meant for; any size runs.
        center_input_sample: the input is 2 x − 1.
        only_cross_attention: the first attention of a transformer block reads the text too; not in the middle.
        norm_num_groups: of every group normalisation.
        cross_attention_dim: width of the text's vectors.
        transformer_layers_per_block: blocks of a transformer: one number, one a level, or one a transformer in each
            level, and then reverse_transformer_layers_per_block says those of the way up, lowest level first.
        encoder_hid_dim: width of a text that is projected to cross_attention_dim first, None for no projection.
        attention_head_dim: the number of heads of a transformer; but in an AttnDownBlock2D or AttnUpBlock2D the
            channels of a head (counted from the lowest level up in an AttnUpBlock2D, as diffusers does).
        class_embed_type: None for a table of num_class_embeds rows; "timestep" for labels that are embedded like the
            time; "identity" for labels that are embeddings; "projection" and "simple_projection" for vectors of
            projection_class_embeddings_input_dim that go through two layers or one.
        addition_embed_type: "text_time" adds an embedding of the pooled text and of numbers about sizes.
        upcast_attention: nothing to do: PyTorch's attention keeps its scores in float32.
        time_embedding_type: positional or fourier.
        class_embeddings_concat: the class embedding is put beside the time's and not added to it.
        mid_block_only_cross_attention: diffusers reads it in a middle block that is refused here.
        addition_embed_type_num_heads: diffusers reads it with an addition_embed_type that is refused here.
    """

    sample_size: int | tuple[int, int] | None = None
    in_channels: int = 4
    out_channels: int = 4
    center_input_sample: bool = False
    flip_sin_to_cos: bool = True
    freq_shift: int = 0
    down_block_types: tuple[str, ...] = (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D")
    mid_block_type: str | None = "UNetMidBlock2DCrossAttn"
    up_block_types: tuple[str, ...] = ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3)
    only_cross_attention: bool | tuple[bool, ...] = False
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int | tuple[int, ...] = 2
    downsample_padding: int = 1
    mid_block_scale_factor: float = 1
    dropout: float = 0.0
    act_fn: str = "silu"
    norm_num_groups: int | None = 32
    norm_eps: float = 1e-5
    cross_attention_dim: int | tuple[int, ...] = 1280
    transformer_layers_per_block: int | tuple[int | tuple[int, ...], ...] = 1
    reverse_transformer_layers_per_block: tuple[int | tuple[int, ...], ...] | None = None
    encoder_hid_dim: int | None = None
    encoder_hid_dim_type: str | None = None
    attention_head_dim: int | tuple[int, ...] = 8
    num_attention_heads: int | tuple[int, ...] | None = None
    dual_cross_attention: bool = False
    use_linear_projection: bool = False
    class_embed_type: str | None = None
    addition_embed_type: str | None = None
    addition_time_embed_dim: int | None = None
    num_class_embeds: int | None = None
    upcast_attention: bool | None = False
    resnet_time_scale_shift: str = "default"
    resnet_skip_time_act: bool = False
    resnet_out_scale_factor: float = 1.0
    time_embedding_type: str = "positional"
    time_embedding_dim: int | None = None
    time_embedding_act_fn: str | None = None
    timestep_post_act: str | None = None
    time_cond_proj_dim: int | None = None
    conv_in_kernel: int = 3
    conv_out_kernel: int = 3
    projection_class_embeddings_input_dim: int | None = None
    attention_type: str = "default"
    class_embeddings_concat: bool = False
    mid_block_only_cross_attention: bool | None = None
    cross_attention_norm: str | None = None
    addition_embed_type_num_heads: int = 64

    def __post_init__(self) -> None:
        """Refuse what the network cannot honour.

        Raises:
            SettingError: naming the field.
        """
        for field, only in _ONLY.items():
            if getattr(self, field) != only:
                raise _refusal(field, getattr(self, field), f"only {only!r} is")
        check_sample_size("unet", self.sample_size)
        self._check_levels()
        self._check_names()
        self._check_embeddings()
        self.wants_with(self.likely_sizes)

    def level(self, field: str) -> tuple[Any, ...]:
        """A field's value at each level, from the full resolution down."""
        value = getattr(self, field)
        return value if isinstance(value, tuple) else (value,) * len(self.block_out_channels)

    @property
    def depths(self) -> tuple[tuple[tuple[int, ...], ...], int, tuple[tuple[int, ...], ...]]:
        """Blocks of every transformer: of each level down, of the middle's, of each level up."""
        per_level = self.level("transformer_layers_per_block")
        layers = self.level("layers_per_block")
        rising = self.reverse_transformer_layers_per_block or per_level[::-1]
        down = tuple(one if isinstance(one, tuple) else (one,) * n for one, n in zip(per_level, layers, strict=True))
        up = tuple(
            one if isinstance(one, tuple) else (one,) * (n + 1) for one, n in zip(rising, layers[::-1], strict=True)
        )
        last = per_level[-1]
        return down, last[0] if isinstance(last, tuple) else last, up

    @property
    def embedding_channels(self) -> int:
        """Width of the time's embedding."""
        return self.time_embedding_dim or _WIDENING[self.time_embedding_type] * self.block_out_channels[0]

    @property
    def multiple(self) -> int:
        """What height and width must be multiples of."""
        return 1

    @property
    def made(self) -> int:
        """Channels that come out."""
        return self.out_channels

    @property
    def num_labels(self) -> int:
        """Rows of the class embedding, 0 for a network without such a table."""
        return (self.num_class_embeds or 0) if self.class_embed_type is None else 0

    @property
    def labelled(self) -> bool:
        """Whether labels are read, be it from a table or as numbers."""
        return self.class_embed_type is not None or self.num_class_embeds is not None

    @property
    def wants(self) -> Wants:
        """What the network reads beside labels; with added sizes, as many as `likely_sizes`."""
        return self.wants_with(self.likely_sizes)

    def wants_with(self, sizes: int) -> Wants:
        """What the network reads beside labels, if `sizes` of the numbers it is given are about sizes.

        Raises:
            SettingError: there is no room for so many, or the levels read texts of several widths.
        """
        widths = set(self._read_widths())
        if len(widths) > 1:
            raise _refusal("cross_attention_dim", self.cross_attention_dim, "only one width for all levels is")
        text = widths.pop() if widths else None
        if self.encoder_hid_dim is not None and text is not None:
            text = self.encoder_hid_dim
        if self.addition_embed_type is None:
            return Wants(text=text)
        pooled = (self.projection_class_embeddings_input_dim or 0) - sizes * (self.addition_time_embed_dim or 0)
        if pooled <= 0:
            raise SettingError(
                f"unet config: projection_class_embeddings_input_dim {self.projection_class_embeddings_input_dim} has "
                f"no room for {sizes} sizes of addition_time_embed_dim {self.addition_time_embed_dim} and a text"
            )
        return Wants(text=text, pooled=pooled, sizes=sizes)

    @property
    def likely_sizes(self) -> int:
        """How many numbers about sizes the added embedding holds: 5 where that leaves a pooled text as wide as the text
        itself (the refiner, which reads one text encoder), else 6; the configuration does not say it."""
        if self.addition_embed_type is None:
            return 0
        room = self.projection_class_embeddings_input_dim or 0
        rest = room - REFINER_SIZES * (self.addition_time_embed_dim or 0)
        return REFINER_SIZES if rest in self._read_widths() else BASE_SIZES

    def check_size(self, height: int, width: int) -> None:
        """Refuse a size of no place.

        Raises:
            SettingError: naming the size.
        """
        if height < 1 or width < 1:
            raise SettingError(f"{height}x{width} has no place to denoise")

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "UNetConditionConfig":
        """Read a config.json; keys that begin with an underscore are its writer's own.

        Raises:
            SettingError: an unknown or unsupported field.
        """
        return read_config(cls, _NAME, config)

    def to_dict(self) -> dict[str, Any]:
        """What goes into config.json, with the class that diffusers opens it as."""
        return write_config(self, _NAME)

    def _read_widths(self) -> list[int]:
        """Width of the text at each place where it is read."""
        widths = self.level("cross_attention_dim")
        read = [width for width, kind in zip(widths, self.down_block_types, strict=True) if READING_DOWN[kind].reads]
        read += [width for width, kind in zip(widths[::-1], self.up_block_types, strict=True) if READING_UP[kind].reads]
        return read + ([widths[-1]] if self.mid_block_type and READING_MIDDLE[self.mid_block_type].reads else [])

    def _check_levels(self) -> None:
        levels = len(self.block_out_channels)
        if not len(self.down_block_types) == len(self.up_block_types) == levels:
            raise SettingError(
                f"unet config: {levels} block_out_channels, {len(self.down_block_types)} down_block_types and "
                f"{len(self.up_block_types)} up_block_types; there must be one of each a level"
            )
        for field in _PER_LEVEL:
            value = getattr(self, field)
            if value is None or (isinstance(value, tuple) and (len(value) != levels or None in value)):
                raise _refusal(field, value, f"only one value, or one for each of {levels} levels, is")
        for field in ("transformer_layers_per_block", "reverse_transformer_layers_per_block"):
            value = getattr(self, field)
            if isinstance(value, tuple) and len(value) != levels:
                raise _refusal(field, value, f"only one value for each of {levels} levels is")
        depth = self.transformer_layers_per_block
        nested = isinstance(depth, tuple) and any(isinstance(one, tuple) for one in depth)
        if nested and self.reverse_transformer_layers_per_block is None:
            raise SettingError(
                f"unet config: transformer_layers_per_block {depth} says the depth of each transformer on the way "
                "down; say that of the way up in reverse_transformer_layers_per_block"
            )
        down, _, up = self.depths
        layers = self.level("layers_per_block")
        for made, wanted, field in (
            (down, layers, "transformer_layers_per_block"),
            (up, tuple(n + 1 for n in layers[::-1]), "reverse_transformer_layers_per_block"),
        ):
            if any(len(one) != n for one, n in zip(made, wanted, strict=True)):
                raise _refusal(field, getattr(self, field), f"only {wanted} transformers in the levels' order are")
        groups = self.norm_num_groups
        for channels in self.block_out_channels:
            if groups is None or channels % groups:
                raise SettingError(
                    f"unet config: block_out_channels {channels} cannot be split into norm_num_groups {groups}"
                )
        for channels, heads in zip(self.block_out_channels, self.level("attention_head_dim"), strict=True):
            if not 1 <= heads <= channels:
                raise SettingError(f"unet config: attention_head_dim {heads} does not fit a level of {channels}")

    def _check_names(self) -> None:
        for name in self.down_block_types:
            choose("down_block_types entry this network has", name, READING_DOWN)
        for name in self.up_block_types:
            choose("up_block_types entry this network has", name, READING_UP)
        if self.mid_block_type is not None:
            choose("mid_block_type this network has", self.mid_block_type, READING_MIDDLE)
        for field in ("act_fn", "time_embedding_act_fn", "timestep_post_act"):
            name = getattr(self, field)
            if name is not None:
                choose(f"activation ({field})", name.lower(), activations)
        choose("time_embedding_type", self.time_embedding_type, _WIDENING)
        choose("resnet_time_scale_shift this network has", self.resnet_time_scale_shift, ("default", "scale_shift"))
        for field in ("conv_in_kernel", "conv_out_kernel"):
            if getattr(self, field) % 2 == 0:
                raise _refusal(field, getattr(self, field), "only an odd one, which keeps the size, is")

    def _check_embeddings(self) -> None:
        if self.class_embed_type is not None:
            choose("class_embed_type this network has", self.class_embed_type, [name for name in LABELS if name])
        if self.addition_embed_type not in (None, "text_time"):
            raise _refusal("addition_embed_type", self.addition_embed_type, "only None and 'text_time' are")
        if self.addition_embed_type is not None and self.addition_time_embed_dim is None:
            raise SettingError("unet config: addition_embed_type 'text_time' needs addition_time_embed_dim")
        vectors = tuple(name for name, kind in LABELS.items() if kind.vector)
        projecting = {"class_embed_type": vectors, "addition_embed_type": ("text_time",)}
        for field, kinds in projecting.items():
            if getattr(self, field) in kinds and self.projection_class_embeddings_input_dim is None:
                raise SettingError(
                    f"unet config: {field} {getattr(self, field)!r} needs projection_class_embeddings_input_dim"
                )
        if self.class_embeddings_concat and (not self.labelled or self.addition_embed_type is not None):
            raise _refusal("class_embeddings_concat", True, "only with a class embedding and no added one it is")
        if self.encoder_hid_dim_type not in (None, "text_proj"):
            raise _refusal("encoder_hid_dim_type", self.encoder_hid_dim_type, "only None and 'text_proj' are")
        if self.encoder_hid_dim_type is not None and self.encoder_hid_dim is None:
            raise SettingError(f"unet config: encoder_hid_dim_type {self.encoder_hid_dim_type!r} needs encoder_hid_dim")
        if self.encoder_hid_dim is not None and isinstance(self.cross_attention_dim, tuple):
            raise _refusal("cross_attention_dim", self.cross_attention_dim, "beside encoder_hid_dim only one width is")
        if self.time_embedding_type == "fourier" and self.embedding_channels % 2:
            raise _refusal("time_embedding_dim", self.time_embedding_dim, "with 'fourier' only an even one is")


def _refusal(field: str, value: object, supported: str) -> SettingError:
    return SettingError(f"unet config: {field} = {value!r} is not supported, {supported}")
