"""The page of a room under its member's hands: push to talk, mute, what is heard of it, settings, in light and dark.

The translator is one that turns text round.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from lab.browsers.chromium import give_mouth, local_url, say, screenshot, visited_page, wait_for_state
from lab.sound.tones import Ear, tone
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.audio import MODEL_RATE_HZ
from rtc_server.client import VoiceClient
from rtc_server.config import Settings
from rtc_server.rooms.member import Member
from tests.browser.conftest import IN_A_BROWSER
from tests.support.looks import CONTRAST, CONTRASTS, NARROW, TOO_SMALL, TOO_WIDE, TOUCH_PX, in_each_scheme
from tests.support.rooms import api_of, create, join, rooms_translated_by
from tests.support.translators import fake

pytestmark = [*IN_A_BROWSER, pytest.mark.alone]
MINUTE_MS = 60_000
VOICED_DBFS = -35.0
QUIET_DBFS = -60.0
COUNT_ENDS = """
() => {
  window.ends = 0;
  document.getElementById('replay').addEventListener('ended', () => { window.ends += 1; });
}
"""


@pytest_asyncio.fixture(loop_scope="session")
async def rooms() -> AsyncIterator[Server]:
    settings = Settings(port=0, model="echo", rooms="on", vad="off", max_lag_ms=10_000)
    async with rooms_translated_by(lambda: fake(factory="Vocal"), settings) as server:
        yield server


@contextlib.asynccontextmanager
async def in_a_room(
    browser: Browser, server: Server, how: str = "join-talk", init: str = "", **context: Any
) -> AsyncIterator[tuple[Page, str]]:
    """Ann's page in a room, and the room's id."""
    async with api_of(server) as http:
        room = await create(http, name="Kitchen")
    async with visited_page(browser, "about:blank", **context) as page:
        await give_mouth(page)
        if init:
            await page.add_init_script(init)
        await page.goto(local_url(server, f"rooms.html#room={room}"))
        await page.get_by_test_id("join-name").fill("Ann")
        await page.get_by_test_id("join-language").select_option("en")
        await page.get_by_test_id(how).click()
        await expect(page.get_by_test_id("room")).to_be_visible()
        if how == "join-talk":
            await wait_for_state(page, "listening", "speaking", timeout_ms=MINUTE_MS)
        yield page, room


@contextlib.asynccontextmanager
async def listening(server: Server, room: str) -> AsyncIterator[Ear]:
    """What a member of the same language hears there."""
    ear = Ear()
    async with api_of(server) as http:
        ben = await join(http, room, "Ben", "en")
    url = f"http://127.0.0.1:{server.port}"
    async with VoiceClient(url, service="translate", options={"member": ben.token}, on_voice=ear) as client:
        await client.wait_for("room", 30)
        yield ear


def ann_in(server: Server, room: str) -> Member:
    assert server.rooms is not None
    (ann,) = [member for member in server.rooms.lobby.room(room) if member.name == "Ann"]
    return ann


async def test_with_push_to_talk_one_is_heard_while_the_button_or_the_space_bar_is_held(
    browser: Browser, rooms: Server
) -> None:
    async with in_a_room(browser, rooms) as (page, room), listening(rooms, room) as ear:
        await say(page, tone(440)(120 * MODEL_RATE_HZ))
        await ear.until_level(above=VOICED_DBFS)
        await page.get_by_test_id("talk-push").check(force=True)
        await ear.until_level(below=QUIET_DBFS)
        hold, detail = page.get_by_test_id("hold"), page.get_by_test_id("state-detail")
        await expect(hold).to_have_attribute("aria-pressed", "false")
        quiet = await detail.inner_text()

        await hold.hover()
        await page.mouse.down()
        await ear.until_level(above=VOICED_DBFS)
        await expect(hold).to_have_attribute("aria-pressed", "true")
        assert await detail.inner_text() != quiet, "in words as well"
        await page.mouse.up()
        await ear.until_level(below=QUIET_DBFS)
        await expect(hold).to_have_attribute("aria-pressed", "false")

        await page.keyboard.down(" ")
        await ear.until_level(above=VOICED_DBFS)
        await page.evaluate("() => window.dispatchEvent(new Event('blur'))")
        await ear.until_level(below=QUIET_DBFS)
        await page.keyboard.up(" ")

        await page.get_by_test_id("say-text").focus()
        await page.keyboard.type("a b")
        await expect(page.get_by_test_id("say-text")).to_have_value("a b")
        await ear.until_level(below=QUIET_DBFS)

        await page.get_by_test_id("talk-open").check(force=True)
        await ear.until_level(above=VOICED_DBFS)
        await page.get_by_test_id("room-name").focus()
        await page.keyboard.press("m")
        await ear.until_level(below=QUIET_DBFS)
        await expect(page.get_by_test_id("mute")).to_have_attribute("aria-pressed", "true")
        await page.get_by_test_id("mute").click()
        await ear.until_level(above=VOICED_DBFS)


async def test_where_sound_may_only_begin_in_a_click_one_is_asked_for_it(browser: Browser, rooms: Server) -> None:
    refused = """
      const { play } = HTMLMediaElement.prototype;
      let clicked = false;
      document.addEventListener('click', ({ target }) => { clicked ||= target.id === 'hear'; }, true);
      HTMLMediaElement.prototype.play = function () {
        if (clicked) {
          window.begun = this.id;
          return play.call(this);
        }
        return Promise.reject(new DOMException('as a test wants it', 'NotAllowedError'));
      };
    """
    async with in_a_room(browser, rooms, init=refused) as (page, _):
        hear = page.get_by_test_id("hear")
        await expect(hear).to_be_visible()
        assert await page.evaluate("window.begun") is None
        await hear.click()
        await expect(hear).to_be_hidden()
        assert await page.evaluate("window.begun") == "playback"


async def test_a_message_is_heard_again_as_often_as_one_likes(browser: Browser, rooms: Server) -> None:
    async with in_a_room(browser, rooms, how="join-read") as (page, room), api_of(rooms) as http:
        ana = await join(http, room, "Ana", "pt")
        await page.evaluate(COUNT_ENDS)
        await ana.say("aid mob")
        replay = page.get_by_test_id("replay")
        for count in (1, 2):
            await replay.click()
            await page.wait_for_function("(count) => window.ends >= count", arg=count)
            await expect(replay).to_have_text("Replay")


async def test_language_name_and_the_originals_are_changed_at_any_time(browser: Browser, rooms: Server) -> None:
    async with in_a_room(browser, rooms) as (page, room), api_of(rooms) as http:
        ana = await join(http, room, "Ana", "pt")
        messages = page.get_by_test_id("messages")
        await ana.say("aid mob")
        await expect(messages).to_contain_text("bom dia", timeout=MINUTE_MS)
        ann = ann_in(rooms, room)
        for original in ("off", "only", "under"):
            await page.locator("#original").select_option(original)
            await until(lambda original=original: ann.original == original, f"originals {original}")
        await page.get_by_test_id("room-language").select_option("pt")
        await until(lambda: ann.language == "pt", "the other language")
        await ana.say("boa noite")
        await expect(messages).to_contain_text("boa noite")
        await page.get_by_test_id("room-member-name").fill("Anne")
        await page.get_by_test_id("room-member-name").press("Enter")
        await expect(page.get_by_test_id("people")).to_contain_text("Anne")
        await until(lambda: ann.name == "Anne", "the other name")


async def test_everything_can_be_read_in_light_and_dark_and_hit_with_a_finger(browser: Browser, rooms: Server) -> None:
    """Lobby, form and room, on a narrow phone, with messages that are there, pending and failed."""
    touch: dict[str, Any] = {"has_touch": True, "is_mobile": True, "viewport": NARROW, "reduced_motion": "reduce"}

    async def look_at(page: Page, name: str) -> None:
        async for scheme in in_each_scheme(page):
            await screenshot(page, f"rooms-{name}-{scheme}")
            assert await page.evaluate(TOO_WIDE) == []
            assert await page.evaluate(TOO_SMALL, TOUCH_PX) == []
            contrasts = await page.evaluate(CONTRASTS)
            assert len(contrasts) > 5
            assert [pair for pair in contrasts if pair[1] < CONTRAST] == [], (name, scheme)

    async with in_a_room(browser, rooms, **touch) as (page, room), api_of(rooms) as http:
        ana = await join(http, room, "Ana with a name that is as long as a name of a member may be", "pt")
        for text in ("aid mob", "refuse", "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamten" * 3):
            await ana.say(text)
        await expect(page.get_by_test_id("messages").locator("[data-state=failed]")).to_have_count(1)
        await expect(page.get_by_test_id("messages").locator("[data-state=ready]")).to_have_count(2)
        await ana.say("hang")
        await expect(page.get_by_test_id("messages").locator("[data-state=pending]")).to_have_count(1)
        await look_at(page, "room")
        await page.get_by_test_id("talk-push").check(force=True)
        await look_at(page, "push")
        await page.get_by_test_id("leave").click()
        await expect(page.get_by_test_id("lobby")).to_be_visible()
        await expect(page.get_by_test_id("rooms")).to_contain_text("Kitchen")
        await look_at(page, "lobby")
        await page.goto(local_url(rooms, f"rooms.html#room={room}"))
        await expect(page.get_by_test_id("joining")).to_be_visible()
        await look_at(page, "joining")
