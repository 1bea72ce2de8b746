"""What the foreign clients talk to."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from rtc_server.app import Server
from tests.conftest import need_commands, running_server


@pytest.fixture
async def pico() -> AsyncIterator[Server]:
    """A server with the bundled model, and one place."""
    need_commands("espeak-ng")
    async with running_server("--model", "pico", "--slots", "1", "--stt", "none") as server:
        yield server
