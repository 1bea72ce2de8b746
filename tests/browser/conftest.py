"""One Chromium for all tests of these files that want nothing special of it, and the servers that most of them visit.

They run in one event loop, for the browser's connection is of the one in which it was started.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from lab.browsers.chromium import chromium
from rtc_server.app import Server
from tests.conftest import need_commands, running_server
from tests.support.transcribe_page import writing_server

# Playwright's own five seconds are the page's and those of a machine with other work.
expect.set_options(timeout=20_000)

IN_A_BROWSER: Final = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]
"""The marks of every file here."""


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Its microphone beeps. Starting it, and Playwright, takes as much work as a short test; each test has pages in
    contexts of its own."""
    need_commands("chromium")
    async with chromium() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def server() -> AsyncIterator[Server]:
    """An echo server."""
    async with running_server("--model", "echo") as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def writing() -> AsyncIterator[Server]:
    """One that writes what it is told."""
    async with writing_server() as running:
        yield running
