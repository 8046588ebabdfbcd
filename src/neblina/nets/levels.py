"""The kinds of levels that a U-Net has, by the names of diffusers' block types, a row each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LevelKind:
    """A kind of level.

    Attributes:
        attends: the places of its pictures look at one another, by plain attention.
        reads: its transformers read the text.
        residual: it changes its resolution inside a residual block; None where the configuration says whether.
    """

    attends: bool = False
    reads: bool = False
    residual: bool | None = False


# of UNet2DModel
DOWN = {
    "DownBlock2D": LevelKind(),
    "AttnDownBlock2D": LevelKind(attends=True, residual=None),
    "ResnetDownsampleBlock2D": LevelKind(residual=True),
}
UP = {
    "UpBlock2D": LevelKind(),
    "AttnUpBlock2D": LevelKind(attends=True, residual=None),
    "ResnetUpsampleBlock2D": LevelKind(residual=True),
}
RESIDUAL = {"conv": False, "resnet": True}  # downsample_type and upsample_type, for levels that do not say it

# of UNet2DConditionModel
READING_DOWN = {
    "DownBlock2D": LevelKind(),
    "AttnDownBlock2D": LevelKind(attends=True),
    "CrossAttnDownBlock2D": LevelKind(reads=True),
}
READING_MIDDLE = {"UNetMidBlock2D": LevelKind(), "UNetMidBlock2DCrossAttn": LevelKind(reads=True)}
READING_UP = {
    "UpBlock2D": LevelKind(),
    "AttnUpBlock2D": LevelKind(attends=True),
    "CrossAttnUpBlock2D": LevelKind(reads=True),
}
