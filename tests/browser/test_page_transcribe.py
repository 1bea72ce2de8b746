"""The view that transcribes: words as they are spoken, by servers that can and cannot."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from playwright.async_api import Browser, Route, expect

from lab.browsers.chromium import (
    call_of,
    chromium,
    hand_over,
    local_url,
    start_talking,
    visited_page,
    wait_for_sessions,
    wait_for_state,
)
from lab.speech.clips import SPEECH_HZ, speak, write_wav
from rtc_server.app import Server
from rtc_server.models.tiny import write_tiny_checkpoint
from rtc_server.protocols import events
from tests.browser.conftest import IN_A_BROWSER
from tests.conftest import need_commands, running_server
from tests.support.paths import paths_to
from tests.support.resume_page import wait_for_loss
from tests.support.transcribe_page import (
    RAW,
    downloaded,
    listening,
    opened,
    paragraphs,
    texts,
    wait_for_words,
)

pytestmark = [*IN_A_BROWSER, pytest.mark.alone]


@pytest.fixture(autouse=True)
def _needs() -> None:
    need_commands("chromium")


@pytest.fixture
def turns_file(tmp_path: Path) -> Path:
    """Three words of 600 Hz, a pause in which a turn ends, over and over."""
    seconds = np.arange(SPEECH_HZ * 6) / SPEECH_HZ
    spoken = (seconds % 0.8 < 0.32) & (seconds < 2.4)
    return write_wav(tmp_path / "turns.wav", (0.25 * np.sin(2 * np.pi * 600 * seconds) * spoken).astype(np.float32))


async def test_words_appear_while_one_speaks(writing: Server, turns_file: Path) -> None:
    """In paragraphs by turn, with the state in words; after the end they are all there, to be saved."""
    async with chromium(turns_file) as browser, opened(browser, local_url(writing, RAW)) as page:
        await expect(page.get_by_test_id("model")).to_have_text("stenographer on cpu")
        await expect(page.get_by_test_id("start")).to_have_text("Start transcribing")
        await expect(page.get_by_test_id("heard")).to_be_hidden()
        await start_talking(page)
        await expect(page.get_by_test_id("state-detail")).to_have_text("Just talk. What you say is written down.")
        heard = page.get_by_test_id("heard")
        for word in ("Speech", "Turn ended", "Listening", "Speech"):
            await expect(heard).to_have_text(word, timeout=20_000)
        # Each turn of three words is a paragraph of its own; the first may have been under way, the last may be.
        await page.wait_for_function("() => document.querySelectorAll('.paragraph').length >= 3", timeout=30_000)
        assert (await texts(page))[1] == "600 600 600"
        assert await page.get_by_test_id("captions-log").locator("p").count() >= 2
        await page.get_by_test_id("start").click()
        await wait_for_state(page, "ended")
        await expect(page.get_by_test_id("state-detail")).to_have_text("You ended the transcription.")
        await expect(heard).to_be_hidden()
        # What was under way is closed as well.
        await expect(page.get_by_test_id("captions-now").locator("p")).to_have_count(0)
        shown = await texts(page)
        told = json.loads((await downloaded(page, "json"))[1])
        assert [turn["text"] for turn in told["turns"]] == shown
        starts = [turn["start_ms"] for turn in told["turns"]]
        assert np.diff(starts)[1:] == pytest.approx(6_000, abs=400) or len(starts) < 3


async def test_the_last_word_comes_after_the_end(writing: Server, tmp_path: Path) -> None:
    """It was under way when the button was pressed: the tone goes on, so the model has not closed it before."""
    seconds = np.arange(SPEECH_HZ) / SPEECH_HZ
    tone = write_wav(tmp_path / "tone.wav", (0.25 * np.sin(2 * np.pi * 600 * seconds)).astype(np.float32))
    async with chromium(tone) as browser, opened(browser, local_url(writing, RAW)) as page:
        await start_talking(page)
        await expect(page.get_by_test_id("heard")).to_have_text("Speech")
        assert await texts(page) == []
        await page.get_by_test_id("start").click()
        await wait_for_state(page, "ended")
        await expect(paragraphs(page)).to_have_count(1)
        assert (await texts(page))[0].startswith("600")
        await expect(page.get_by_test_id("captions-log").locator("p")).to_have_count(1)
        await wait_for_sessions(writing, 0)


async def test_a_real_model_writes(tmp_path: Path) -> None:
    """A tiny one of random weights: what it writes means nothing."""
    need_commands("espeak-ng")
    spoken = write_wav(tmp_path / "speech.wav", speak("Hello there. How are you today?"))
    checkpoint = write_tiny_checkpoint(tmp_path / "tiny-stt", "stt")
    arguments = ("--model", "echo", "--stt", str(checkpoint), "--stt-slots", "2", "--threads", "1")
    async with (
        running_server(*arguments) as server,
        chromium(spoken) as browser,
        # Without ?view: what the server does by default is to transcribe.
        opened(browser, local_url(server)) as page,
    ):
        await expect(page.get_by_test_id("model")).to_contain_text("tiny-stt")
        await start_talking(page)
        await wait_for_words(page, 8)
        await page.get_by_test_id("start").click()
        await wait_for_state(page, "ended")


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
