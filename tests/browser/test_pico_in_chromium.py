"""A person opens the page, asks for a sum and hears what it comes to, or reads what was said: by the bundled models,
from end to end."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soxr
from playwright.async_api import expect

from lab.browsers.chromium import (
    Recording,
    chromium,
    finish_recording,
    local_url,
    opened_page,
    screenshot,
    start_recording,
    start_talking,
    visited_page,
)
from lab.pico.recogniser import Recogniser
from lab.speech.clips import SPEECH_HZ, write_wav
from rtc_server.audio import MODEL_RATE_HZ, FloatArray
from tests.browser.conftest import IN_A_BROWSER
from tests.conftest import need_commands, running_server
from tests.support.script import spoken

pytestmark = [*IN_A_BROWSER, pytest.mark.alone]
PERIOD_S = 8.0
"""Chromium says its file over and over: a question, then time for the answer."""
ASKED = 3
"""How often at most, until the answer is written."""
SAID_WITHIN_S = 3.0
ANSWER = "that is seven"


async def test_chromium_asks_for_a_sum_and_hears_the_answer(tmp_path: Path) -> None:
    need_commands("chromium", "espeak-ng")
    question = soxr.resample(spoken("what is three plus four"), MODEL_RATE_HZ, SPEECH_HZ)
    lead = np.zeros(2 * SPEECH_HZ, dtype=np.float32)
    tail = np.zeros(round(PERIOD_S * SPEECH_HZ) - len(question) - len(lead), dtype=np.float32)
    microphone = write_wav(tmp_path / "question.wav", np.concatenate((lead, question, tail)).astype(np.float32))
    async with (
        running_server("--model", "pico", "--slots", "1", "--stt", "none") as server,
        chromium(microphone) as browser,
        opened_page(browser, local_url(server)) as page,
    ):
        assert await page.get_by_test_id("examples").is_visible()
        await start_talking(page)
        await start_recording(page)
        await expect(page.get_by_test_id("transcript")).to_contain_text(ANSWER, timeout=ASKED * PERIOD_S * 1000)
        heard = answers_in(resampled(await finish_recording(page, SAID_WITHIN_S)))
        for _ in range(ASKED - 1):  # a busy machine garbles an answer, and the question comes again
            if ANSWER not in heard:
                heard = answers_in(resampled(await finish_recording(page, PERIOD_S)))
        transcript = await page.get_by_test_id("transcript").inner_text()
        await screenshot(page, "pico")
    assert ANSWER in [line.strip() for line in transcript.splitlines()], "each answer has its line"
    assert ANSWER in heard


def resampled(recording: Recording) -> FloatArray:
    """What was played, as the recogniser wants it."""
    return np.asarray(soxr.resample(recording.played, SPEECH_HZ, MODEL_RATE_HZ), dtype=np.float32)


async def test_chromium_says_a_sentence_and_reads_it(tmp_path: Path) -> None:
    need_commands("chromium", "espeak-ng")
    sentence = soxr.resample(spoken("the captain lost his wallet"), MODEL_RATE_HZ, SPEECH_HZ)
    pause = np.zeros(2 * SPEECH_HZ, dtype=np.float32)
    microphone = write_wav(tmp_path / "sentence.wav", np.concatenate((pause, sentence, pause)).astype(np.float32))
    async with (
        running_server("--model", "pico", "--slots", "1", "--stt-slots", "1") as server,
        chromium(microphone) as browser,
        visited_page(browser, local_url(server, "?view=transcribe")) as page,
    ):
        await expect(page.get_by_test_id("model")).to_have_text("pico-stt on cpu")
        await expect(page.get_by_test_id("examples-list")).to_contain_text("the captain lost his wallet at the station")
        await start_talking(page)
        await expect(page.get_by_test_id("captions")).to_contain_text(
            re.compile(r"the\s+captain\s+lost\s+his\s+wallet"), timeout=20_000
        )
        await screenshot(page, "pico-stt")


def answers_in(pcm: np.ndarray) -> list[str]:  # type: ignore[type-arg]
    """What is said between the pauses of half a second."""
    recogniser = Recogniser()
    block = MODEL_RATE_HZ // 50
    loud = np.abs(pcm[: len(pcm) // block * block]).reshape(-1, block).max(axis=1) > 0.02
    edges = np.flatnonzero(loud)
    groups = np.split(edges, np.flatnonzero(np.diff(edges) > 25) + 1) if len(edges) else []
    return [recogniser.hear(pcm[group[0] * block : (group[-1] + 1) * block]) for group in groups]
