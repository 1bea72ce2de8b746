"""A conversation that is lost comes back by itself as long as that makes sense, and can be ended meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, Page, expect

from lab.browsers.chromium import (
    call_of,
    local_url,
    microphones,
    spy_on,
    start_talking,
    visited_page,
    wait_for_events,
    wait_for_sessions,
    wait_for_state,
)
from rtc_server.app import Server
from rtc_server.sessions.state import EndReason
from tests.browser.conftest import IN_A_BROWSER
from tests.conftest import need_commands, running_server
from tests.support.server_process import server_process

pytestmark = IN_A_BROWSER

# The browser's own notes on requests that failed, which are many while a server is away.
TOLERATED = ["Failed to load resource"]
BACK_MS = 30_000


@pytest.fixture(autouse=True)
def _needs() -> None:
    need_commands("chromium")


@contextlib.asynccontextmanager
async def talking_page(browser: Browser, url: str) -> AsyncIterator[Page]:
    """A page in a conversation. Its clock can be put forward, and until then runs as the clock on the wall."""
    async with visited_page(browser, "about:blank", tolerate=TOLERATED) as page:
        await spy_on(page)
        await page.clock.install()
        await page.goto(url)
        await start_talking(page)
        yield page


async def expect_conversation(page: Page, server: Server, other_than: str) -> None:
    """Connected again, in a session that is not the one before, with sound on its way back."""
    await wait_for_state(page, "speaking", timeout_ms=BACK_MS)
    assert await page.evaluate("window.__voice.sessionId") not in (None, other_than)
    await page.wait_for_selector("[data-testid=meter-voice]:not([aria-valuenow='0'])")
    await expect(page.get_by_test_id("message")).to_be_hidden()
    await wait_for_sessions(server, 1)


async def wait_long(page: Page) -> None:
    """Put the page's clock forward by more than it ever waits between two tries."""
    await page.clock.fast_forward(9_000)


async def test_an_engine_that_dies_costs_a_moment(browser: Browser) -> None:
    """The page says what has happened, stays connected, and the voice is heard again."""
    async with (
        running_server("--model", "echo", "--engine", "process") as server,
        talking_page(browser, local_url(server)) as page,
    ):
        await wait_for_state(page, "speaking")
        before = await page.evaluate("window.__voice.sessionId")
        pid = server.engines["echo"].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await expect(page.get_by_test_id("message")).to_contain_text("The model stopped working")
        await wait_for_state(page, "speaking")
        await expect(page.get_by_test_id("message")).to_be_hidden(timeout=20_000)
        assert await page.evaluate("window.__voice.sessionId") == before
        # The light of the microphone never went out: one track, from the beginning.
        assert await microphones(page) == ["live"]


async def test_a_server_that_falls_silent(browser: Browser) -> None:
    """For a moment: the page says that the connection is unsteady, and the session goes on. For good: it reconnects."""
    async with server_process("--model", "echo") as remote:
        await remote.wait_ready()
        async with talking_page(browser, remote.url) as page:
            session = await page.evaluate("window.__voice.sessionId")
            detail = page.get_by_test_id("state-detail")
            remote.signal(signal.SIGSTOP)
            # A second later it is lost: this looks twice a second at least, where an expectation would look once.
            await page.wait_for_selector(
                "[data-testid=state-detail]:text-is('The connection is unsteady.')", timeout=15_000
            )
            remote.signal(signal.SIGCONT)
            await expect(detail).not_to_have_text("The connection is unsteady.")
            await wait_for_state(page, "speaking")
            assert await page.evaluate("window.__voice.sessionId") == session
            await remote.kill()
            await wait_for_state(page, "reconnecting")
            await expect(detail).to_contain_text("Trying again")
            await page.keyboard.press("Escape")
            await wait_for_state(page, "ended")


