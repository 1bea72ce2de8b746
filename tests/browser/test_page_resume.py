"""When the path dies the page goes on in the same conversation by itself, and says so; only when the server does not
hold it any more does it begin another."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest
from playwright.async_api import Browser, Page, Request, Route, expect

from lab.browsers.chromium import (
    call_of,
    chromium,
    hand_over,
    local_url,
    server_status,
    spy_on,
    start_talking,
    visited_page,
    wait_for_events,
    wait_for_sessions,
    wait_for_state,
)
from rtc_server.app import Server
from rtc_server.protocols import events
from tests.conftest import need_commands, running_server
from tests.support.paths import paths_to
from tests.support.server_process import server_process

pytestmark = pytest.mark.browser

TOLERATED = ["Failed to load resource"]
NOTICED_MS = 5_000
"""A dead path is noticed within this."""
BACK_MS = 15_000
HEARD = "[data-testid=meter-voice]:not([aria-valuenow='0'])"
SAME = "The conversation goes on where it was."
ANEW = "It will be a new conversation."


@pytest.fixture(autouse=True)
def _needs() -> None:
    need_commands("chromium")


@contextlib.asynccontextmanager
async def talking(browser: Browser, url: str, **context: Any) -> AsyncIterator[Page]:
    """A page in a conversation in which a voice is heard."""
    async with visited_page(browser, "about:blank", tolerate=TOLERATED, **context) as page:
        await spy_on(page)
        await page.goto(url)
        await start_talking(page)
        await wait_for_events(page, "message")
        yield page


async def session_of(page: Page) -> str:
    return str(await page.evaluate("window.__voice.sessionId"))


async def events_of(page: Page, event_type: str) -> list[dict[str, Any]]:
    """What the journal says of them."""
    found: list[dict[str, Any]] = await page.evaluate(
        "(type) => window.__voice.events.filter((event) => event.type === type).map(({ detail }) => detail)", event_type
    )
    return found


async def expect_resumed(page: Page, server: Server, session: str, *, muted: bool = False) -> None:
    """In the same session, with its voice; the eye and the ear are told."""
    await wait_for_state(page, "listening", "speaking", timeout_ms=BACK_MS)
    assert await session_of(page) == session
    await expect(page.locator("#announce")).to_have_text(f"Connected again. {SAME}")
    await expect(page.get_by_test_id("message")).to_be_hidden()
    await wait_for_sessions(server, 1)
    if not muted:
        await page.wait_for_selector(HEARD)


async def wait_for_loss(page: Page, count: int = 1) -> None:
    """Until the page has noticed so many losses; being back may take less time than a look at the page."""
    await page.wait_for_function(
        "(count) => window.__voice.events.filter(({ type, detail }) => type === 'state'"
        " && detail.state === 'reconnecting').length >= count",
        arg=count,
        timeout=NOTICED_MS,
    )


async def wait_until_server_waits(server: Server, count: int = 1) -> None:
    """The server has noticed that its client has gone, or (``count`` 0) is back."""
    deadline = time.monotonic() + 15
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


async def say(page: Page, server: Server, *words: str) -> None:
    """In the model's place, on the server."""
    call = await call_of(page, server)
    for word in words:
        call.outbox.emit(events.Text(word))


async def test_a_dead_path_is_replaced_within_seconds(server: Server) -> None:
    """Noticed, and told to the user; resumed in one attempt, in the same paragraph, and the words that were said
    meanwhile come, once each."""
    async with paths_to(server) as paths, chromium() as browser, talking(browser, paths.url) as page:
        session = await session_of(page)
        await say(page, server, "One ", "two ")
        transcript = page.get_by_test_id("transcript").locator("p")
        await expect(transcript).to_have_text("One two ")
        paths.cut()
        await say(page, server, "three ", "four ")
        offered = page.expect_request("**/api/offer", timeout=NOTICED_MS)
        async with offered as request:
            await wait_for_loss(page)
            await expect(page.get_by_test_id("state")).to_have_text("Reconnecting")
        body = (await request.value).post_data_json
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


async def test_the_user_is_told_that_the_conversation_goes_on(server: Server) -> None:
    """While the network is away: in the page, and to those who hear it. What is muted meanwhile stays so."""
    async with paths_to(server) as paths, chromium() as browser, talking(browser, paths.url) as page:
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
        deadline = time.monotonic() + 5
        while (await (await call_of(page, server)).stats()).level_in_dbfs > -99:
            assert time.monotonic() < deadline, "the server was not told"
            await asyncio.sleep(0.05)
        await page.get_by_test_id("mute").click()
        await page.wait_for_selector(HEARD)


async def test_an_old_connection_outlives_the_new_answer(server: Server) -> None:
    """Closed before, it would tell the server that the conversation is over."""
    async with paths_to(server) as paths, chromium() as browser, talking(browser, paths.url) as page:
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


async def test_an_answer_that_is_lost_is_asked_for_again(server: Server) -> None:
    """By the very same offer: the token is used up, so another one would be refused."""
    async with paths_to(server) as paths, chromium() as browser, talking(browser, paths.url) as page:
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


async def test_one_attempt_at_a_time(server: Server) -> None:
    """However often the network comes, goes, and changes while one is under way."""
    async with paths_to(server) as paths, chromium() as browser, talking(browser, paths.url) as page:
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


async def test_end_while_the_page_resumes_gives_the_place_back(server: Server) -> None:
    async with paths_to(server) as paths, chromium() as browser, talking(browser, paths.url) as page:
        await page.route("**/api/offer", lambda route: route.abort())
        paths.cut()
        await wait_for_loss(page)
        await page.keyboard.press("Escape")
        await wait_for_state(page, "ended")
        await expect(page.get_by_test_id("state-detail")).to_have_text("You ended the conversation.")
        await wait_for_sessions(server, 0)


