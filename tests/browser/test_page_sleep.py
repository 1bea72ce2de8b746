"""A page whose network changes, or which sleeps or stands still for a while, goes on in its conversation."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest
from playwright.async_api import Browser, Page

from lab.browsers.chromium import (
    server_status,
)
from rtc_server.app import Server
from tests.browser.conftest import IN_A_BROWSER
from tests.support.paths import paths_to
from tests.support.resume_page import HEARD, events_of, expect_resumed, session_of, talking, wait_for_loss

pytestmark = IN_A_BROWSER

NO_SILENCE = {"**/connection/liveness.js": ("DEAD_MS = 3_500", "DEAD_MS = 600_000")}
"""With it the page takes no silence for a loss while it is watched."""


async def wait_until_server_waits(server: Server, count: int = 1) -> None:
    """The server has noticed that its client has gone, or (``count`` 0) is back."""
    deadline = time.monotonic() + 30
    while (await server_status(server))["sessions"].get("waiting", 0) != count:
        assert time.monotonic() < deadline, "the server has not noticed"
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def asleep(browser: Browser) -> AsyncIterator[None]:
    """Not one of the browser's processes runs."""
    devtools = await browser.new_browser_cdp_session()
    listed = await devtools.send("SystemInfo.getProcessInfo")
    processes = [psutil.Process(int(one["id"])) for one in listed["processInfo"]]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


@contextlib.asynccontextmanager
async def standing_still(page: Page) -> AsyncIterator[None]:
    """Not a line of the page's script runs, as in a tab that is frozen; its media go on. (The browser does not freeze
    a page that it takes for visible, as it does those of a test.)"""
    devtools = await page.context.new_cdp_session(page)
    paused: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    devtools.once("Debugger.paused", lambda event: paused.set_result(event))  # noqa: PLW0108 - not a built-in
    await devtools.send("Debugger.enable")
    await devtools.send("Debugger.pause")
    await asyncio.wait_for(paused, 10)
    try:
        yield
    finally:
        await devtools.send("Debugger.resume")
        await devtools.send("Debugger.disable")


async def test_a_change_of_the_network_is_noticed_at_once(browser: Browser, server: Server) -> None:
    """Before any silence that says so otherwise; and what the path survives is no loss."""
    async with paths_to(server) as paths, talking(browser, paths.url, scripts=NO_SILENCE) as page:
        session = await session_of(page)
        stats = "window.__voice.events.filter(({ type, detail }) => type === 'message' && detail.type === 'stats')"
        await page.context.set_offline(True)
        await page.context.set_offline(False)
        before = await page.evaluate(f"{stats}.at(-1)?.at_ms ?? 0")
        await page.wait_for_function(f"(before) => {stats}.at(-1)?.at_ms > before + 1500", arg=before)
        assert await events_of(page, "retrying") == []

        paths.cut()
        await page.context.set_offline(True)
        await wait_for_loss(page)
        await page.context.set_offline(False)
        await expect_resumed(page, server, session)


@pytest.mark.parametrize("path", ["survives", "dies"])
async def test_a_device_that_slept_goes_on_when_it_wakes(browser: Browser, server: Server, path: str) -> None:
    """Its clocks stood still and nothing came in; meanwhile the server has noticed. Where the network has forgotten
    the path as well, there is a new one."""
    async with paths_to(server) as paths, talking(browser, paths.url) as page:
        session = await session_of(page)
        async with asleep(browser):
            await wait_until_server_waits(server)
            if path == "dies":
                paths.cut()
        await wait_until_server_waits(server, count=0)
        await page.wait_for_selector(HEARD)
        assert await session_of(page) == session
        assert paths.count == (2 if path == "dies" else 1)
        if path == "dies":
            await expect_resumed(page, server, session)


async def test_a_page_that_stood_still_goes_on(browser: Browser, server: Server) -> None:
    """Meanwhile it notices nothing; the time since its last look tells it, as soon as it runs again."""
    async with paths_to(server) as paths, talking(browser, paths.url) as page:
        session = await session_of(page)
        async with standing_still(page):
            paths.cut()
            await wait_until_server_waits(server)
        await wait_for_loss(page)
        await expect_resumed(page, server, session)
