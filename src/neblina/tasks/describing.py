"""What is known about something that a user points at: a model, or a picture."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from neblina.core.errors import DataError
from neblina.tasks.foreign_parameters import read_foreign
from neblina.tasks.loading import load
from neblina.tasks.provenance import read_provenance
from neblina.tasks.token_making import asks_for_tokens
from neblina.tasks.token_model import load_tokens

_PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def describe(subject: str) -> dict[str, Any]:
    """What is known about a model (a path or a hub id) or a picture (a path).

    Raises:
        CheckpointError, SettingError: as `load`.
        DataError: a picture that does not say how it was made.
    """
    if Path(subject).suffix.lower() in _PICTURES:
        return describe_picture(Path(subject))
    if asks_for_tokens(subject):
        return load_tokens(subject, device="cpu").describe()
    return load(subject, device="cpu").describe()


def describe_picture(place: Path) -> dict[str, Any]:
    """How a picture was made, by what it says: this package's, AUTOMATIC1111's or ComfyUI's.

    Raises:
        DataError: it does not say.
    """
    try:
        facts = asdict(read_provenance(place))
    except DataError as error:
        try:
            foreign = read_foreign(place)
        except DataError:
            raise error from None
    else:
        if facts["arguments"].get("grid", "") is None:
            facts["arguments"]["grid"] = "the scheduler's own"
        return facts
    unmapped = {one.name: f"{one.value} ({one.reason})" for one in foreign.unmapped}
    return {
        "made by": foreign.source,
        "model": foreign.model,
        "model hash": foreign.model_hash,
        "arguments": dict(foreign.arguments),
        "not mapped": unmapped,
    }
