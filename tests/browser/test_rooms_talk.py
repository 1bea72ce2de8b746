"""Two people in a translated room, each with the page: one speaks English, the other reads and hears Portuguese."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from urllib.parse import unquote

import numpy as np
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from lab.browsers.chromium import (
    finish_recording,
    give_mouth,
    local_url,
    say,
    screenshot,
    start_recording,
    watch,
)
from lab.speech.clips import SPEECH_HZ, speak
from rtc_server.app import Server
from rtc_server.audio import MODEL_RATE_HZ, FloatArray, Resampler
from rtc_server.rooms.invitation import qr_code
from tests.browser.conftest import IN_A_BROWSER
from tests.support.looks import PHONE, TOO_WIDE
from tests.support.room_talk import SPOKEN_PAIRS, understood, words
from tests.support.rooms import talking_rooms

pytestmark = [*IN_A_BROWSER, pytest.mark.alone]
MINUTE_MS = 60_000
TIMES = 3
PLAYED_HZ = 48_000


@pytest_asyncio.fixture(loop_scope="session")
async def rooms() -> AsyncIterator[Server]:
    async with talking_rooms() as server:
        yield server


@contextlib.asynccontextmanager
async def page_at(browser: Browser, url: str, phone: bool = False, records: bool = False) -> AsyncIterator[Page]:
    """With a mouth. An exception in it, or a warning in its console, fails the test. ``records``: its sound can be
    kept, by a module that the page's policy would not let in."""
    async with await browser.new_context(viewport=PHONE if phone else None, bypass_csp=records) as context:
        page = await context.new_page()
        await give_mouth(page)
        complaints = watch(page)
        await page.goto(url)
        yield page
    assert complaints == []


def said(text: str, voice: str = "en-us") -> FloatArray:
    resampler = Resampler(SPEECH_HZ, MODEL_RATE_HZ)
    return resampler.process(np.concatenate((speak(text, voice), np.zeros(SPEECH_HZ, dtype=np.float32))))


async def join(page: Page, name: str, language: str, how: str = "join-talk") -> None:
    await page.get_by_test_id("join-name").fill(name)
    await page.get_by_test_id("join-language").select_option(language)
    await page.get_by_test_id(how).click()
    await expect(page.get_by_test_id("room")).to_be_visible()


async def talks(page: Page) -> None:
    """Until its session is there."""
    await page.wait_for_selector(
        "[data-testid=state][data-state=listening], [data-testid=state][data-state=speaking]", timeout=MINUTE_MS
    )


async def see_invitation(page: Page) -> None:
    """The room's link as a picture, which fits; and out of the way again."""
    image = page.get_by_test_id("qr-image")
    await expect(image).to_be_hidden()
    await page.get_by_test_id("show-qr").click()
    await expect(image).to_be_visible()
    picture = unquote(await image.get_attribute("src") or "").removeprefix("data:image/svg+xml,")
    assert picture.encode() == qr_code(await page.get_by_test_id("room-link").input_value())
    assert await image.evaluate("(image) => image.decode().then(() => image.naturalWidth)") > 0
    assert await page.evaluate(TOO_WIDE) == []
    await page.get_by_test_id("show-qr").click()
    await expect(image).to_be_hidden()


async def say_until_read(speaker: Page, sentence: str, reader: Page, word: str) -> None:
    """Say it again if it was misheard, as people do, and a busy machine makes them."""
    for _ in range(TIMES - 1):
        await say(speaker, said(sentence))
        with contextlib.suppress(AssertionError):
            await expect(reader.get_by_test_id("messages")).to_contain_text(word, timeout=MINUTE_MS / 4)
            return
    await say(speaker, said(sentence))
    await expect(reader.get_by_test_id("messages")).to_contain_text(word, timeout=MINUTE_MS)


