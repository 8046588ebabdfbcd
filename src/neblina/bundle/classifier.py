"""A classifier of noisy data as a folder: `config.json` and safetensors of its network, and `neblina.json`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neblina.bundle.files import CARD, FORMAT, read_json, refuse_strangers, write_card, write_json
from neblina.bundle.weights import WEIGHTS, empty_parameters, load_weights
from neblina.core.atomic import new_folder, recover
from neblina.core.errors import CheckpointError
from neblina.core.tensors import save_tensors
from neblina.denoisers.classifier import NetworkClassifier
from neblina.nets.encoder import Encoder, EncoderConfig
from neblina.processes.gaussian import GaussianProcess
from neblina.processes.schedules import Schedule, make_schedule

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
    refuse_strangers(folder, _FILES, "a classifier")
    card = {
        "kind": KIND,
        "process": bundle.schedule.config(),
        "labels": list(bundle.label_names),
        **bundle.card,
    }
    with new_folder(folder) as aside:
        write_json(aside / "config.json", bundle.net.config.to_dict())
        save_tensors(bundle.net.state_dict(), aside / WEIGHTS)
        write_card(aside, card)


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
    card, config = (_read(folder, name) for name in (CARD, "config.json"))
    if card.get("kind") != KIND or card.get("format") != FORMAT:
        raise CheckpointError(f"{folder / CARD} does not describe a classifier that this version reads")
    with empty_parameters():
        net = Encoder(EncoderConfig.from_dict(config))
    load_weights(net, folder)
    known = ("format", "version", "kind", "process", "labels")
    labels = tuple(card["labels"])
    if len(labels) != net.config.classes:
        raise CheckpointError(f"{folder}: {len(labels)} labels for a network of {net.config.classes} classes")
    rest = {key: value for key, value in card.items() if key not in known}
    return ClassifierBundle(net.eval(), make_schedule(**card["process"]), labels, rest)


def _read(folder: Path, name: str) -> dict[str, Any]:
    if not (folder / name).exists():
        raise CheckpointError(f"{folder} is not a classifier's folder: {name} is missing")
    return read_json(folder / name)
