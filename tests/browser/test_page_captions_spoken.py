"""Both sides of a spoken conversation in the page's transcript."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soxr
from playwright.async_api import expect

from lab.browsers.chromium import (
    chromium,
    local_url,
    screenshot,
    start_talking,
    visited_page,
)
from lab.speech.clips import SPEECH_HZ, write_wav
from rtc_server.audio import MODEL_RATE_HZ
from tests.browser.conftest import IN_A_BROWSER
from tests.conftest import need_commands, running_server
from tests.support.script import spoken

pytestmark = [*IN_A_BROWSER, pytest.mark.alone]


@pytest.fixture(autouse=True)
def _needs() -> None:
    need_commands("chromium")


async def test_a_question_in_speech_and_its_answer(tmp_path: Path) -> None:
    """With the bundled models: what Chromium's microphone says, and what Pico answers, one below the other."""
    need_commands("espeak-ng")
    question = soxr.resample(spoken("what is three plus four"), MODEL_RATE_HZ, SPEECH_HZ)
    lead, tail = np.zeros(2 * SPEECH_HZ, dtype=np.float32), np.zeros(5 * SPEECH_HZ, dtype=np.float32)
    microphone = write_wav(tmp_path / "question.wav", np.concatenate((lead, question, tail)).astype(np.float32))
    slots = ("--slots", "1", "--stt-slots", "1", "--max-step-ms", "100000", "--allow-slow")
    async with (
        running_server("--model", "pico", *slots) as server,
        chromium(microphone) as browser,
        visited_page(browser, local_url(server)) as page,
    ):
        await expect(page.locator("#words-title")).to_have_text("What was said")
        await start_talking(page)
        transcript = page.get_by_test_id("transcript")
        await expect(transcript).to_contain_text(
            re.compile(r"You:\s*what is three plus four\s*Model:\s*that is seven"), timeout=40_000
        )
        await screenshot(page, "captions-pico")
