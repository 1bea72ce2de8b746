"""One Chromium for all tests of a file that want nothing special of it, and a server that writes what it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from lab.browsers.chromium import chromium
from rtc_server.app import Server
from tests.conftest import need_commands
from tests.support.transcribe_page import writing_server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Its microphone beeps. Starting it, and Playwright, takes as much work as a short test; each test has pages in
    contexts of its own."""
    need_commands("chromium")
    async with chromium() as running:
        yield running


@pytest.fixture
async def writing() -> AsyncIterator[Server]:
    async with writing_server() as server:
        yield server
