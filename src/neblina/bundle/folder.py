"""A model as a folder: `model_index.json`, a folder a component as diffusers writes them, and `neblina.json`.

`neblina.json` holds what diffusers has no place for (the process, the parameterisation, the classes, how to sample,
what it was trained with and measured at, and under `scheduler_lacks` what the scheduler's file could not say of how it
samples); a folder without it is read from diffusers' own files. Weights are
safetensors under the ecosystem's parameter names.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from neblina.bundle.bundle import Bundle
from neblina.bundle.card import bundle_of_card, card_of, check_scheduler
from neblina.bundle.components import Opening, codec_in, codec_of, labelled, read_component, write_component
from neblina.bundle.files import CARD, read_json, refuse_strangers, write_card, write_json
from neblina.bundle.index import (
    INDEX,
    SCHEDULER,
    SMALL,
    check_classes,
    class_of,
    component_place,
    kept_components,
    mixing,
    read_index,
)
from neblina.bundle.parts import Parts, foreign_bundle, painting
from neblina.bundle.pipelines import Pipeline
from neblina.bundle.schedulers import read_scheduler, write_scheduler
from neblina.bundle.texts import read_texts
from neblina.codecs.codec import Codec
from neblina.core.atomic import new_folder, recover
from neblina.core.errors import CheckpointError
from neblina.core.shards import Filing
from neblina.nets.network import Network
from neblina.processes.schedules import Schedule

LAYOUT = "0.42.0"  # of diffusers' folders; some of its pipelines do not open one that does not say
_OF_PICTURES = {
    "DDIMScheduler": "DDIMPipeline",
    "PNDMScheduler": "PNDMPipeline",
    "ScoreSdeVeScheduler": "ScoreSdeVePipeline",
}


def save_bundle(bundle: Bundle, folder: Path, filing: Filing | None = None) -> None:
    """Write the folder, all of it or nothing.

    Args:
        filing: variant and shards of the weights; None for one plain file a component.
    Raises:
        CheckpointError: something is there that this does not write.
        SettingError: the model's own sampling names a sampler that there is not.
        StorageError: the disk is full or refuses; what was there before is untouched.
    """
    pipeline = bundle.pipeline
    own = {INDEX, CARD, "scheduler", SMALL, *bundle.modules, *pipeline.text_parts, *bundle.kept}
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
    if pipeline.codec is None and scheduler is not None:
        name = _OF_PICTURES.get(scheduler["_class_name"], "DDPMPipeline")
    index: dict[str, Any] = {"_class_name": name, "_diffusers_version": LAYOUT}
    with new_folder(folder) as aside:
        for part in (pipeline.network, pipeline.embedder, pipeline.codec):
            if part in bundle.modules:
                index[str(part)] = _write(bundle.modules[str(part)], aside / str(part), filing)
        if bundle.text is not None:
            index |= {part: list(kind) for part, kind in bundle.text.save(aside, filing).items()}
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
        write_card(aside, card_of(bundle, written))


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
    if pipeline.tokens:
        raise CheckpointError(f"{folder} is a model of tokens ({pipeline.name}): open it with neblina.load_tokens")
    check_classes(folder, index, pipeline, [name for name in (pipeline.network, pipeline.embedder) if name])
    if codec is None and pipeline.codec is not None:
        check_classes(folder, index, pipeline, [pipeline.codec])
    opening = mixing(folder, index, opening)
    net = _read_network(folder, pipeline, opening)
    if codec is None and pipeline.codec is not None:
        codec = _read_codec(folder, pipeline, opening)
    parts = Parts(
        pipeline,
        {name: index[name] for name in pipeline.settings if name in index},
        net,
        None if codec is None else codec_in(pipeline, codec),
        read_texts(folder, pipeline, index, opening),
        _small(folder, index),
        kept_components(folder, index, pipeline),
    )
    card = folder / CARD
    if card.exists():
        said = read_json(card)
        check_scheduler(folder, index, said)
        return bundle_of_card(parts, said, card)
    parts = painting(parts)
    place = component_place(folder, "scheduler", SCHEDULER) / SCHEDULER
    kind = class_of(folder, index, pipeline, "scheduler")  # the index decides, as in diffusers
    return foreign_bundle(parts, {**read_json(place), "_class_name": kind}, str(place))


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
        return codec_of(module, read_json(place / "config.json")["_class_name"])
    except CheckpointError as error:
        raise CheckpointError(f"{place}: {error}") from error


def _small(folder: Path, index: Mapping[str, Any]) -> tuple[Schedule, Mapping[str, Any]] | None:
    place = folder / SMALL / SCHEDULER
    if not place.exists() and SMALL not in index:
        return None
    config = read_json(place)
    return read_scheduler(config).schedule, config


def _write(module: nn.Module, folder: Path, filing: Filing | None) -> list[str]:
    """Write a component; what the index says of it."""
    write_component(module, folder, filing)
    return ["diffusers", read_json(folder / "config.json")["_class_name"]]
