"""A classifier of noisy data as a folder: `config.json` and safetensors of its network, and `neblina.json`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neblina.bundle.folder import CARD, WEIGHTS, load_weights
from neblina.core.atomic import new_folder, recover
from neblina.core.errors import CheckpointError
from neblina.core.tensors import save_tensors
from neblina.denoisers.classifier import NetworkClassifier
from neblina.nets.encoder import Encoder, EncoderConfig
from neblina.processes.gaussian import GaussianProcess
from neblina.processes.schedules import Schedule, make_schedule
from neblina.version import __version__

KIND = "classifier"
_FILES = {"config.json", WEIGHTS, CARD}


@dataclass(frozen=True)
class ClassifierBundle:
    """Everything a classifier's folder says.

    Attributes:
        net: the network, in evaluation mode.
        schedule: of the process whose noisy data it reads.
        label_names: the classes in label order.
        card: what else is known: the recipe, the metrics.
    """

    net: Encoder
    schedule: Schedule
    label_names: tuple[str, ...]
    card: Mapping[str, Any] = field(default_factory=dict)

    def classifier(self) -> NetworkClassifier:
        """The network as a classifier."""
        return NetworkClassifier(self.net, GaussianProcess(self.schedule), len(self.label_names))


def save_classifier(bundle: ClassifierBundle, folder: Path) -> None:
    """Write the folder, all of it or nothing.

    Raises:
        CheckpointError: something is there that this does not write.
        StorageError: the disk is full or refuses; what was there before is untouched.
    """
    strange = {entry.name for entry in folder.iterdir()} - _FILES if folder.exists() else set()
    if strange:
        raise CheckpointError(
            f"{folder} holds {sorted(strange)[0]}, which saving a classifier would delete; it is left alone. "
            "Choose another place."
        )
    card = {
        "format": 1,
        "version": __version__,
        "kind": KIND,
        "process": bundle.schedule.config(),
        "labels": list(bundle.label_names),
        **bundle.card,
    }
    with new_folder(folder) as aside:
        (aside / "config.json").write_text(json.dumps(bundle.net.config.to_dict(), indent=2) + "\n")
        save_tensors(bundle.net.state_dict(), aside / WEIGHTS)
        (aside / CARD).write_text(json.dumps(card, indent=2) + "\n")


def load_classifier_bundle(folder: Path) -> ClassifierBundle:
    """Read a folder that `save_classifier` wrote.

    Raises:
        CheckpointError: not a classifier, or a file is missing, cut short, or does not fit the configuration.
    """
    recover(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a classifier's folder: there is no such folder")
    if (folder / "unet").exists():
        raise CheckpointError(f"{folder} is a model, not a classifier; train one with: train digits-classifier")
    card, config = (_read(folder / name) for name in (CARD, "config.json"))
    if card.get("kind") != KIND or card.get("format") != 1:
        raise CheckpointError(f"{folder / CARD} does not describe a classifier that this version reads")
    net = Encoder(EncoderConfig.from_dict(config))
    load_weights(net, folder)
    known = ("format", "version", "kind", "process", "labels")
    labels = tuple(card["labels"])
    if len(labels) != net.config.classes:
        raise CheckpointError(f"{folder}: {len(labels)} labels for a network of {net.config.classes} classes")
    rest = {key: value for key, value in card.items() if key not in known}
    return ClassifierBundle(net.eval(), make_schedule(**card["process"]), labels, rest)


def _read(place: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(place.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"{place.parent} is not a classifier's folder: {place.name} is missing") from error
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{place} is damaged or cut short: {error}") from error
    return content