async def test_a_change_of_the_network_is_noticed_at_once(server: Server) -> None:
    """In less than the silence that says so otherwise; and what the path survives is no loss."""
    async with paths_to(server) as paths, chromium() as browser, talking(browser, paths.url) as page:
        session = await session_of(page)
        stats = "window.__voice.events.filter(({ type, detail }) => type === 'message' && detail.type === 'stats')"
        await page.context.set_offline(True)
        await page.context.set_offline(False)
        before = await page.evaluate(f"{stats}.at(-1)?.at_ms ?? 0")
        await page.wait_for_function(f"(before) => {stats}.at(-1)?.at_ms > before + 1500", arg=before)
        assert await events_of(page, "retrying") == []

        paths.cut()
        await page.evaluate("window.cutAt = performance.now()")
        await page.context.set_offline(True)
        await wait_for_loss(page)
        noticed_ms = await page.evaluate("window.__voice.events.findLast(({ type }) => type === 'state').at_ms - cutAt")
        assert noticed_ms < 2_000
        await page.context.set_offline(False)
        await expect_resumed(page, server, session)


@pytest.mark.parametrize("path", ["survives", "dies"])
async def test_a_device_that_slept_goes_on_when_it_wakes(server: Server, path: str) -> None:
    """Its clocks stood still and nothing came in; meanwhile the server has noticed. Where the network has forgotten
    the path as well, there is a new one."""
    async with paths_to(server) as paths, chromium() as browser, talking(browser, paths.url) as page:
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


async def test_a_page_that_stood_still_goes_on(server: Server) -> None:
    """Meanwhile it notices nothing; the time since its last look tells it, as soon as it runs again."""
    async with paths_to(server) as paths, chromium() as browser, talking(browser, paths.url) as page:
        session = await session_of(page)
        async with standing_still(page):
            paths.cut()
            await wait_until_server_waits(server)
        await wait_for_loss(page)
        await expect_resumed(page, server, session)


async def test_a_session_that_was_given_up_is_followed_by_a_new_one() -> None:
    """Its grace is over: the page says that what comes is a new conversation, and begins a paragraph."""
    async with (
        running_server("--model", "echo", "--resume-grace-s", "1") as server,
        paths_to(server) as paths,
        chromium() as browser,
        talking(browser, paths.url) as page,
    ):
        session = await session_of(page)
        await say(page, server, "Before.")
        await page.route("**/api/offer", lambda route: route.abort())
        paths.cut()
        await wait_for_loss(page)
        await wait_for_sessions(server, 0, timeout_s=10.0)
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
async def test_a_resume_that_is_refused(server: Server, status: int, code: str) -> None:
    """A new conversation, and no ghost of the old one; the user reads which of the two it is."""
    async with paths_to(server) as paths, chromium() as browser, talking(browser, paths.url) as page:
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


async def test_a_server_that_was_killed_knows_nothing() -> None:
    """The one in its place has never heard of the session: a new conversation, muted as the old one was."""
    async with chromium() as browser, contextlib.AsyncExitStack() as stack:
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


async def test_a_server_without_resume() -> None:
    """As before there was one: a loss is the end of the conversation, and another begins."""
    async with (
        running_server("--model", "echo", "--resume-grace-s", "0") as server,
        paths_to(server) as paths,
        chromium() as browser,
        talking(browser, paths.url) as page,
    ):
        session = await session_of(page)
        paths.cut()
        await wait_for_loss(page)
        assert (await events_of(page, "retrying"))[-1]["resuming"] is False
        await wait_for_state(page, "listening", "speaking", timeout_ms=BACK_MS)
        assert await session_of(page) != session


async def test_a_conversation_with_a_limit() -> None:
    """A countdown that is said once, and an end that is no fault."""
    async with (
        running_server("--model", "echo", "--max-session-s", "5") as server,
        chromium() as browser,
        visited_page(browser, local_url(server), tolerate=TOLERATED) as page,
    ):
        await start_talking(page)
        await expect(page.get_by_test_id("ending")).to_have_text(re.compile(r"^This conversation ends in 0:0[345]\.$"))
        await expect(page.locator("#announce")).to_have_text("This conversation ends in one minute.")
        await expect(page.get_by_test_id("ending")).to_have_text("This conversation ends in 0:01.", timeout=10_000)
        await wait_for_state(page, "ended")
        await expect(page.get_by_test_id("message")).to_have_attribute("data-code", "time_limit")
        await expect(page.get_by_test_id("message")).to_contain_text("The time is up")
        await expect(page.get_by_test_id("ending")).to_be_hidden()
        await page.get_by_test_id("retry").click()
        await wait_for_state(page, "listening", "speaking")


async def test_events_that_come_twice_are_heard_once(server: Server) -> None:
    """And those that are missing may come later: what counts is the number."""
    async with chromium() as browser, talking(browser, local_url(server)) as page:
        call = await call_of(page, server)
        at = call.outbox.last + 1000

        def text(seq: int, delta: str) -> str:
            return json.dumps({"type": "text", "time_ms": 1, "seq": seq, "delta": delta})

        words = [text(at, "a"), text(at, "a"), text(at + 2, "c"), text(at + 1, "b"), text(at + 2, "c"), text(at, "a")]
        await hand_over(page, *words)
        await expect(page.get_by_test_id("transcript")).to_have_text("acb")
