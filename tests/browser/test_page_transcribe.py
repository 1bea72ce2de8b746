"""The view that transcribes: words as they are spoken."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from playwright.async_api import expect

from lab.browsers.chromium import (
    chromium,
    local_url,
    start_talking,
    wait_for_sessions,
    wait_for_state,
)
from lab.speech.clips import SPEECH_HZ, speak, write_wav
from rtc_server.app import Server
from rtc_server.models.tiny import write_tiny_checkpoint
from tests.browser.conftest import IN_A_BROWSER
from tests.conftest import need_commands, running_server
from tests.support.transcribe_page import (
    RAW,
    downloaded,
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
