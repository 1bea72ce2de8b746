"""A server that wants a key: where the page has it from, what it does with it, what it says when it does not fit."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio
from playwright.async_api import Browser, Page, Request, Route, expect

from lab.browsers.chromium import (
    local_url,
    start_talking,
    visited_page,
    wait_for_events,
    wait_for_sessions,
    wait_for_state,
)
from rtc_server.access import credentials
from rtc_server.app import Server
from tests.browser.conftest import IN_A_BROWSER
from tests.conftest import running_server
from tests.support.paths import paths_to

pytestmark = IN_A_BROWSER

GOOD = "good-key_1.2~3"
FAILED_REQUEST = "Failed to load resource"


class Door:
    """In front of a server, it wants a key. ``seen``: method and path of each request that had the right one."""

    def __init__(self) -> None:
        self.key = GOOD
        self.forbidden = False
        self.seen: list[tuple[str, str]] = []
        self.refused: list[tuple[str, str]] = []

    async def stand_before(self, page: Page) -> None:
        await page.route("**/api/**", self._let_in)

    async def _let_in(self, route: Route, request: Request) -> None:
        what = (request.method, re.sub(r"^https?://[^/]+", "", request.url).split("/sessions/")[0])
        known = (await request.header_value("authorization")) == f"Bearer {self.key}"
        (self.seen if known else self.refused).append(what)
        if what[1] == "/api/config":
            response = await route.fetch()
            await route.fulfill(response=response, json={**await response.json(), "auth": "bearer"})
        elif not known:
            error = {"code": "unauthorized", "message": "Who?", "retryable": False}
            await route.fulfill(status=401, json={"error": error}, headers={"WWW-Authenticate": "Bearer"})
        elif self.forbidden:
            error = {"code": "forbidden", "message": "Not this.", "retryable": False}
            await route.fulfill(status=403, json={"error": error})
        else:
            await route.continue_()


async def enter(page: Page, key: str) -> None:
    """Type a key and press Enter."""
    await page.get_by_label("Key", exact=True).fill(key)
    await page.get_by_label("Key", exact=True).press("Enter")


async def stored(page: Page) -> list[dict[str, Any]]:
    """Everything that outlives the page: this tab's storage, and what all tabs share."""
    kept: list[dict[str, Any]] = await page.evaluate("[{ ...sessionStorage }, { ...localStorage }]")
    return kept


async def test_a_key_is_asked_for(browser: Browser, server: Server) -> None:
    """In a field of its own, that hides what is typed; then it goes with every request, and is kept for this tab."""
    async with visited_page(browser, "about:blank", tolerate=[FAILED_REQUEST]) as page:
        door = Door()
        await door.stand_before(page)
        await page.goto(local_url(server))
        await expect(page.get_by_test_id("key-form")).to_be_visible()
        await expect(page.get_by_label("Key", exact=True)).to_have_attribute("type", "password")
        # Nothing is asked of a server that would refuse it, nor is a microphone opened.
        await page.get_by_test_id("start").click()
        await expect(page.locator("#key-error")).to_have_text("Enter the key that you were given first.")
        await expect(page.get_by_label("Key", exact=True)).to_be_focused()
        assert await page.evaluate("window.__voice.state") == "idle"

        await enter(page, f"  {GOOD} ")
        await wait_for_state(page, "listening", "speaking")
        await expect(page.get_by_test_id("key-form")).to_be_hidden()
        await expect(page.get_by_test_id("message")).to_be_hidden()
        await page.get_by_test_id("start").click()
        await wait_for_state(page, "ended")
        await wait_for_sessions(server, 0)
        assert ("POST", "/api/offer") in door.seen
        assert ("PATCH", "/api") in door.seen
        assert set(door.refused) == {("GET", "/api/config")}
        in_tab, in_all = await stored(page)
        assert in_tab == {"voice.key": GOOD}
        assert GOOD not in str(in_all)
        assert GOOD not in str(await page.evaluate("JSON.stringify(window.__voice.events)"))
        # It is still known after a reload, and the field is empty when it is not needed.
        await page.reload()
        await expect(page.get_by_test_id("model")).to_have_text("echo on cpu")
        await expect(page.get_by_test_id("key-form")).to_be_hidden()
        await start_talking(page)
        # The end is said over HTTP where it cannot be said otherwise.
        async with page.expect_request(lambda request: request.method == "DELETE") as deleted:
            await page.evaluate("window.__voice.pc.close()")
            await page.keyboard.press("Escape")
        assert (await (await deleted.value).all_headers())["authorization"] == f"Bearer {GOOD}"
        await wait_for_sessions(server, 0)


