"""A model as a folder: `model_index.json`, a folder a component as diffusers writes them, and `neblina.json`.

`neblina.json` holds what diffusers has no place for (the process, the parameterisation, the classes, how to sample,
what it was trained with and measured at, and under `scheduler_lacks` what the scheduler's file could not say of how it
samples); a folder without it is read from diffusers' own files. Weights are
safetensors under the ecosystem's parameter names.
"""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from torch import nn

from neblina.bundle.bundle import Bundle
from neblina.bundle.components import Opening, codec_of, labelled, read_component, write_component
from neblina.bundle.files import CARD, FORMAT, read_json, refuse_strangers, write_card, write_json
from neblina.bundle.index import (
    INDEX,
    SMALL,
    Kept,
    check_classes,
    class_of,
    component_place,
    kept_components,
    mixing,
    read_index,
)
from neblina.bundle.pipelines import Pipeline, pipelines
from neblina.bundle.schedulers import Sampling, read_scheduler, repaired, sampling_of, write_scheduler
from neblina.bundle.texts import Texts, read_texts
from neblina.codecs.codec import Codec
from neblina.codecs.kl import KLCodec
from neblina.core.atomic import new_folder, recover
from neblina.core.errors import CheckpointError, choose
from neblina.denoisers.parameterisations import check_end
from neblina.nets.network import Network
from neblina.processes.schedules import Schedule, make_schedule

LAYOUT = "0.42.0"  # of diffusers' folders; some of its pipelines do not open one that does not say
SCHEDULER = "scheduler_config.json"
_OF_PICTURES = {
    "DDIMScheduler": "DDIMPipeline",
    "PNDMScheduler": "PNDMPipeline",
    "ScoreSdeVeScheduler": "ScoreSdeVePipeline",
}


def save_bundle(bundle: Bundle, folder: Path) -> None:
    """Write the folder, all of it or nothing.

    Raises:
        CheckpointError: something is there that this does not write.
        SettingError: the model's own sampling names a sampler that there is not.
        StorageError: the disk is full or refuses; what was there before is untouched.
    """
    pipeline = bundle.pipeline
    texts = {name for pair in pipeline.texts for name in pair}
    own = {INDEX, CARD, "scheduler", SMALL, *bundle.modules, *texts, *bundle.kept}
    refuse_strangers(folder, own, "a model")
    written = write_scheduler(
        bundle.schedule,
        bundle.parameterisation,
        bundle.sampling,
        clock=bundle.clock,
        learned_variance=bundle.learned_variance,
    )
    scheduler = written.config
    name = pipeline.name
    if bundle.own_codec is None and scheduler is not None:
        name = _OF_PICTURES.get(scheduler["_class_name"], "DDPMPipeline")
    index: dict[str, Any] = {"_class_name": name, "_diffusers_version": LAYOUT}
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
        for part in (pipeline.network, pipeline.embedder, pipeline.codec):
            if part in bundle.modules:
                index[str(part)] = _write(bundle.modules[str(part)], aside / str(part))
        if bundle.text is not None:
            index |= {part: list(kind) for part, kind in bundle.text.save(aside).items()}
        if scheduler is not None:
            index["scheduler"] = ["diffusers", scheduler["_class_name"]]
            write_json(aside / "scheduler" / SCHEDULER, scheduler)
        if bundle.small is not None:
            index[SMALL] = ["diffusers", bundle.small[1]["_class_name"]]
            write_json(aside / SMALL / SCHEDULER, bundle.small[1])
        for part, kept in bundle.kept.items():
            index[part] = list(kept.written)
            if kept.folder is not None:
                shutil.copytree(kept.folder, aside / part)
        write_json(aside / INDEX, {**index, **bundle.settings})
        write_card(aside, card)


