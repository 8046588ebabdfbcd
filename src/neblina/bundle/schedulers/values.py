"""The values of a configuration, of which every one is asked for or refused."""

from collections.abc import Mapping
from typing import Any

from neblina.bundle.schedulers.fields import FIELDS, REFUSED
from neblina.core.errors import CheckpointError, choose


class Values:
    """A scheduler's fields. A reader asks for what it gives a meaning to; `close` refuses what nobody asked for.

    Args:
        config: a `scheduler_config.json`.
    Raises:
        CheckpointError: a scheduler without a counterpart here.
        SettingError: a field that the scheduler does not have.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.kind = str(config.get("_class_name", "DDPMScheduler"))
        if self.kind in REFUSED:
            raise CheckpointError(f"scheduler {self.kind} cannot be read: {REFUSED[self.kind]}")
        if self.kind not in FIELDS:
            raise CheckpointError(f"scheduler {self.kind} cannot be read; there is: {', '.join(FIELDS)}")
        given = {key: value for key, value in config.items() if not key.startswith("_")}
        for key in given:
            choose(f"field of {self.kind}", key, FIELDS[self.kind])
        self._values = {**FIELDS[self.kind], **given}
        self._open = set(self._values)

    def __contains__(self, field: str) -> bool:
        """Whether the scheduler has the field."""
        return field in self._values

    def take(self, field: str) -> Any:
        """The value of a field that has a meaning here, whatever it is."""
        self._open.discard(field)
        return self._values[field]

    def flag(self, field: str) -> bool:
        """The value of a field that the scheduler may lack: False then."""
        return field in self and bool(self.take(field))

    def one_of(self, field: str, meanings: Mapping[Any, Any]) -> Any:
        """What the field's value means.

        Raises:
            CheckpointError: the value is not in the table.
        """
        value = self.take(field)
        if value not in meanings:
            raise self.refusal(field, f"it can be {' or '.join(map(repr, meanings))}")
        return meanings[value]

    def only(self, field: str, value: Any, reason: str) -> None:
        """Refuse every value of a field but one; a scheduler without the field passes.

        Raises:
            CheckpointError: it has another value.
        """
        if field in self and self.take(field) != value:
            raise self.refusal(field, reason)

    def idle(self, *fields: str) -> None:
        """Fields that mean nothing beside the values of others."""
        self._open -= set(fields)

    def refusal(self, field: str, reason: str) -> CheckpointError:
        """The error that names a field, its value and the reason."""
        return CheckpointError(f"{self.kind}: {field} = {self._values[field]!r} is not supported: {reason}")

    def close(self) -> None:
        """Refuse what was not asked for, unless it has its default.

        Raises:
            CheckpointError: naming the field.
        """
        for field in sorted(self._open):
            if self._values[field] != FIELDS[self.kind][field]:
                raise self.refusal(field, "it has no meaning here beside the other fields")
