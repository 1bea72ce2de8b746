"""The page of translated rooms, at a server without any."""

from __future__ import annotations

from playwright.async_api import Browser, expect

from lab.browsers.chromium import local_url, visited_page
from rtc_server.app import Server
from tests.browser.conftest import IN_A_BROWSER
from tests.support.looks import PHONE, TOO_SMALL, TOO_WIDE, TOUCH_PX

pytestmark = IN_A_BROWSER


async def test_a_server_without_rooms_says_so(browser: Browser, server: Server) -> None:
    """In words, on a phone's screen, instead of an empty list."""
    async with visited_page(browser, local_url(server, "rooms.html"), tolerate=["404"], viewport=PHONE) as page:
        await expect(page.get_by_test_id("failure")).to_contain_text("This server has no rooms")
        await expect(page.get_by_test_id("new-room")).to_be_disabled()
        assert await page.evaluate(TOO_WIDE) == []
        assert await page.evaluate(TOO_SMALL, TOUCH_PX) == []
