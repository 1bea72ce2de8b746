"""The page and a model that starts: it connects, says how long that takes, and talks as soon as the model is there."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, expect

from lab.browsers.chromium import local_url, start_talking, visited_page, wait_for_sessions, wait_for_state
from rtc_server.app import Server
from rtc_server.config import parse
from rtc_server.engine.client import EngineClient
from rtc_server.engine.local import LocalLink
from rtc_server.models.echo import EchoModel
from tests.browser.conftest import IN_A_BROWSER
from tests.conftest import UNLIMITED, need_commands

pytestmark = IN_A_BROWSER


@pytest.fixture(autouse=True)
def _needs() -> None:
    need_commands("chromium")


@contextlib.asynccontextmanager
async def loading(gate: threading.Event, took_s: float | None, *arguments: str) -> AsyncIterator[Server]:
    """A server whose model is loaded when ``gate`` opens. ``took_s``: what the start before has taken."""

    def load() -> EchoModel:
        assert gate.wait(60)
        return EchoModel(4)

    settings = parse(["--port", "0", "--model", "echo", *UNLIMITED, *arguments], environment={})
    server = Server(
        settings,
        make_engines=lambda _, metrics: {"echo": EngineClient("echo", lambda: LocalLink(load), metrics)},
    )
    engine = server.engines["echo"]
    assert isinstance(engine, EngineClient)
    engine._supervisor._start_took_s = took_s
    await server.start()
    try:
        yield server
    finally:
        gate.set()
        await server.stop(0.0)


async def test_it_waits_on_its_connection_and_counts_the_seconds(browser: Browser) -> None:
    gate = threading.Event()
    async with loading(gate, 90.0) as server, visited_page(browser, local_url(server)) as page:
        await page.get_by_test_id("start").click()
        await wait_for_state(page, "starting")
        await expect(page.get_by_test_id("state-detail")).to_have_text(
            re.compile(r"The model is starting, about [78]\d seconds\.")
        )
        await expect(page.locator("#announce")).to_contain_text("The model is starting")
        await expect(page.get_by_test_id("reset")).to_have_attribute("aria-disabled", "true")
        await expect(page.get_by_test_id("message")).to_be_hidden()
        await wait_for_sessions(server, 1)
        (session,) = server.registry
        gate.set()
        await wait_for_state(page, "speaking")
        assert list(server.registry) == [session]
        await expect(page.locator("#announce")).to_have_text("Connected. You can talk.")
        await expect(page.get_by_test_id("model")).to_have_text("echo on cpu")


async def test_where_nothing_is_known_it_promises_nothing_and_may_be_left(browser: Browser) -> None:
    gate = threading.Event()
    async with loading(gate, None) as server, visited_page(browser, local_url(server)) as page:
        await page.get_by_test_id("start").click()
        await wait_for_state(page, "starting")
        await expect(page.get_by_test_id("state-detail")).to_have_text(
            "The model is starting. You can talk as soon as it is there."
        )
        await page.get_by_test_id("start").click()
        await wait_for_state(page, "ended")
        await wait_for_sessions(server, 0)
        gate.set()
        await server.wait_ready()
        await start_talking(page)


async def test_one_that_does_not_come_is_said_and_another_try_offered(browser: Browser) -> None:
    gate = threading.Event()
    async with loading(gate, None, "--wait-s", "1") as server, visited_page(browser, local_url(server)) as page:
        await page.get_by_test_id("start").click()
        await wait_for_state(page, "ended")
        await expect(page.get_by_test_id("message")).to_have_attribute("data-code", "engine_unavailable")
        await expect(page.get_by_test_id("retry")).to_be_visible()
        await wait_for_sessions(server, 0)
