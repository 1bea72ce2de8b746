"""A page whose server does not hold the conversation any more begins another, and says so."""

from __future__ import annotations

import contextlib
import re

import pytest
from playwright.async_api import Browser, Request, Route, expect

from lab.browsers.chromium import (
    call_of,
    local_url,
    start_talking,
    visited_page,
    wait_for_sessions,
    wait_for_state,
)
from rtc_server.app import Server
from tests.browser.conftest import IN_A_BROWSER
from tests.conftest import running_server
from tests.support.paths import paths_to
from tests.support.resume_page import BACK_MS, TOLERATED, events_of, say, session_of, talking, wait_for_loss
from tests.support.server_process import server_process

pytestmark = IN_A_BROWSER


ANEW = "It will be a new conversation."


async def test_a_session_that_was_given_up_is_followed_by_a_new_one(browser: Browser) -> None:
    """Its grace is over: the page says that what comes is a new conversation, and begins a paragraph."""
    async with (
        running_server("--model", "echo", "--resume-grace-s", "1") as server,
        paths_to(server) as paths,
        talking(browser, paths.url) as page,
    ):
        session = await session_of(page)
        await say(page, server, "Before.")
        await expect(page.get_by_test_id("transcript").locator("p")).to_have_text("Before.")
        await page.route("**/api/offer", lambda route: route.abort())
        paths.cut()
        await wait_for_loss(page)
        await wait_for_sessions(server, 0)
        await page.unroute("**/api/offer")
        await wait_for_state(page, "listening", "speaking", timeout_ms=BACK_MS)
        assert await session_of(page) != session
        await expect(page.locator("#announce")).to_have_text("Connected again. This is a new conversation.")
        assert (await events_of(page, "retrying"))[-1]["resuming"] is False
        await say(page, server, "After.")
        await expect(page.get_by_test_id("transcript").locator("p")).to_have_text(["Before.", "After."])


@pytest.mark.parametrize(
    ("status", "code"), [(403, "resume_refused"), (404, "unknown_session"), (410, "session_ended")]
)
async def test_a_resume_that_is_refused(browser: Browser, server: Server, status: int, code: str) -> None:
    """A new conversation, and no ghost of the old one; the user reads which of the two it is."""
    async with paths_to(server) as paths, talking(browser, paths.url) as page:
        session = await session_of(page)
        refused = {"error": {"code": code, "message": "No.", "retryable": False}}
        details: list[str] = []

        async def refuse(route: Route, request: Request) -> None:
            if "resume" in request.post_data_json:
                await route.fulfill(status=status, json=refused)
                return
            details.append(await page.get_by_test_id("state-detail").inner_text())
            await route.continue_()

        await page.route("**/api/offer", refuse)
        paths.cut()
        await wait_for_loss(page)
        await wait_for_state(page, "listening", "speaking", timeout_ms=BACK_MS)
        assert await session_of(page) != session
        assert [ANEW in detail for detail in details] == [True]
        if code == "resume_refused":
            await wait_for_sessions(server, 1)


async def test_a_server_that_was_killed_knows_nothing(browser: Browser) -> None:
    """The one in its place has never heard of the session: a new conversation, muted as the old one was."""
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(server_process("--model", "echo"))
        await first.wait_ready()
        page = await stack.enter_async_context(talking(browser, first.url.replace("127.0.0.1", "localhost")))
        session = await session_of(page)
        await page.get_by_test_id("mute").click()
        await first.kill()
        await wait_for_loss(page)
        async with running_server("--model", "echo", "--port", first.url.rpartition(":")[2]) as second:
            await wait_for_state(page, "listening", "speaking", timeout_ms=BACK_MS)
            assert await session_of(page) != session
            await expect(page.locator("#announce")).to_have_text("Connected again. This is a new conversation.")
            assert (await (await call_of(page, second)).stats()).level_in_dbfs <= -99
            await page.keyboard.press("Escape")
            await wait_for_state(page, "ended")


async def test_a_server_without_resume(browser: Browser) -> None:
    """As before there was one: a loss is the end of the conversation, and another begins."""
    async with (
        running_server("--model", "echo", "--resume-grace-s", "0") as server,
        paths_to(server) as paths,
        talking(browser, paths.url) as page,
    ):
        session = await session_of(page)
        paths.cut()
        await wait_for_loss(page)
        assert (await events_of(page, "retrying"))[-1]["resuming"] is False
        await wait_for_state(page, "listening", "speaking", timeout_ms=BACK_MS)
        assert await session_of(page) != session


# What the notice says, one after the other.
_NOTE_ENDING = """
() => {
  window.endings = [];
  const ending = document.querySelector('[data-testid=ending]');
  const look = () => { if (!ending.hidden && ending.textContent !== endings.at(-1)) endings.push(ending.textContent); };
  new MutationObserver(look).observe(ending, { subtree: true, attributes: true, childList: true });
}
"""


async def test_a_conversation_with_a_limit(browser: Browser) -> None:
    """A countdown that is said once, and an end that is no fault."""
    async with (
        running_server("--model", "echo", "--max-session-s", "6") as server,
        visited_page(browser, local_url(server), tolerate=TOLERATED) as page,
    ):
        await page.evaluate(_NOTE_ENDING)
        await start_talking(page)
        await expect(page.locator("#announce")).to_have_text("This conversation ends in one minute.")
        await wait_for_state(page, "ended")
        await expect(page.get_by_test_id("message")).to_have_attribute("data-code", "time_limit")
        await expect(page.get_by_test_id("message")).to_contain_text("The time is up")
        said = await page.evaluate("endings")
        left_s = [int(re.fullmatch(r"This conversation ends in 0:(\d\d)\.", each)[1]) for each in said]  # type: ignore[index]
        assert left_s == sorted(set(left_s), reverse=True)
        assert left_s[0] <= 6
        assert len(left_s) > 2
        await expect(page.get_by_test_id("ending")).to_be_hidden()
        await page.get_by_test_id("retry").click()
        await wait_for_state(page, "listening", "speaking")
