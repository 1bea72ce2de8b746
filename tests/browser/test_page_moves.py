"""The media server that a page talks with stops, and another one goes on: its user hears a pause, and sees nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from lab.browsers.chromium import wait_for_sessions
from lab.engine_process import key_file
from lab.network.front import Front
from lab.serving import started
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.config import Settings
from tests.browser.conftest import IN_A_BROWSER
from tests.support.resume_page import HEARD, counted, events_of, session_of, talking, until_counted
from tests.support.served import served

pytestmark = [pytest.mark.alone, *IN_A_BROWSER]
_SLOTS = 2


@contextlib.asynccontextmanager
async def two_servers(directory: Path) -> AsyncIterator[tuple[str, dict[str, Server]]]:
    """By one address, with one engine, whose model counts frames; and both of them by their names."""
    with served(_SLOTS) as engine:
        async with contextlib.AsyncExitStack() as stack:
            settings = {"engine_at": (f"dialogue={engine.address}",), "cluster_key": str(key_file(directory))}
            servers = {
                name: await stack.enter_async_context(
                    started(Server(Settings(port=0, node=name, stt="none", max_lag_ms=100_000, **settings)))  # type: ignore[arg-type]
                )
                for name in ("a", "b")
            }
            front = Front({name: f"127.0.0.1:{server.port}" for name, server in servers.items()})
            port = await stack.enter_async_context(front.listening("127.0.0.1", 0))
            yield f"http://localhost:{port}", servers


async def test_a_conversation_goes_on_at_another_server_while_its_own_stops(browser: Browser, tmp_path: Path) -> None:
    """By itself: without a word to the user, without a state in between, and with what the model remembers."""
    async with two_servers(tmp_path) as (url, servers), talking(browser, url) as page:
        name = (await session_of(page)).partition("-")[0]
        stopping, staying = servers[name], servers["b" if name == "a" else "a"]
        transcript = page.get_by_test_id("transcript").locator("p")
        await until_counted(page, 3)
        drain = asyncio.create_task(stopping.admission.drain(60.0))
        await wait_for_sessions(staying, 1)
        await asyncio.wait_for(drain, 20)
        await page.wait_for_selector(HEARD)
        before = await counted(page)
        await until_counted(page, before[-1] + 3)
        numbers = await counted(page)
        assert numbers == sorted(set(numbers)), "none twice, and none of a model that has forgotten"
        assert (await session_of(page)).startswith(f"{staying.settings.node}-")
        states = [event["state"] for event in await events_of(page, "state")]
        assert "reconnecting" not in states, states
        assert await events_of(page, "retrying") == []
        await expect(page.get_by_test_id("message")).to_be_hidden()
        await expect(transcript).to_have_count(1)
        await until(lambda: len(stopping.registry) == 0)


async def test_a_conversation_that_finds_no_other_server_at_once_tries_on(browser: Browser, tmp_path: Path) -> None:
    """The other one takes no client in for a while: the voice goes on by the server that stops."""
    async with two_servers(tmp_path) as (url, servers), talking(browser, url) as page:
        name = (await session_of(page)).partition("-")[0]
        stopping, other = servers[name], servers["b" if name == "a" else "a"]
        other.admission.draining = True
        drain = asyncio.create_task(stopping.admission.drain(60.0))
        async with page.expect_response(
            lambda response: response.url.endswith("/api/offer") and response.status == 503
        ):
            pass
        before = await counted(page)
        await until_counted(page, (before or [0])[-1] + 3)
        assert len(stopping.registry) == 1
        other.admission.draining = False
        await wait_for_sessions(other, 1)
        await asyncio.wait_for(drain, 20)
        await page.wait_for_selector(HEARD)
        assert "reconnecting" not in [event["state"] for event in await events_of(page, "state")]