def load_bundle(folder: Path, opening: Opening | None = None, *, codec: Codec | None = None) -> Bundle:
    """Read a folder that `save_bundle` wrote, or one of diffusers' pipelines that `pipelines` lists.

    Args:
        codec: in place of the folder's own.
    Raises:
        CheckpointError: a file is missing, cut short, or does not fit the configuration.
        SettingError: a configuration with a field or value that this package does not have.
    """
    opening = opening or Opening()
    recover(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a model folder: there is no such folder")
    index, pipeline = read_index(folder)
    check_classes(folder, index, pipeline, [name for name in (pipeline.network, pipeline.embedder) if name])
    if codec is None and pipeline.codec is not None:
        check_classes(folder, index, pipeline, [pipeline.codec])
    opening = mixing(folder, index, opening)
    parts = Parts(
        pipeline,
        {name: index[name] for name in pipeline.settings if name in index},
        _read_network(folder, pipeline, opening),
        codec if codec is not None or pipeline.codec is None else _read_codec(folder, pipeline, opening),
        read_texts(folder, pipeline, index, opening),
        _small(folder, index),
        kept_components(folder, index, pipeline),
    )
    card = folder / CARD
    if card.exists():
        return _with_card(parts, read_json(card), card)
    parts = _painting(parts)
    place = component_place(folder, "scheduler", SCHEDULER) / SCHEDULER
    kind = class_of(folder, index, pipeline, "scheduler")  # the index decides, as in diffusers
    return foreign_bundle(parts, {**read_json(place), "_class_name": kind}, str(place))


@dataclass(frozen=True)
class Parts:
    """The components of a model before it is known how they go together; attributes of `Bundle`."""

    pipeline: Pipeline
    settings: Mapping[str, Any]
    net: Network
    own_codec: Codec | None = None
    text: Texts | None = None
    small: tuple[Schedule, Mapping[str, Any]] | None = None
    kept: Mapping[str, Kept] = field(default_factory=dict)


def foreign_bundle(parts: Parts, scheduler: Mapping[str, Any], where: str) -> Bundle:
    """A model whose process and sampling are said by a scheduler's configuration.

    Args:
        where: the scheduler's configuration is, for messages.
    Raises:
        CheckpointError: components that do not fit one another.
        SettingError: a field or value of the scheduler that this package does not have.
    """
    scheduler = repaired(scheduler, parts.pipeline.repairs)
    read = read_scheduler(scheduler)
    sampling = replace(sampling_of(scheduler, read), guidance=parts.pipeline.guidance)
    names, null = _classes(parts)
    bundle = Bundle(
        schedule=read.schedule,
        parameterisation=read.parameterisation,
        clock=read.clock,
        label_names=names,
        null_label=null,
        sampling=sampling,
        learned_variance=read.learned_variance or _drops_variance(parts),
        **{each.name: getattr(parts, each.name) for each in fields(parts)},
    )
    _check_fit(bundle, where)
    _check_scale(bundle)
    return bundle


def _painting(parts: Parts) -> Parts:
    """The parts as those of the pipeline that paints into pictures, or not, where the network is of the other one."""
    pipeline, codec = parts.pipeline, parts.own_codec
    if pipeline.other is None or codec is None:
        return parts
    other = pipelines[pipeline.other]
    joined = parts.net.config.in_channels - codec.channels
    fits = joined == (0 if other.joined is None else 1 + codec.channels)  # a mask, and the masked picture's latents
    return replace(parts, pipeline=other) if fits else parts


def _read_network(folder: Path, pipeline: Pipeline, opening: Opening) -> Network:
    module = read_component(component_place(folder, pipeline.network), opening)
    if pipeline.embedder is not None:
        return labelled(module, read_component(folder / pipeline.embedder, opening), str(folder))
    if not isinstance(module, Network):
        raise CheckpointError(f"{folder / pipeline.network} holds a {type(module).__name__}, which denoises nothing")
    return module


def _read_codec(folder: Path, pipeline: Pipeline, opening: Opening) -> Codec:
    place = component_place(folder, pipeline.codec or "")
    module = read_component(place, opening)
    try:
        return codec_of(module, read_json(place / "config.json")["_class_name"], scaled=pipeline.scaled)
    except CheckpointError as error:
        raise CheckpointError(f"{place}: {error}") from error


def _small(folder: Path, index: Mapping[str, Any]) -> tuple[Schedule, Mapping[str, Any]] | None:
    place = folder / SMALL / SCHEDULER
    if not place.exists() and SMALL not in index:
        return None
    config = read_json(place)
    return read_scheduler(config).schedule, config


def _classes(parts: Parts) -> tuple[tuple[str, ...], int | None]:
    """Names of the classes, and which row of the labels is the null."""
    count, names = parts.net.config.num_labels, parts.settings.get("id2label")
    if names is None and "id2label" in parts.pipeline.settings:  # diffusers does not write what it was given
        names = {str(label): str(label) for label in range(count - 1)}
    if names is not None:  # one row more than names is the null
        return tuple(str(names[key]) for key in sorted(names, key=int)), len(names) if count > len(names) else None
    if parts.pipeline.embedder is not None:  # the last row is the null
        return tuple(map(str, range(count - 1))), count - 1
    if parts.pipeline.joined is not None or parts.text is not None:  # its labels are levels of noise
        return (), None
    return tuple(map(str, range(count))), None


def _drops_variance(parts: Parts) -> bool:
    """Whether the network says a variance that its own pipeline does not look at."""
    codec = parts.own_codec
    return codec is not None and parts.net.config.made == 2 * codec.channels


def _check_fit(bundle: Bundle, where: str) -> None:
    """Refuse components that do not fit one another.

    Raises:
        CheckpointError: naming both.
    """
    config, pipeline = bundle.net.config, bundle.pipeline
    learned = config.made == 2 * bundle.channels
    if bundle.own_codec is None:
        learned = config.made == 2 * config.in_channels
    if learned != bundle.learned_variance:
        raise CheckpointError(
            f"{where} says that the variance of this model is {'learned' if bundle.learned_variance else 'fixed'}, and "
            f"its network has {config.made} output channels for {config.in_channels} of the pictures"
        )
    if config.made != bundle.channels * (2 if learned else 1):
        raise CheckpointError(
            f"{where}: the network ({pipeline.network}) makes {config.made} channels and the codec "
            f"({pipeline.codec}) reads {bundle.channels}"
        )
    if bundle.joined < 0 or (bundle.joined > 0) != (pipeline.joined is not None):
        raise CheckpointError(
            f"{where}: the network ({pipeline.network}) reads {config.in_channels} channels, of which a "
            f"{pipeline.name} has {bundle.channels} to denoise and "
            f"{'a ' + pipeline.joined + ' to join' if pipeline.joined else 'nothing to join'}"
        )
    if (config.wants.text is None) != (bundle.text is None):
        reads, has = ("does not read", "a") if config.wants.text is None else ("reads", "no")
        raise CheckpointError(
            f"{where}: the network ({pipeline.network}) {reads} text, and a {pipeline.name} has {has} text encoder"
        )
    if bundle.text is not None:
        bundle.text.check(config.wants)


def _check_scale(bundle: Bundle) -> None:
    """Refuse a scale of latents that the model's own pipeline does not look at.

    Raises:
        CheckpointError: naming the field of the codec's configuration.
    """
    config = bundle.own_codec.net.config if isinstance(bundle.own_codec, KLCodec) else None
    ignored: dict[str, Any] = {} if config is None else {"shift_factor": config.shift_factor or None}
    if config is not None and (bundle.pipeline.family is None or bundle.pipeline.family.numbers is None):
        ignored["latents_mean"] = config.latents_mean  # SDXL's alone do
    for name, value in ignored.items():
        if value is not None:
            raise CheckpointError(
                f"the codec's configuration ({bundle.pipeline.codec}) says {name} = {value}, and a "
                f"{bundle.pipeline.name} does not look at it: take it out, or say of which pipeline the model is"
            )


def _with_card(parts: Parts, card: dict[str, Any], place: Path) -> Bundle:
    known = ("format", "version", "process", "parameterisation", "clock", "labels", "null_label", "sampling")
    for key in known:
        if key not in card:
            raise CheckpointError(f"{place} lacks {key}")
    if card["format"] != FORMAT:
        raise CheckpointError(
            f"{place} is of format {card['format']}; this version reads format {FORMAT}. Upgrade neblina."
        )
    for key in card["sampling"]:
        choose(f"sampling setting in {place}", key, Sampling.__dataclass_fields__)
    sampling = Sampling(**card["sampling"])
    if sampling.scheduler is not None:
        read_scheduler(sampling.scheduler)  # refused now rather than when pictures are asked for
    schedule = make_schedule(**card["process"])
    check_end(card["parameterisation"], card["clock"], schedule)
    bundle = Bundle(
        schedule=schedule,
        parameterisation=card["parameterisation"],
        clock=card["clock"],
        label_names=tuple(card["labels"]),
        null_label=card["null_label"],
        sampling=sampling,
        card={key: value for key, value in card.items() if key not in (*known, "learned_variance", "scheduler_lacks")},
        learned_variance=card.get("learned_variance", False),  # folders of before it was learned do not say
        **{each.name: getattr(parts, each.name) for each in fields(parts)},
    )
    _check_fit(bundle, str(place))
    return bundle


def _write(module: nn.Module, folder: Path) -> list[str]:
    """Write a component; what the index says of it."""
    write_component(module, folder)
    return ["diffusers", read_json(folder / "config.json")["_class_name"]]
