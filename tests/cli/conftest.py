"""Commands as they are typed in a new folder."""

from functools import partial
from pathlib import Path

import pytest
from typed import Typed, typed_in


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    return typed_in(tmp_path, monkeypatch, capsys)


@pytest.fixture
def refused(typed: Typed) -> Typed:
    """What is said of a mistake."""
    return partial(typed, ends=1)
