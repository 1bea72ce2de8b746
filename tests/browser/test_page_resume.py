"""When the path dies the page goes on in the same conversation by itself, and says so."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from playwright.async_api import Browser, Page, Request, Route, expect

from lab.browsers.chromium import (
    call_of,
    hand_over,
    local_url,
    wait_for_sessions,
    wait_for_state,
)
from lab.waiting import until_told
from rtc_server.app import Server
from tests.browser.conftest import IN_A_BROWSER
from tests.support.paths import paths_to
from tests.support.resume_page import (
    HEARD,
    NOTICED_MS,
    SAME,
    events_of,
    expect_resumed,
    say,
    session_of,
    talking,
    wait_for_loss,
)

pytestmark = IN_A_BROWSER


async def test_a_dead_path_is_replaced_within_seconds(browser: Browser, server: Server) -> None:
    """Noticed, and told to the user; resumed in one attempt, in the same paragraph, and the words that were said
    meanwhile come, once each."""
    async with paths_to(server) as paths, talking(browser, paths.url) as page:
        session = await session_of(page)
        await say(page, server, "One ", "two ")
        transcript = page.get_by_test_id("transcript").locator("p")
        await expect(transcript).to_have_text("One two ")
        looked = asyncio.Event()

        async def hold(route: Route) -> None:
            await looked.wait()
            await route.continue_()

        await page.route("**/api/offer", hold)
        paths.cut()
        await say(page, server, "three ", "four ")
        offered = page.expect_request("**/api/offer", timeout=NOTICED_MS)
        async with offered as request:
            await wait_for_loss(page)
            await expect(page.get_by_test_id("state")).to_have_text("Reconnecting")
        looked.set()
        body: dict[str, Any] = json.loads((await request.value).post_data or "")
        assert body["resume"]["session"] == session
        assert body["resume"]["last_seq"] >= 2
        assert not {"service", "options"} & set(body)
        await expect_resumed(page, server, session)
        await expect(transcript).to_have_text("One two three four ")
        await say(page, server, "five")
        await expect(transcript).to_have_text("One two three four five")
        assert paths.count == 2
        (retrying,) = await events_of(page, "retrying")
        assert retrying["resuming"] is True
        # And again: each answer brings the token for the next time.
        paths.cut()
        await wait_for_loss(page, 2)
        await expect_resumed(page, server, session)
        await expect(transcript).to_have_count(1)


# In the page: an answer that a test gives takes as long as the test's process does, and here half a second counts.
_UNKNOWN = """
() => {
  const { fetch } = window;
  const error = { code: 'unknown_session', message: 'No such session.', retryable: false };
  window.fetch = async (url, options) =>
    String(url).includes('/api/sessions/') ? Response.json({ error }, { status: 404 }) : fetch(url, options);
}
"""


async def test_a_session_that_its_server_does_not_know_is_not_waited_for(browser: Browser, server: Server) -> None:
    """Where nothing comes any more the page asks by HTTP: if another process answers, the one that had the session is
    gone, and the page comes back before it would have told its user of an unstable connection."""
    async with paths_to(server) as paths, talking(browser, paths.url) as page:
        session = await session_of(page)
        await page.evaluate(_UNKNOWN)
        paths.cut()
        await wait_for_loss(page)
        assert await events_of(page, "unstable") == []
        await expect_resumed(page, server, session)


async def test_the_user_is_told_that_the_conversation_goes_on(browser: Browser, server: Server) -> None:
    """While the network is away: in the page, and to those who hear it. What is muted meanwhile stays so."""
    async with paths_to(server) as paths, talking(browser, paths.url) as page:
        session = await session_of(page)
        await page.context.set_offline(True)
        paths.cut_all()
        await wait_for_loss(page)
        await expect(page.get_by_test_id("state")).to_have_text("Reconnecting")
        await expect(page.get_by_test_id("state-detail")).to_have_text(re.compile(rf"Trying again .*{SAME}"))
        await expect(page.locator("#announce")).to_have_text(f"Connection lost. Reconnecting. {SAME}")
        await page.get_by_test_id("mute").click()
        paths.mend_next()
        await page.context.set_offline(False)
        await expect_resumed(page, server, session, muted=True)
        await until_told(lambda: is_silent(page, server), "that the server hears nothing")
        await page.get_by_test_id("mute").click()
        await page.wait_for_selector(HEARD)


async def is_silent(page: Page, server: Server) -> bool:
    return (await (await call_of(page, server)).stats()).level_in_dbfs <= -99


async def test_an_old_connection_outlives_the_new_answer(browser: Browser, server: Server) -> None:
    """Closed before, it would tell the server that the conversation is over."""
    async with paths_to(server) as paths, talking(browser, paths.url) as page:
        session = await session_of(page)
        states: list[str] = []

        async def look(route: Route) -> None:
            states.append(await page.evaluate("old.connectionState"))
            response = await route.fetch()
            states.append(await page.evaluate("old.connectionState"))
            await route.fulfill(response=response)

        await page.evaluate("window.old = window.__voice.pc")
        await page.route("**/api/offer", look)
        paths.cut()
        await wait_for_loss(page)
        await expect_resumed(page, server, session)
        assert "closed" not in states
        assert len(states) == 2
        assert await page.evaluate("old.connectionState") == "closed"
        assert await page.evaluate("window.__voice.pc !== old")


async def test_an_answer_that_is_lost_is_asked_for_again(browser: Browser, server: Server) -> None:
    """By the very same offer: the token is used up, so another one would be refused."""
    async with paths_to(server) as paths, talking(browser, paths.url) as page:
        session = await session_of(page)
        bodies: list[str | None] = []

        async def lose(route: Route, request: Request) -> None:
            bodies.append(request.post_data)
            if len(bodies) > 2:
                await route.continue_()
                return
            if len(bodies) == 1:
                await route.fetch()
            await route.abort()

        await page.route("**/api/offer", lose)
        paths.cut()
        await wait_for_loss(page)
        await expect_resumed(page, server, session)
        assert len(bodies) == 3
        assert len(set(bodies)) == 1


async def test_one_attempt_at_a_time(browser: Browser, server: Server) -> None:
    """However often the network comes, goes, and changes while one is under way."""
    async with paths_to(server) as paths, talking(browser, paths.url) as page:
        session = await session_of(page)
        go_on = asyncio.Event()
        offers: list[str] = []

        async def hold(route: Route) -> None:
            offers.append(route.request.url)
            await go_on.wait()
            await route.continue_()

        await page.route("**/api/offer", hold)
        paths.cut()
        await wait_for_loss(page)
        for name in ("online", "offline", "online", "pageshow"):
            await page.evaluate("(name) => window.dispatchEvent(new Event(name))", name)
        for name in ("visibilitychange", "resume"):
            await page.evaluate("(name) => document.dispatchEvent(new Event(name))", name)
        await page.evaluate("navigator.connection?.dispatchEvent(new Event('change'))")
        go_on.set()
        await expect_resumed(page, server, session)
        assert len(offers) == 1
        assert paths.count == 2


async def test_end_while_the_page_resumes_gives_the_place_back(browser: Browser, server: Server) -> None:
    async with paths_to(server) as paths, talking(browser, paths.url) as page:
        await page.route("**/api/offer", lambda route: route.abort())
        paths.cut()
        await wait_for_loss(page)
        await page.keyboard.press("Escape")
        await wait_for_state(page, "ended")
        await expect(page.get_by_test_id("state-detail")).to_have_text("You ended the conversation.")
        await wait_for_sessions(server, 0)


async def test_events_that_come_twice_are_heard_once(browser: Browser, server: Server) -> None:
    """And those that are missing may come later: what counts is the number."""
    async with talking(browser, local_url(server)) as page:
        call = await call_of(page, server)
        at = call.outbox.last + 1000

        def text(seq: int, delta: str) -> str:
            return json.dumps({"type": "text", "time_ms": 1, "seq": seq, "delta": delta})

        words = [text(at, "a"), text(at, "a"), text(at + 2, "c"), text(at + 1, "b"), text(at + 2, "c"), text(at, "a")]
        await hand_over(page, *words)
        await expect(page.get_by_test_id("transcript")).to_have_text("acb")