async def test_two_people_two_languages(browser: Browser, rooms: Server) -> None:
    async with page_at(browser, local_url(rooms, "rooms.html")) as ann:
        await ann.get_by_test_id("new-room-name").fill("Kitchen")
        await ann.get_by_test_id("new-room").click()
        await join(ann, "Ann", "en")
        await talks(ann)
        async with page_at(browser, await ann.get_by_test_id("room-link").input_value(), phone=True) as ana:
            await expect(ana.get_by_test_id("joining-who")).to_contain_text("Ann")
            await join(ana, "Ana", "pt")
            await talks(ana)
            await expect(ann.get_by_test_id("people")).to_contain_text("Ana")
            await see_invitation(ann)
            messages = ana.get_by_test_id("messages")
            await say_until_read(ann, "what is three plus four", ana, "três")
            await expect(messages).to_contain_text("what is three")
            await expect(ann.get_by_test_id("messages")).to_contain_text("what is three")
            await ana.get_by_test_id("say-text").fill("Bom dia, obrigado.")
            await ana.get_by_test_id("say-send").click()
            await expect(ann.get_by_test_id("messages")).to_contain_text("Good morning", timeout=MINUTE_MS)
            assert await ana.evaluate(TOO_WIDE) == []
            await screenshot(ann, "rooms-desktop")
            await screenshot(ana, "rooms-phone")
            await ana.get_by_test_id("leave").click()
            await expect(ann.get_by_test_id("people")).not_to_contain_text("Ana")


@pytest.mark.timeout(300)
async def test_each_page_plays_in_its_own_language_what_the_other_says(browser: Browser, rooms: Server) -> None:
    """By the ear of the model of that language: one of three sentences to the letter, each way."""
    async with page_at(browser, local_url(rooms, "rooms.html"), records=True) as ann:
        await ann.get_by_test_id("new-room").click()
        await join(ann, "Ann", "en")
        await talks(ann)
        async with page_at(browser, await ann.get_by_test_id("room-link").input_value(), records=True) as ana:
            await join(ana, "Ana", "pt")
            await talks(ana)
            for page in (ann, ana):
                await page.get_by_test_id("original").select_option("off")
            english, portuguese = zip(*SPOKEN_PAIRS, strict=True)
            assert await played_as_read(rooms, ann, ana, english, "en-us", "pt")
            assert await played_as_read(rooms, ana, ann, portuguese, "pt-br", "en")


async def played_as_read(
    server: Server, speaker: Page, listener: Page, sentences: tuple[str, ...], voice: str, language: str
) -> bool:
    """Whether the listener's page plays the words of a translation that it shows, for one of the ``sentences``, each
    said again as people do."""
    bubbles = listener.locator("[data-testid=message][data-side=other]")
    for sentence in TIMES * sentences:
        before = await bubbles.count()
        await start_recording(listener)
        await say(speaker, said(sentence, voice))
        bubble, was_said = bubbles.nth(before), False
        with contextlib.suppress(AssertionError):
            await expect(bubble).to_have_attribute("data-playing", "started", timeout=MINUTE_MS / 4)
            await expect(bubble).to_have_attribute("data-playing", "", timeout=MINUTE_MS / 4)
            was_said = True
        recording = await finish_recording(listener, 1.0)
        heard = Resampler(PLAYED_HZ, MODEL_RATE_HZ).process(recording.played)
        read = await bubble.locator(".bubble-text").inner_text() if was_said else ""
        if was_said and await understood(server, language, heard) == words(read):
            return True
    return False


async def test_one_without_a_microphone_reads_and_writes_and_stays_the_same_after_a_reload(
    browser: Browser, rooms: Server
) -> None:
    async with page_at(browser, local_url(rooms, "rooms.html")) as ann:
        await ann.get_by_test_id("new-room").click()
        await join(ann, "Ann", "en", "join-read")
        async with page_at(browser, await ann.get_by_test_id("room-link").input_value()) as ana:
            await join(ana, "Ana", "pt", "join-read")
            await ana.get_by_test_id("say-text").fill("Bom dia")
            await ana.get_by_test_id("say-send").click()
            await expect(ann.get_by_test_id("messages")).to_contain_text("Good morning", timeout=MINUTE_MS)
            await ana.reload()
            await expect(ana.get_by_test_id("room")).to_be_visible()
            await ana.get_by_test_id("say-text").fill("Obrigado")
            await ana.get_by_test_id("say-send").click()
            await expect(ann.get_by_test_id("messages")).to_contain_text("Thank", timeout=MINUTE_MS)
            people = ann.get_by_test_id("people").get_by_role("listitem")
            await expect(people).to_have_count(2)
