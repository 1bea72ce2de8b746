"""One Chromium for all tests of a file that want nothing special of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Browser

from lab.browsers.chromium import chromium
from tests.conftest import need_commands


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Its microphone beeps. Starting it, and Playwright, takes as much work as a short test; each test has pages in
    contexts of its own."""
    need_commands("chromium")
    async with chromium() as running:
        yield running
