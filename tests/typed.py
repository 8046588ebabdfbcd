"""Commands as they are typed, in this process: they start in no time."""

import sys
from pathlib import Path
from typing import Protocol

import pytest

from neblina.cli.main import run


class Typed(Protocol):
    """What a command prints, after it ended with the exit status that is expected."""

    def __call__(self, *words: str, ends: int = 0) -> str: ...


def typed_in(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Commands in a folder."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "100")

    def command(*words: str, ends: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["neblina", *words])
        capsys.readouterr()
        try:
            run()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        said = "".join(capsys.readouterr())
        assert status == ends, said
        return said

    return command
