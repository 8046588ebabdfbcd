"""How the components of a model go together: what a scheduler's configuration says of them, and whether they fit."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from neblina.bundle.bundle import Bundle
from neblina.bundle.index import Kept
from neblina.bundle.pipelines import Pipeline, pipelines
from neblina.bundle.schedulers import read_scheduler, repaired, sampling_of
from neblina.bundle.texts import Texts
from neblina.codecs.codec import Codec
from neblina.codecs.kl import KLCodec
from neblina.core.errors import CheckpointError
from neblina.nets.network import Network
from neblina.processes.schedules import Schedule


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
    check_fit(bundle, where)
    _check_scale(bundle)
    return bundle


def painting(parts: Parts) -> Parts:
    """The parts as those of the pipeline that paints into pictures, or not, where the network is of the other one."""
    pipeline, codec = parts.pipeline, parts.own_codec
    if pipeline.other is None or codec is None:
        return parts
    other = pipelines[pipeline.other]
    joined = parts.net.config.in_channels - codec.channels
    fits = joined == (0 if other.joined is None else 1 + codec.channels)  # a mask, and the masked picture's latents
    return replace(parts, pipeline=other) if fits else parts


def check_fit(bundle: Bundle, where: str) -> None:
    """Refuse components that do not fit one another.

    Raises:
        CheckpointError: naming both.
    """
    config, pipeline = bundle.net.config, bundle.pipeline
    learned = config.made == 2 * bundle.channels
    if pipeline.codec is None:
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
