"""Small random models, built on the spot."""

from typing import Any

import torch

from neblina.bundle.bundle import Bundle
from neblina.bundle.classifier import ClassifierBundle
from neblina.bundle.schedulers import Sampling
from neblina.nets.encoder import Encoder, EncoderConfig
from neblina.nets.unet import UNet, UNetConfig
from neblina.processes.schedules import make_schedule

CONFIG: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (16, 32),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 8,
}


def small_bundle(
    *,
    classes: int = 0,
    schedule: str = "linear",
    parameterisation: str = "eps",
    null: bool = True,
    sampling: Sampling | None = None,
    learned_variance: bool = False,
    seed: int = 0,
) -> Bundle:
    """A U-Net of random weights as a model."""
    torch.manual_seed(seed)
    rows = classes + null if classes else None
    channels = {"out_channels": 2 * CONFIG["in_channels"]} if learned_variance else {}
    return Bundle(
        UNet(UNetConfig(**{**CONFIG, **channels}, num_class_embeds=rows)).eval(),
        make_schedule(schedule),
        parameterisation,
        label_names=tuple(map(str, range(classes))),
        null_label=classes if classes and null else None,
        sampling=sampling or Sampling(steps=5),
        learned_variance=learned_variance,
    )


def small_classifier(*, classes: int = 3, schedule: str = "cosine", seed: int = 0) -> ClassifierBundle:
    """An encoder of random weights as a classifier of noisy pictures."""
    torch.manual_seed(seed)
    config = EncoderConfig((3, 8, 8), classes, channels=(8, 16), groups=4, blocks=1)
    return ClassifierBundle(Encoder(config).eval(), make_schedule(schedule), tuple(map(str, range(classes))))
