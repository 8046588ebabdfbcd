"""A trained classifier of noisy pictures, ready to guide a model with."""

from dataclasses import dataclass
from pathlib import Path

import torch

from neblina.bundle.classifier import ClassifierBundle, load_classifier_bundle
from neblina.core.devices import pick_device


@dataclass(frozen=True)
class Classifier:
    """A classifier in memory.

    Attributes:
        bundle: its parts and what is known about it.
        device: where it computes.
    """

    bundle: ClassifierBundle
    device: torch.device


def load_classifier(folder: str | Path, *, device: str | None = None) -> Classifier:
    """Open a classifier's folder, such as `neblina train digits-classifier` makes; it computes in float32.

    Args:
        folder: where it is.
        device: "cpu", "cuda", …; None for a GPU if there is one.
    Raises:
        CheckpointError: a file is missing, cut short, or does not fit; or the folder holds a model, not a classifier.
        SettingError: an unknown device.
    """
    place = pick_device(device)
    bundle = load_classifier_bundle(Path(folder))
    bundle.net.to(place).requires_grad_(False)
    return Classifier(bundle, place)
