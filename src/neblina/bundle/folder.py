"""A model as a folder: `model_index.json`, `unet/`, `scheduler/` as diffusers writes them, and `neblina.json`.

`neblina.json` holds what diffusers has no place for (the process, the parameterisation, the classes, how to sample,
what it was trained with and measured at, and under `scheduler_lacks` what the scheduler's file could not say of how it
samples); a folder without it is read from diffusers' own files. Weights are
safetensors under the ecosystem's parameter names.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from neblina.bundle.files import CARD, FORMAT, read_json, refuse_strangers, write_card, write_json
from neblina.bundle.schedulers import Sampling, read_scheduler, sampling_of, write_scheduler
from neblina.bundle.weights import WEIGHTS, empty_parameters, load_weights
from neblina.core.atomic import new_folder, recover
from neblina.core.errors import CheckpointError, choose
from neblina.core.tensors import save_tensors
from neblina.denoisers.denoiser import NetworkDenoiser
from neblina.denoisers.parameterisations import check_end
from neblina.nets.unet import UNet, UNetConfig
from neblina.processes.gaussian import GaussianProcess
from neblina.processes.schedules import Schedule, make_schedule

_OURS = {"model_index.json", CARD, "unet", "scheduler"}
_PIPELINES = {
    "DDIMScheduler": "DDIMPipeline",
    "PNDMScheduler": "PNDMPipeline",
    "ScoreSdeVeScheduler": "ScoreSdeVePipeline",
}


@dataclass(frozen=True)
class Bundle:
    """Everything a folder says.

    Attributes:
        net: the network, in evaluation mode.
        schedule: of the process it was trained on.
        parameterisation: what it predicts.
        clock: how it is told the time, None for the default.
        label_names: the classes in label order, empty for an unconditional model.
        null_label: the label that means "no class" to the network, None if it never learned one.
        sampling: how it samples when nothing else is asked for.
        card: what else is known: the recipe, the metrics.
        learned_variance: whether the second half of the network's channels says how wide its reverse steps are.
    """

    net: UNet
    schedule: Schedule
    parameterisation: str
    clock: str | None = None
    label_names: tuple[str, ...] = ()
    null_label: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    card: Mapping[str, Any] = field(default_factory=dict)
    learned_variance: bool = False

    def denoiser(self) -> NetworkDenoiser:
        """The network as a denoiser."""
        return NetworkDenoiser(
            self.net,
            GaussianProcess(self.schedule),
            self.parameterisation,
            self.clock,
            len(self.label_names),
            self.null_label,
            self.learned_variance,
        )


def save_bundle(bundle: Bundle, folder: Path) -> None:
    """Write the folder, all of it or nothing.

    Raises:
        CheckpointError: something is there that this does not write.
        SettingError: the model's own sampling names a sampler that there is not.
        StorageError: the disk is full or refuses; what was there before is untouched.
    """
    refuse_strangers(folder, _OURS, "a model")
    written = write_scheduler(
        bundle.schedule,
        bundle.parameterisation,
        bundle.sampling,
        clock=bundle.clock,
        learned_variance=bundle.learned_variance,
    )
    index: dict[str, Any] = {"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"]}
    scheduler = written.config
    if scheduler is not None:
        kind = scheduler["_class_name"]
        index["_class_name"] = _PIPELINES.get(kind, "DDPMPipeline")
        index["scheduler"] = ["diffusers", kind]
    card = {
        "process": bundle.schedule.config(),
        "parameterisation": bundle.parameterisation,
        "clock": bundle.clock,
        "labels": list(bundle.label_names),
        "null_label": bundle.null_label,
        "learned_variance": bundle.learned_variance,
        "sampling": asdict(bundle.sampling),
        "scheduler_lacks": list(written.lacks),
        **bundle.card,
    }
    with new_folder(folder) as aside:
        write_json(aside / "model_index.json", index)
        write_json(aside / "unet" / "config.json", bundle.net.config.to_dict())
        save_tensors(bundle.net.state_dict(), aside / "unet" / WEIGHTS)
        if scheduler is not None:
            write_json(aside / "scheduler" / "scheduler_config.json", scheduler)
        write_card(aside, card)


def load_bundle(folder: Path) -> Bundle:
    """Read a folder that `save_bundle` wrote, or diffusers' DDPMPipeline, DDIMPipeline or another of a `UNet2DModel`.

    Raises:
        CheckpointError: a file is missing, cut short, or does not fit the configuration.
        SettingError: a configuration with a field or value that this package does not have.
    """
    recover(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a model folder: there is no such folder")
    if not (folder / "unet" / "config.json").exists():
        raise CheckpointError(f"{folder} is not a model folder: unet/config.json is missing")
    config = UNetConfig.from_dict(read_json(folder / "unet" / "config.json"))
    with empty_parameters():
        net = UNet(config)
    load_weights(net, folder / "unet")
    net.eval()
    if (folder / CARD).exists():
        return _with_card(net, read_json(folder / CARD), folder / CARD)
    place = folder / "scheduler" / "scheduler_config.json"
    scheduler = read_json(place)
    read = read_scheduler(scheduler)
    _check_variance(config, read.learned_variance, place)
    return Bundle(
        net,
        read.schedule,
        read.parameterisation,
        read.clock,
        tuple(map(str, range(config.num_class_embeds or 0))),
        sampling=sampling_of(scheduler, read),
        learned_variance=read.learned_variance,
    )


def _with_card(net: UNet, card: dict[str, Any], place: Path) -> Bundle:
    known = ("format", "version", "process", "parameterisation", "clock", "labels", "null_label", "sampling")
    for key in known:
        if key not in card:
            raise CheckpointError(f"{place} lacks {key}")
    if card["format"] != FORMAT:
        raise CheckpointError(
            f"{place} is of format {card['format']}; this version reads format {FORMAT}. Upgrade neblina."
        )
    learned = card.get("learned_variance", False)  # folders of before it was learned do not say
    _check_variance(net.config, learned, place)
    for key in card["sampling"]:
        choose(f"sampling setting in {place}", key, Sampling.__dataclass_fields__)
    sampling = Sampling(**card["sampling"])
    if sampling.scheduler is not None:
        read_scheduler(sampling.scheduler)  # refused now rather than when pictures are asked for
    schedule = make_schedule(**card["process"])
    check_end(card["parameterisation"], card["clock"], schedule)
    return Bundle(
        net,
        schedule,
        card["parameterisation"],
        card["clock"],
        tuple(card["labels"]),
        card["null_label"],
        sampling,
        {key: value for key, value in card.items() if key not in (*known, "learned_variance", "scheduler_lacks")},
        learned,
    )


def _check_variance(config: UNetConfig, learned: bool, place: Path) -> None:
    if learned != (config.out_channels == 2 * config.in_channels):
        raise CheckpointError(
            f"{place} says that the variance of this model is {'learned' if learned else 'fixed'}, and its network has "
            f"{config.out_channels} output channels for {config.in_channels} of the pictures"
        )
