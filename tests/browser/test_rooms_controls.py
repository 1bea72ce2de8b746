"""The controls of the rooms' page, by keyboard alone but for a button that is held: a private room, push to talk, a
message that is said once more, another language, and who speaks."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from lab.browsers.chromium import call_of, local_url, visited_page, wait_for_state
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.config import Settings
from tests.browser.conftest import IN_A_BROWSER
from tests.support.rooms import api_of, create, join, rooms_translated_by, until_event
from tests.support.translators import fake

pytestmark = IN_A_BROWSER
MOST_STOPS = 60
"""Of the Tab key, all round the page."""
LISTEN = """
() => {
  window.heard = [];
  for (const kind of ['playing', 'ended']) {
    document.getElementById('replay').addEventListener(kind, () => window.heard.push(kind));
  }
}
"""


@pytest_asyncio.fixture(loop_scope="session")
async def rooms() -> AsyncIterator[Server]:
    """It turns what is said round, and sings it in English and Portuguese."""
    settings = Settings(port=0, model="echo", rooms="on", vad="off", offers_per_minute=6000, max_lag_ms=100_000)
    async with rooms_translated_by(lambda: fake(factory="Tuneful"), settings) as server:
        yield server


async def reach(page: Page, control: str) -> None:
    """By the Tab key."""
    for _ in range(MOST_STOPS):
        if await page.evaluate("document.activeElement?.dataset.testid") == control:
            return
        await page.keyboard.press("Tab")
    raise AssertionError(f"the keyboard does not come to {control}")


async def press(page: Page, control: str, key: str) -> None:
    """A choice by its first letter alone: of several, a busy machine takes each for a choice of its own."""
    await reach(page, control)
    await page.keyboard.press(key)


async def write(page: Page, control: str, text: str) -> None:
    await reach(page, control)
    await page.keyboard.type(text)


async def joined_in_a_private_room(page: Page) -> str:
    """Made and joined with a microphone; the link to it."""
    await expect(page.get_by_test_id("new-room")).to_be_enabled()
    await write(page, "new-room-name", "Cellar")
    await press(page, "new-room-private", " ")
    await press(page, "new-room", "Enter")
    await write(page, "join-name", "Ann")
    await press(page, "join-language", "e")
    await press(page, "join-talk", "Enter")
    await wait_for_state(page, "listening", "speaking", timeout_ms=60_000)
    return await page.locator("#room-link").input_value()


async def is_private(page: Page, link: str) -> None:
    """In the lobby there is the other room and not this one; its link leads to it."""
    await expect(page.get_by_test_id("rooms")).to_contain_text("Kitchen 1 member: English")
    await expect(page.get_by_test_id("rooms")).not_to_contain_text("Cellar")
    await page.goto(link)
    await expect(page.get_by_test_id("joining-who")).to_contain_text("Ana (Portuguese)")


async def pushes_to_talk(page: Page, server: Server) -> None:
    """The server hears a microphone while the space bar, or the button, is held, and at no other time."""
    microphone = (await call_of(page, server)).user_audio.microphone
    assert not microphone.muted
    await press(page, "talk-open", "ArrowRight")
    await until(lambda: microphone.muted, "a microphone that is not heard")
    await reach(page, "messages")
    await page.keyboard.down(" ")
    await until(lambda: not microphone.muted, "one that is, by the key")
    await expect(page.get_by_test_id("hold")).to_have_attribute("aria-pressed", "true")
    await page.keyboard.up(" ")
    await until(lambda: microphone.muted, "the end of that")
    await page.get_by_test_id("hold").hover()
    await page.mouse.down()
    await until(lambda: not microphone.muted, "one that is, by the button")
    await page.mouse.up()
    await until(lambda: microphone.muted, "the end of that")


async def says_once_more(page: Page) -> None:
    """The message, by the page's own loudspeaker."""
    await page.evaluate(LISTEN)
    await press(page, "replay", "Enter")
    await page.wait_for_function("() => window.heard.at(-1) === 'ended'")
    assert await page.evaluate("window.heard") == ["playing", "ended"]
    await expect(page.get_by_test_id("replay")).to_have_attribute("aria-pressed", "false")


async def test_a_room_is_had_by_keyboard(browser: Browser, rooms: Server) -> None:
    assert rooms.rooms is not None
    async with api_of(rooms) as http:
        ben = await join(http, await create(http, name="Kitchen"), "Ben", "en")
        async with ben.events(), visited_page(browser, local_url(rooms, "rooms.html")) as page:
            link = await joined_in_a_private_room(page)
            await pushes_to_talk(page, rooms)
            room = rooms.rooms.lobby.room(link.partition("#room=")[2])
            ana = await join(http, room.id, "Ana", "pt")
            async with ana.events() as events:
                person = page.get_by_test_id("person")
                for speaks in (True, False):
                    room.set_speaking(room.member(ana.token), speaks)
                    await expect(person.filter(has_text="Ana")).to_have_attribute(
                        "data-note", "speaking" if speaks else ""
                    )
                await ana.say("abc")
                await expect(page.get_by_test_id("message")).to_contain_text("cba")
                await says_once_more(page)
                await press(page, "room-language", "g")
                changed = await until_event(events, "member", change="changed")
                while changed["member"]["language"] != "de":
                    changed = await until_event(events, "member", change="changed")
                await expect(person.filter(has_text="Ann (you)")).to_contain_text("German")
                await ana.say("xyz")
                newest = page.get_by_test_id("message").last
                await expect(newest.locator(".bubble-text")).to_have_text("zyx")
                await expect(newest.locator(".bubble-text")).to_have_attribute("lang", "de")
                await press(page, "leave", "Enter")
                await until(lambda: [each.name for each in room] == ["Ana"], "one member less")
                await is_private(page, link)
