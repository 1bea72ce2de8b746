"""?relay=1: the audio may only go through a TURN relay, and the page says what is wrong with the relay."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Browser, Page, Route, expect

from lab.browsers.chromium import local_url, visited_page, wait_for_sessions, wait_for_state
from rtc_server.app import Server
from tests.browser.conftest import IN_A_BROWSER
from tests.conftest import running_server
from tests.support.fake_turn import fake_turn

pytestmark = IN_A_BROWSER

SILENCE_MS = 30_000
"""Longer than browsers ask a relay that does not answer."""


async def offer_relays(page: Page, *urls: str) -> None:
    """The configuration that the page sees names these."""
    servers: list[dict[str, Any]] = [{"urls": [url], "username": "a", "credential": "b"} for url in urls]

    async def amended(route: Route) -> None:
        response = await route.fetch()
        await route.fulfill(response=response, json={**await response.json(), "ice_servers": servers})

    await page.route("**/api/config", amended)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ((401, "Unauthorized"), ["credentials are not valid (401)", "TURN secret", "clocks"]),
        ((403, "Forbidden"), ["forbidden (403)", "TURN secret"]),
        ((486, "Allocation Quota Reached"), ["quota for us is used up (486)", "in a moment"]),
    ],
)
async def test_a_relay_that_refuses(browser: Browser, server: Server, error: tuple[int, str], words: list[str]) -> None:
    """The message names its reason, and the place at the server is given back."""
    async with (
        fake_turn(error) as url,
        visited_page(browser, "about:blank") as page,
    ):
        await offer_relays(page, url)
        await page.goto(local_url(server, "?relay=1"))
        await page.get_by_test_id("start").click()
        await wait_for_state(page, "ended")
        message = page.get_by_test_id("message")
        await expect(message).to_have_attribute("data-code", "relay_refused")
        for word in words:
            await expect(message).to_contain_text(word)
        await expect(page.get_by_test_id("retry")).to_be_visible()
        await wait_for_sessions(server, 0)


async def test_a_relay_that_is_silent(browser: Browser) -> None:
    async with (
        running_server("--model", "echo", "--connect-timeout-s", "4") as server,
        fake_turn(None) as url,
        # The server may have given up first; then there is nothing left to be ended.
        visited_page(browser, "about:blank", tolerate=["Failed to load resource"]) as page,
    ):
        await offer_relays(page, url)
        await page.goto(local_url(server, "?relay=1"))
        await page.get_by_test_id("start").click()
        await wait_for_state(page, "ended", timeout_ms=SILENCE_MS)
        message = page.get_by_test_id("message")
        await expect(message).to_have_attribute("data-code", "relay_unreachable")
        await expect(message).to_contain_text("check the relay’s address")


async def test_a_server_without_a_relay(browser: Browser, server: Server) -> None:
    """Trying again cannot help."""
    async with visited_page(browser, "about:blank") as page:
        await offer_relays(page, "stun:127.0.0.1:9")
        await page.goto(local_url(server, "?relay=1"))
        await page.get_by_test_id("start").click()
        await wait_for_state(page, "ended")
        await expect(page.get_by_test_id("message")).to_have_attribute("data-code", "relay_missing")
        await expect(page.get_by_test_id("retry")).to_be_hidden()
