"""The page of translated rooms: at a server without any, and by HTTPS at an address that other machines reach."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from lab.browsers.chromium import local_url, visited_page, wait_for_state
from rtc_server.app import Server
from rtc_server.config import Settings
from rtc_server.system import hardware
from tests.browser.conftest import IN_A_BROWSER
from tests.support.looks import PHONE, TOO_SMALL, TOO_WIDE, TOUCH_PX
from tests.support.missing import skip_but_in_ci
from tests.support.rooms import rooms_translated_by
from tests.support.translators import fake

pytestmark = IN_A_BROWSER


async def test_a_server_without_rooms_says_so(browser: Browser, server: Server) -> None:
    """In words, on a phone's screen, instead of an empty list."""
    async with visited_page(browser, local_url(server, "rooms.html"), tolerate=["404"], viewport=PHONE) as page:
        await expect(page.get_by_test_id("failure")).to_contain_text("This server has no rooms")
        await expect(page.get_by_test_id("new-room")).to_be_disabled()
        assert await page.evaluate(TOO_WIDE) == []
        assert await page.evaluate(TOO_SMALL, TOUCH_PX) == []


async def join(page: Page, name: str, language: str, how: str = "join-read") -> None:
    await page.get_by_test_id("join-name").fill(name)
    await page.get_by_test_id("join-language").select_option(language)
    await page.get_by_test_id(how).click()


async def test_two_laptops_are_in_a_room_by_a_certificate_of_the_servers_own(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Browsers give a page that other machines open the microphone by HTTPS alone: one talks, the other writes."""
    addresses = [each for each in hardware.routed_addresses() if ":" not in each]
    if not addresses:
        skip_but_in_ci("this machine has no address for others")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    settings = Settings(
        host="0.0.0.0", port=0, tls="self-signed", allow_anonymous=True, model="echo", rooms="on", max_lag_ms=100_000
    )
    async with rooms_translated_by(fake, settings) as server:
        url = f"https://{addresses[0]}:{server.port}/rooms.html"
        async with visited_page(browser, url, ignore_https_errors=True) as ann:
            await ann.get_by_test_id("new-room").click()
            await join(ann, "Ann", "en", "join-talk")
            await wait_for_state(ann, "listening", "speaking", timeout_ms=60_000)
            link = await ann.get_by_test_id("room-link").input_value()
            assert link.startswith(f"{url}#room=")
            async with visited_page(browser, link, ignore_https_errors=True) as ana:
                await join(ana, "Ana", "pt")
                await ana.get_by_test_id("say-text").fill("abc")
                await ana.get_by_test_id("say-send").click()
                await expect(ann.get_by_test_id("messages")).to_contain_text("cba")
