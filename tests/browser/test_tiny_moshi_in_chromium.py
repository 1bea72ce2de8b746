"""A person talks to a real, if tiny, Moshi checkpoint from Chromium: it answers in sound and in words.

Its weights are random, so what it says means nothing; that it says it in real time, through the moshi package's
own classes in the engine's own process, is what is held here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lab.browsers.chromium import call_of, chromium, opened_page, record, screenshot, start_talking
from lab.sound.likeness import levels
from lab.speech.clips import SPEECH_HZ, speak, write_wav
from rtc_server.models.tiny import write_tiny_checkpoint
from tests.browser.conftest import IN_A_BROWSER
from tests.conftest import need_commands, running_server

pytestmark = [*IN_A_BROWSER, pytest.mark.alone]


async def test_moshi_answers_in_sound_and_words(tmp_path: Path) -> None:
    need_commands("chromium", "espeak-ng")
    spoken = write_wav(tmp_path / "speech.wav", speak("Hello there. How are you today?"))
    checkpoint = write_tiny_checkpoint(tmp_path / "tiny-moshi")
    async with (
        running_server("--model", str(checkpoint), "--slots", "2", "--threads", "1", "--seed", "1") as server,
        chromium(spoken) as browser,
        opened_page(browser, f"http://localhost:{server.port}/") as page,
    ):
        assert "tiny-moshi" in await page.get_by_test_id("model").inner_text()
        assert await page.get_by_test_id("notice").is_hidden()
        await start_talking(page)
        await page.wait_for_function(
            "() => document.querySelector('[data-testid=transcript]').textContent.trim().split(/\\s+/).length >= 5",
            timeout=20_000,
        )
        recording = await record(page, 6.0)
        transcript = await page.get_by_test_id("transcript").inner_text()
        await screenshot(page, "tiny-moshi")
        step_ms = server.engines["dialogue"].step_p50_ms
        stats = await (await call_of(page, server)).stats()
    assert len(transcript.split()) >= 5
    # In real time: 12.5 frames a second went through, nearly all came back, and a step takes less than a frame's time.
    assert stats.frames_in >= 5 * 12.5
    assert stats.frames_out >= 0.9 * stats.frames_in
    assert step_ms is not None
    assert step_ms < 80
    # Audible, and hardly ever silent: random weights do not pause for breath.
    heard = levels(recording.played[SPEECH_HZ:], SPEECH_HZ)
    assert np.median(heard) > -45
    assert (heard < -60).mean() < 0.05
