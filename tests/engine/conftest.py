"""What tests of engines set up."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def no_restart_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtc_server.engine.supervisor._RESTART_PAUSES_S", (0.0,))


@pytest.fixture
def private_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where engines make their directories, apart from those of others on this machine. Short: the path of a
    socket has at most 107 characters."""
    with tempfile.TemporaryDirectory(prefix="t-") as directory:
        monkeypatch.setattr(tempfile, "tempdir", directory)
        monkeypatch.setenv("TMPDIR", directory)
        yield Path(directory)
