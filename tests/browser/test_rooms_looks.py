"""The looks of the rooms' page with people and messages in it, and its sense to the ear; no member has a microphone."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from lab.browsers.chromium import local_url, screenshot, visited_page
from rtc_server.app import Server
from rtc_server.config import Settings
from tests.browser.conftest import IN_A_BROWSER
from tests.support import looks
from tests.support.rooms import RoomClient, api_of, create, join, rooms_translated_by
from tests.support.translators import fake

pytestmark = IN_A_BROWSER
LONG = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamten"


@pytest_asyncio.fixture(loop_scope="session")
async def rooms() -> AsyncIterator[Server]:
    """It turns what is said round, and refuses what is to be refused."""
    settings = Settings(port=0, model="echo", rooms="on", vad="off", offers_per_minute=6000, max_lag_ms=100_000)
    async with rooms_translated_by(fake, settings) as server:
        yield server


async def looks_well(page: Page, name: str) -> None:
    """On a phone's screen and a narrow one, to a finger and to the eye, and on a desk."""
    for screen, viewport in (("phone", looks.PHONE), ("narrow", looks.NARROW), ("desktop", looks.DESKTOP)):
        await page.set_viewport_size(viewport)
        async for scheme in looks.in_each_scheme(page):
            await screenshot(page, f"rooms-{name}-{screen}-{scheme}")
            assert await page.evaluate(looks.TOO_WIDE) == [], (name, screen)
            contrasts = await page.evaluate(looks.CONTRASTS)
            assert len(contrasts) > 5
            assert [pair for pair in contrasts if pair[1] < looks.CONTRAST] == [], (name, screen, scheme)
        if screen != "desktop":
            assert await page.evaluate(looks.TOO_SMALL, looks.TOUCH_PX) == [], (name, screen)


async def makes_sense_to_the_ear(page: Page) -> None:
    """Everything that can be reached has a name, and no two buttons have the same."""
    nodes = await looks.sense_to_the_ear(page)
    named = {"button", "combobox", "radio", "textbox", "log", "region", "group", "heading"}
    assert [node for node in nodes if not node[1] and (node[0] in named or node[2].get("focusable"))] == []
    buttons = [name for role, name, _ in nodes if role == "button"]
    assert len(buttons) == len(set(buttons)) > 0


async def told(page: Page, ana: RoomClient) -> None:
    """One message that is translated, one that is too long for its line, and one that is not translated."""
    for text, read in (("good morning", "gninrom doog"), (LONG, LONG[::-1]), ("refuse", "refuse")):
        await ana.say(text)
        await expect(page.get_by_test_id("messages")).to_contain_text(read)
    messages = page.get_by_test_id("message")
    await expect(messages.last).to_have_attribute("data-state", "failed")


async def test_a_room_looks_well_and_makes_sense_to_the_ear(browser: Browser, rooms: Server) -> None:
    """The lobby, the door, and the room."""
    async with api_of(rooms) as http:
        room = await create(http, name=f"Kitchen {LONG[:50]}")
        ana = await join(http, room, "Ana Maria", "pt")
        async with visited_page(
            browser, local_url(rooms, "rooms.html"), viewport=looks.PHONE, reduced_motion="reduce"
        ) as page:
            await expect(page.get_by_test_id("rooms")).to_contain_text("Kitchen")
            await looks_well(page, "lobby")
            await makes_sense_to_the_ear(page)
            await page.get_by_test_id("rooms").get_by_role("link").click()
            await expect(page.get_by_test_id("joining-who")).to_contain_text("Ana Maria")
            await looks_well(page, "door")
            await page.get_by_test_id("join-name").fill("Ann")
            await page.get_by_test_id("join-language").select_option("en")
            await page.get_by_test_id("join-read").click()
            await told(page, ana)
            await looks_well(page, "room")
            await makes_sense_to_the_ear(page)
