"""The values of a configuration, of which every one is asked for or refused."""

from collections.abc import Mapping
from typing import Any

from neblina.bundle.schedulers.fields import FIELDS, LEFT_OVER, REFUSED
from neblina.bundle.schedulers.ranges import RANGES
from neblina.core.errors import CheckpointError, choose

_LONG = 120  # characters of a value in a message; a table of betas has thousands


class Values:
    """A scheduler's fields. A reader asks for what it gives a meaning to; `close` refuses what nobody asked for.

    Args:
        config: a `scheduler_config.json`.
    Raises:
        CheckpointError: no scheduler's name, one without a counterpart here, or a value of another kind or range.
        SettingError: a field that the scheduler does not have.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.kind = _kind(config)
        if self.kind in REFUSED:
            raise CheckpointError(f"scheduler {self.kind} cannot be read: {REFUSED[self.kind]}")
        if self.kind not in FIELDS:
            raise CheckpointError(f"scheduler {self.kind} cannot be read; there is: {', '.join(FIELDS)}")
        given = {
            key: value for key, value in config.items() if not (key.startswith("_") or self._left_over(key, value))
        }
        for key in given:
            choose(f"field of {self.kind}", key, FIELDS[self.kind])
        self._values = {**FIELDS[self.kind], **given}
        self._open = set(self._values)
        self._check()

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
        return CheckpointError(f"{self.kind}: {field} = {_shown(self._values[field])} is not supported: {reason}")

    def close(self) -> None:
        """Refuse what was not asked for, unless it has its default.

        Raises:
            CheckpointError: naming the field.
        """
        for field in sorted(self._open):
            if self._values[field] != FIELDS[self.kind][field]:
                raise self.refusal(field, "it has no meaning here beside the other fields")

    def _left_over(self, field: str, value: Any) -> bool:
        """Whether a field is another scheduler's and asks for nothing.

        Raises:
            CheckpointError: it is another scheduler's and asks for something.
        """
        if field in FIELDS[self.kind] or field not in LEFT_OVER:
            return False
        if value is None or value is False or value in LEFT_OVER[field]:
            return True
        raise CheckpointError(
            f"{self.kind}: {field} = {_shown(value)} is not supported: it is another scheduler's, and diffusers passes "
            "over it; take it out to sample without it"
        )

    def _check(self) -> None:
        """Refuse a value of another kind or range."""
        for field, value in self._values.items():
            nothing = value is None and FIELDS[self.kind][field] is None
            if not nothing and not RANGES[field].holds(value):
                raise self.refusal(field, f"it is {RANGES[field].says}")
        low, high = self._values.get("sigma_min"), self._values.get("sigma_max")
        if low is not None and high is not None and low >= high:
            raise self.refusal("sigma_min", f"it lies below sigma_max, which is {high:g}")


def _shown(value: Any) -> str:
    """A value as it is written, its beginning where it is long."""
    text = repr(value)
    return text if len(text) <= _LONG else f"{text[: _LONG // 2]} … ({len(text):,} characters)"


def _kind(config: Mapping[str, Any]) -> str:
    kind = config.get("_class_name")
    if not isinstance(kind, str):
        raise CheckpointError(
            f"a scheduler's configuration says its class in _class_name, and this one says {kind!r}: write it in, such "
            "as DDPMScheduler, or save the scheduler again"
        )
    return kind
