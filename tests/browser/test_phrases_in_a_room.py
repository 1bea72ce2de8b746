"""A phrase that is spoken into a sound card once the page says "Listening" is heard from its beginning, in Firefox and
in Chromium; and in Firefox the bundled models answer it, and write it down."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import soxr
from playwright.async_api import Browser, expect
from scipy.signal import correlate

from lab.browsers.chromium import chromium, local_url, record, start_talking, visited_page
from lab.browsers.firefox import firefox_with
from lab.sound.card import SoundCard, sound_card
from lab.speech.clips import SPEECH_HZ, write_wav
from lab.waiting import until
from rtc_server.audio import MODEL_RATE_HZ, FloatArray
from rtc_server.engine.local import LocalLink
from tests.browser.conftest import IN_A_BROWSER
from tests.browser.test_pico_in_chromium import answers_in
from tests.conftest import need_commands, running_server, server_with
from tests.support.keeper import Keeper
from tests.support.script import spoken

pytestmark = [*IN_A_BROWSER, pytest.mark.alone]
SENTENCE: Final = "the captain lost his wallet"
BEGINNING: Final = MODEL_RATE_HZ * 2 // 5
SILENCE: Final = 1e-3
"""Energy of a beginning that is none."""
SUM: Final = "that is seven"
TRIES: Final = 3
"""As a person does, a phrase is said again that a busy machine has not understood."""
ANSWER_S: Final = 6.0
"""From the beginning of the question to the end of the answer, with room for a busy machine."""


@pytest.fixture(autouse=True)
def _needs() -> None:
    need_commands("firefox-esr", "chromium", "pulseaudio", "paplay", "espeak-ng")


@contextlib.asynccontextmanager
async def in_a_room(name: str, directory: Path, *, sleepy: bool = False) -> AsyncIterator[tuple[Browser, SoundCard]]:
    async with (
        sound_card(directory, sleepy=sleepy) as card,
        firefox_with(card) if name == "firefox" else chromium(card) as browser,
    ):
        yield browser, card


def written(directory: Path, pcm: FloatArray) -> Path:
    """``pcm``, at 24 kHz, as a file for a sound card."""
    return write_wav(directory / "said.wav", np.asarray(soxr.resample(pcm, MODEL_RATE_HZ, SPEECH_HZ), dtype=np.float32))


@pytest.mark.parametrize("name", ["firefox", "chromium"])
async def test_a_phrase_is_heard_from_its_beginning(tmp_path: Path, name: str) -> None:
    """Said at once when the page says "Listening", to a sound card that lets the browser wait for its first sound."""
    keeper = Keeper()
    said = spoken(SENTENCE)
    async with (
        server_with({"dialogue": lambda: LocalLink(lambda: keeper)}, "--vad", "off") as server,
        in_a_room(name, tmp_path, sleepy=True) as (browser, card),
        visited_page(browser, local_url(server, "?raw=1")) as page,
    ):
        await start_talking(page)
        await card.say(written(tmp_path, said))
        under_way = len(keeper.heard) + MODEL_RATE_HZ // 2
        await until(lambda: len(keeper.heard) > under_way)
        heard = keeper.heard
    assert likeness(said[:BEGINNING], heard) > 0.5  # of another beginning, 0.2 to 0.35


async def test_firefox_asks_for_a_sum_and_hears_the_answer(tmp_path: Path) -> None:
    question = written(tmp_path, spoken("what is three plus four"))
    async with (
        running_server("--model", "pico", "--slots", "1", "--stt", "none") as server,
        in_a_room("firefox", tmp_path) as (browser, card),
        visited_page(browser, local_url(server)) as page,
    ):
        await start_talking(page)
        for _ in range(TRIES):
            _, recording = await asyncio.gather(card.say(question), record(page, ANSWER_S))
            written_down = (await page.get_by_test_id("transcript").inner_text()).replace("\n", " ")
            played = np.asarray(soxr.resample(recording.played, SPEECH_HZ, MODEL_RATE_HZ), dtype=np.float32)
            said = answers_in(played)
            if SUM in written_down and SUM in said:
                break
    assert SUM in written_down
    assert SUM in said


async def test_firefox_says_a_sentence_and_reads_it(tmp_path: Path) -> None:
    async with (
        running_server("--model", "echo", "--stt", "pico-stt", "--stt-slots", "1") as server,
        in_a_room("firefox", tmp_path) as (browser, card),
        visited_page(browser, local_url(server, "?view=transcribe")) as page,
    ):
        await start_talking(page)
        captions, words = page.get_by_test_id("captions"), re.compile(SENTENCE.replace(" ", r"\s+"))
        for _ in range(TRIES):
            await card.say(written(tmp_path, spoken(SENTENCE)))
            with contextlib.suppress(AssertionError):
                await expect(captions).to_contain_text(words)
                break
        await expect(captions).to_contain_text(words)


def likeness(said: FloatArray, heard: FloatArray) -> float:
    """The correlation of ``said`` with the part of ``heard`` that is most like it, from 0 to 1."""
    if len(heard) < len(said):
        return 0.0
    products = np.abs(correlate(heard, said, "valid"))
    energies = correlate(heard**2, np.ones_like(said), "valid")
    return float(np.max(products / np.sqrt(np.maximum(energies, SILENCE) * np.dot(said, said))))