async def test_a_key_that_does_not_fit(browser: Browser, server: Server) -> None:
    """Said in words, forgotten, and asked for again, with the field ready."""
    async with visited_page(browser, "about:blank", tolerate=[FAILED_REQUEST]) as page:
        door = Door()
        await door.stand_before(page)
        await page.goto(local_url(server))
        await enter(page, "two words")
        await expect(page.locator("#key-error")).to_contain_text("without spaces")
        assert await page.evaluate("window.__voice.state") == "idle"
        await enter(page, "wrong")
        await wait_for_state(page, "ended")
        await expect(page.get_by_test_id("message")).to_have_attribute("data-code", "unauthorized")
        await expect(page.get_by_test_id("message")).to_contain_text("The key was not accepted")
        await expect(page.get_by_test_id("retry")).to_be_hidden()
        await expect(page.get_by_test_id("key-form")).to_be_visible()
        await expect(page.get_by_label("Key", exact=True)).to_be_focused()
        await expect(page.get_by_label("Key", exact=True)).to_have_value("")
        assert (await stored(page))[0] == {}
        await enter(page, GOOD)
        await wait_for_state(page, "listening", "speaking")


async def test_a_key_that_opens_something_else(browser: Browser, server: Server) -> None:
    """It is kept: it is a good one. The message says what to change."""
    async with visited_page(browser, "about:blank", tolerate=[FAILED_REQUEST]) as page:
        door = Door()
        door.forbidden = True
        await door.stand_before(page)
        await page.goto(local_url(server, f"#token={GOOD}"))
        await page.get_by_test_id("start").click()
        await wait_for_state(page, "ended")
        await expect(page.get_by_test_id("message")).to_have_attribute("data-code", "forbidden")
        await expect(page.get_by_test_id("message")).to_contain_text("does not open this")
        assert (await stored(page))[0] == {"voice.key": GOOD}


async def test_a_key_in_the_link(browser: Browser, server: Server) -> None:
    """Taken out of the address at once, and nothing is asked; a newer link in the same tab replaces it."""
    async with visited_page(browser, "about:blank", tolerate=[FAILED_REQUEST]) as page:
        door = Door()
        await door.stand_before(page)
        await page.goto(local_url(server, "?raw=1#token=old"))
        await expect(page.get_by_test_id("model")).to_have_text("echo on cpu")
        assert page.url == local_url(server, "?raw=1")
        await expect(page.get_by_test_id("key-form")).to_be_hidden()
        await page.evaluate(f"location.hash = 'token={GOOD}'")
        await page.wait_for_function("() => location.hash === ''")
        assert page.url == local_url(server, "?raw=1")
        await start_talking(page)
        assert [path for method, path in door.refused if method == "POST"] == []


async def test_a_key_that_expires_in_mid_conversation(browser: Browser, server: Server) -> None:
    """The way back is refused: no endless attempts, but the question for another."""
    async with visited_page(browser, "about:blank", tolerate=[FAILED_REQUEST]) as page:
        door = Door()
        await door.stand_before(page)
        await page.goto(local_url(server, f"#token={GOOD}"))
        await start_talking(page)
        door.key = "another"
        await page.evaluate("window.__voice.pc.close()")
        await page.evaluate("window.dispatchEvent(new Event('online'))")
        await wait_for_state(page, "ended")
        await expect(page.get_by_test_id("message")).to_contain_text("The key was not accepted")
        await expect(page.get_by_test_id("key-form")).to_be_visible()


async def test_a_server_without_keys_asks_for_none(browser: Browser, server: Server) -> None:
    async with visited_page(browser, local_url(server)) as page:
        await expect(page.get_by_test_id("model")).to_have_text("echo on cpu")
        await expect(page.get_by_test_id("key-form")).to_be_hidden()
        async with page.expect_request("**/api/offer") as offer:
            await start_talking(page)
        assert "authorization" not in await (await offer.value).all_headers()


@pytest_asyncio.fixture(loop_scope="session")
async def locked(tmp_path: Path) -> AsyncIterator[tuple[Server, str]]:
    """A server that wants a key, and the key."""
    key = credentials.new_key()
    book = tmp_path / "auth.toml"
    book.write_text(f'[[keys]]\nname = "page"\nhash = "{credentials.hash_of(key)}"\n')
    book.chmod(0o600)
    async with running_server("--model", "echo", "--auth", str(book)) as server:
        yield server, key


async def test_a_locked_server_lets_its_keys_in(browser: Browser, locked: tuple[Server, str]) -> None:
    """From the question to the end, and back after a loss: every request has the key, none is refused."""
    server, key = locked
    async with (
        paths_to(server) as paths,
        visited_page(browser, paths.url, tolerate=[FAILED_REQUEST]) as page,
    ):
        await expect(page.get_by_test_id("key-form")).to_be_visible()
        await enter(page, f"rtc_{'x' * 43}")
        await expect(page.get_by_test_id("message")).to_contain_text("The key was not accepted")
        refused: list[str] = []
        page.on("response", lambda response: refused.append(response.url) if response.status == 401 else None)
        await enter(page, key)
        await wait_for_state(page, "listening", "speaking")
        session = await page.evaluate("window.__voice.sessionId")
        paths.cut()
        await wait_for_events(page, "retrying")
        await wait_for_state(page, "listening", "speaking")
        assert await page.evaluate("window.__voice.sessionId") == session
        await page.get_by_test_id("start").click()
        await wait_for_state(page, "ended")
        await expect(page.get_by_test_id("state-detail")).to_have_text("You ended the conversation.")
        assert refused == []