async def test_a_server_that_is_started_anew_has_its_visitors_back(browser: Browser) -> None:
    """Muted they were, and muted they stay."""
    async with contextlib.AsyncExitStack() as stack:
        async with running_server("--model", "echo") as first:
            page = await stack.enter_async_context(talking_page(browser, local_url(first)))
            before = await page.evaluate("window.__voice.sessionId")
            await page.get_by_test_id("mute").click()
        await wait_for_state(page, "reconnecting")
        await wait_for_events(page, "retrying", 2)
        async with running_server("--model", "echo", "--port", str(first.port)) as second:
            await wait_for_state(page, "listening", timeout_ms=BACK_MS)
            await expect(page.get_by_test_id("mute")).to_have_attribute("aria-pressed", "true")
            call = await call_of(page, second)
            assert (await call.stats()).level_in_dbfs <= -99
            await page.get_by_test_id("mute").click()
            await expect_conversation(page, second, other_than=before)
            await page.get_by_test_id("start").click()
            await wait_for_state(page, "ended")


async def test_end_is_heard_while_the_page_reconnects(browser: Browser) -> None:
    """It stops trying, switches the microphone off, and does not come back when the server does."""
    async with contextlib.AsyncExitStack() as stack:
        async with running_server("--model", "echo") as first:
            page = await stack.enter_async_context(talking_page(browser, local_url(first)))
        await wait_for_state(page, "reconnecting")
        await wait_for_events(page, "retrying", 2)
        await expect(page.get_by_test_id("start")).to_have_text("End")
        await page.get_by_test_id("start").click()
        await wait_for_state(page, "ended")
        await expect(page.get_by_test_id("state-detail")).to_have_text("You ended the conversation.")
        await expect(page.get_by_test_id("message")).to_be_hidden()
        assert await microphones(page) == ["ended"]
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        async with running_server("--model", "echo", "--port", str(first.port)):
            for _ in range(3):
                await wait_long(page)
            assert await page.evaluate("window.__voice.state") == "ended"
            assert requests == []
            await start_talking(page)


async def test_a_server_that_stays_away_is_given_up(browser: Browser) -> None:
    """After a minute; then the page says why, and a button starts over."""
    async with contextlib.AsyncExitStack() as stack:
        async with running_server("--model", "echo") as first:
            page = await stack.enter_async_context(talking_page(browser, local_url(first)))
        await wait_for_state(page, "reconnecting")
        began = time.monotonic()
        state = "reconnecting"
        while state == "reconnecting":
            assert time.monotonic() - began < 90, "it never gives up"
            tries = await page.evaluate("window.__voice.events.filter(({ type }) => type === 'retrying').length")
            await wait_long(page)
            await page.wait_for_function(
                "(tries) => window.__voice.state === 'ended'"
                " || window.__voice.events.filter(({ type }) => type === 'retrying').length > tries",
                arg=tries,
            )
            state = await page.evaluate("window.__voice.state")
        assert state == "ended"
        message = page.get_by_test_id("message")
        await expect(message).to_have_attribute("data-code", "gave_up")
        await expect(message).to_contain_text("Could not reconnect")
        await expect(message).to_contain_text("The last attempt: the server does not answer.")
        assert await microphones(page) == ["ended"]
        async with running_server("--model", "echo", "--port", str(first.port)) as second:
            await page.get_by_test_id("retry").click()
            await expect_conversation(page, second, other_than="")


async def test_a_return_that_is_refused_for_good_ends_it(browser: Browser, server: Server) -> None:
    """Where trying again cannot help, the page does not go on trying."""
    async with talking_page(browser, local_url(server)) as page:
        error = {"error": {"code": "no_common_codec", "message": "None of the codecs.", "retryable": False}}
        await page.route("**/api/offer", lambda route: route.fulfill(status=422, json=error))
        (await call_of(page, server)).end(EndReason.PEER_LOST)
        await wait_for_state(page, "ended")
        await expect(page.get_by_test_id("message")).to_have_attribute("data-code", "no_common_codec")
        await expect(page.get_by_test_id("retry")).to_be_hidden()


async def test_a_conversation_that_is_ended_from_outside_stays_ended(browser: Browser, server: Server) -> None:
    """A client that has the session's id may end it: that is no loss to recover from, and the button starts another."""
    async with talking_page(browser, local_url(server)) as page:
        session = await page.evaluate("window.__voice.sessionId")
        response = await page.request.delete(f"{local_url(server)}api/sessions/{session}")
        assert response.status == 204
        await wait_for_state(page, "ended")
        await expect(page.get_by_test_id("message")).to_have_attribute("data-code", "deleted")
        await page.get_by_test_id("retry").click()
        await expect_conversation(page, server, other_than=session)
