"""Named things a user chooses from: one line in a module registers it, everything else reads the table."""

from collections.abc import Iterator
from typing import Generic, TypeVar

from neblina.core.errors import choose

Entry = TypeVar("Entry")


class Registry(Generic[Entry]):
    """A table of entries by name; an entry may have several names (two names, one map)."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def add(self, entry: Entry, *names: str) -> Entry:
        """Register an entry under one or more names."""
        for name in names:
            if name in self._entries:
                raise ValueError(f"two entries claim the {self.kind} name {name!r}")
            self._entries[name] = entry
        return entry

    def __getitem__(self, name: str) -> Entry:
        """The entry of that name.

        Raises:
            SettingError: nothing of that name, with the closest name.
        """
        return self._entries[choose(self.kind, name, self._entries)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def items(self) -> Iterator[tuple[str, Entry]]:
        """Names with their entries."""
        return iter(self._entries.items())
