"""The view that transcribes: its words are text and come once, and it is there if the server can and the address asks
for it. What is written down as it is spoken is in test_page_transcribe.py."""

from __future__ import annotations

import asyncio
import json

from playwright.async_api import Browser, Route, expect

from lab.browsers.chromium import call_of, hand_over, local_url, start_talking, visited_page, wait_for_state
from rtc_server.app import Server
from rtc_server.protocols import events
from tests.browser.conftest import IN_A_BROWSER
from tests.support.paths import paths_to
from tests.support.resume_page import wait_for_loss
from tests.support.transcribe_page import RAW, listening, opened, paragraphs, texts, wait_for_words

pytestmark = IN_A_BROWSER


async def test_words_are_text_whatever_they_say(browser: Browser, writing: Server) -> None:
    evil = "<img/src=x/onerror='window.fooled=true'> <b>bold</b> &amp;"
    async with listening(browser, writing) as (page, speaker):
        await speaker.say(evil)
        await expect(paragraphs(page)).to_have_count(1)
        assert await texts(page) == [evil]
        assert await page.locator(".word *").count() == 0
        assert await page.evaluate("window.fooled") is None
        await hand_over(
            page,
            *(
                json.dumps({"type": "word", "time_ms": 1, **fields})
                for fields in ({}, {"text": " "}, {"text": "a"}, {"text": 7, "start_ms": 1, "end_ms": 2})
            ),
            '{"type": "turn-ended"}',
        )
        await speaker.say("After.")
        await expect(paragraphs(page)).to_have_count(2)


async def test_a_resume_repeats_nothing(browser: Browser, writing: Server) -> None:
    """The times go on, and what the server sends again is there once."""
    async with (
        paths_to(writing) as paths,
        opened(browser, f"{paths.url}{RAW}", tolerate=["Failed to load resource"]) as page,
    ):
        await page.get_by_test_id("start").click()
        await page.get_by_test_id("mute").click()  # before it listens: a beep of this microphone would be a word
        await wait_for_state(page, "listening")
        session = await page.evaluate("window.__voice.sessionId")
        call = await call_of(page, writing)
        for at in range(3):
            call.outbox.emit(events.Word(f"w{at}", at * 400, at * 400 + 300))
        await wait_for_words(page, 3)
        paths.cut()
        call.outbox.emit(events.Word("w3", 1_200, 1_500))
        call.outbox.emit(events.TurnEnded(1_900))
        await wait_for_loss(page)
        await wait_for_words(page, 4)
        await wait_for_state(page, "listening")
        assert await page.evaluate("window.__voice.sessionId") == session
        call.outbox.emit(events.Word("w4", 2_400, 2_700))
        await wait_for_words(page, 5)
        assert await texts(page) == ["w0 w1 w2 w3", "w4"]


async def test_a_server_that_does_not_transcribe(browser: Browser, server: Server) -> None:
    """The page is what it was, whatever the address asks for."""
    for query in ("", "?view=transcribe"):
        async with visited_page(browser, local_url(server, query)) as page:
            await expect(page.get_by_test_id("model")).to_have_text("echo on cpu")
            await expect(page.get_by_test_id("transcript")).to_be_visible()
            for hidden in ("views", "captions", "file-choose"):
                await expect(page.get_by_test_id(hidden)).to_be_hidden()
            await expect(page.get_by_test_id("start")).to_have_text("Start talking")
            await start_talking(page)
            await expect(page.get_by_test_id("state-detail")).to_contain_text("You can")


async def test_the_switch_by_keyboard(browser: Browser, writing: Server) -> None:
    """It leads to the service, is kept in the address, and cannot be moved while a session runs."""
    async with visited_page(browser, local_url(writing)) as page:
        talk, transcribe = (page.get_by_role("radio", name=name, exact=True) for name in ("Talk", "Transcribe"))
        await expect(talk).to_be_checked()
        await expect(page.get_by_test_id("model")).to_have_text("echo on cpu")
        await expect(page.get_by_role("group", name="What to do")).to_be_visible()
        await talk.focus()
        await page.keyboard.press("ArrowRight")
        await expect(transcribe).to_be_checked()
        await expect(page.get_by_test_id("captions")).to_be_visible()
        await expect(page.get_by_test_id("transcript")).to_be_hidden()
        await expect(page.get_by_test_id("model")).to_have_text("stenographer on cpu")
        assert "view=transcribe" in page.url
        await page.reload()
        await expect(transcribe).to_be_checked()
        await start_talking(page)
        assert (await call_of(page, writing)).service == "transcribe"
        await expect(talk).to_be_disabled()
        await expect(page.get_by_role("group", name="What to do")).to_have_accessible_description(
            "End this first to switch."
        )
        await page.get_by_test_id("start").click()
        await wait_for_state(page, "ended")
        await talk.click()
        await expect(page.get_by_test_id("transcript")).to_be_visible()
        await start_talking(page)
        assert (await call_of(page, writing)).service == "echo"


async def test_who_is_quicker_than_the_configuration(browser: Browser, writing: Server) -> None:
    """Gets what the address asks for all the same."""
    async with visited_page(browser, "about:blank") as page:
        answer = asyncio.Event()

        async def hold(route: Route) -> None:
            await answer.wait()
            await route.continue_()

        await page.route("**/api/config", hold)
        await page.goto(local_url(writing, RAW))
        await page.get_by_test_id("start").click()
        await wait_for_state(page, "connecting")
        answer.set()
        await wait_for_state(page, "listening")
        assert (await call_of(page, writing)).service == "transcribe"
