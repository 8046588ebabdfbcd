"""What `neblina.json` says of a model, written and read.

The scheduler's file beside it is written for others, and says less. What was written there is kept in the card: a
scheduler that somebody has put in its place since would otherwise be passed over without a word.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from neblina.bundle.bundle import Bundle
from neblina.bundle.files import CARD, FORMAT, read_json
from neblina.bundle.index import INDEX, SCHEDULER
from neblina.bundle.parts import Parts, check_fit
from neblina.bundle.schedulers import Sampling, Written, read_scheduler, with_defaults
from neblina.codecs.fold import Fold
from neblina.core.errors import CheckpointError, choose
from neblina.denoisers.parameterisations import check_end
from neblina.processes.schedules import make_schedule

WRITTEN = "scheduler_written"
FOLD = "fold"
_OPTIONAL = ("learned_variance", "scheduler_lacks", WRITTEN, FOLD)


def card_of(bundle: Bundle, written: Written) -> dict[str, Any]:
    """What the card of a model says, beside format and version.

    Args:
        written: the scheduler's file beside it.
    """
    return {
        "process": bundle.schedule.config(),
        "parameterisation": bundle.parameterisation,
        "clock": bundle.clock,
        "labels": list(bundle.label_names),
        "null_label": bundle.null_label,
        "learned_variance": bundle.learned_variance,
        "sampling": asdict(bundle.sampling),
        "scheduler_lacks": list(written.lacks),
        WRITTEN: written.config,
        **({FOLD: bundle.own_codec.factor} if isinstance(bundle.own_codec, Fold) else {}),
        **bundle.card,
    }


def check_scheduler(folder: Path, index: Mapping[str, Any], card: Mapping[str, Any]) -> None:
    """Refuse a scheduler that is not the one that was written with the card. Cards of before do not say which it was.

    Raises:
        CheckpointError: naming what differs, and both files.
    """
    written, place = card.get(WRITTEN), folder / "scheduler" / SCHEDULER
    listed = index.get("scheduler") or [None, None]
    if WRITTEN not in card or (written is None and listed[1] is None):
        return
    there = {**read_json(place), "_class_name": listed[1]}  # the index decides, as in diffusers
    own, other = with_defaults(written or {"_class_name": None}), with_defaults(there)
    for name in [*own, *other]:
        if own.get(name) != other.get(name):
            raise CheckpointError(
                f"{folder / INDEX} and {place} say {name.removeprefix('_')} = {other.get(name)}, and {folder / CARD}, "
                f"which decides how this model samples, was written with {own.get(name)}: delete {CARD} to follow the "
                "scheduler, or put the scheduler back"
            )


def bundle_of_card(parts: Parts, card: Mapping[str, Any], place: Path) -> Bundle:
    """The model of a card and of the components beside it.

    Args:
        place: of the card, for messages.
    Raises:
        CheckpointError: the card lacks an entry or is of another format, or the components do not fit.
        SettingError: a setting of its sampling that there is not.
    """
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
    if card.get(FOLD) is not None:
        parts = replace(parts, own_codec=_fold(parts, card[FOLD], place))
    schedule = make_schedule(**card["process"])
    check_end(card["parameterisation"], card["clock"], schedule)
    bundle = Bundle(
        schedule=schedule,
        parameterisation=card["parameterisation"],
        clock=card["clock"],
        label_names=tuple(card["labels"]),
        null_label=card["null_label"],
        sampling=sampling,
        card={key: value for key, value in card.items() if key not in (*known, *_OPTIONAL)},
        learned_variance=card.get("learned_variance", False),  # folders of before it was learned do not say
        **{each.name: getattr(parts, each.name) for each in fields(parts)},
    )
    check_fit(bundle, str(place))
    return bundle


def _fold(parts: Parts, factor: Any, place: Path) -> Fold:
    """The codec without weights that a card says, where the network's channels can be its cells.

    Raises:
        CheckpointError: naming both.
    """
    channels = parts.net.config.in_channels
    if not isinstance(factor, int) or factor < 2 or channels % factor**2 or parts.own_codec is not None:
        has = "a codec of its own" if parts.own_codec is not None else f"a network of {channels} channels"
        raise CheckpointError(f"{place} says {FOLD} = {factor!r}, and the model has {has}, which cannot be so folded")
    return Fold(channels // factor**2, factor)
