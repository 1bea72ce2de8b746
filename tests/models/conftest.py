"""Tiny checkpoints, written once a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtc_server.models.tiny import write_tiny_checkpoint


@pytest.fixture(scope="session")
def moshi_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny-moshi", "moshi")


@pytest.fixture(scope="session")
def stt_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny-stt", "stt")


@pytest.fixture(scope="session")
def hibiki_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny-hibiki", "hibiki")
