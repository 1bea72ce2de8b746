"""A person talks to the echo from Chromium and gets their own voice back, whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.browsers.chromium import chromium, opened_page, record, screenshot, start_talking
from lab.sound.likeness import longest_gap_ms, pitch_ratio, steady_likeness
from lab.speech.clips import SPEECH_HZ, speak, write_wav
from rtc_server.app import Server
from tests.browser.conftest import IN_A_BROWSER
from tests.conftest import need_commands

pytestmark = [*IN_A_BROWSER, pytest.mark.alone]

SENTENCE = "The quick brown fox jumps over the lazy dog while seven wizards quietly brew strong black coffee."
RECORD_S = 12.0


@pytest.fixture
def spoken_file(tmp_path: Path) -> Path:
    need_commands("espeak-ng")
    return write_wav(tmp_path / "speech.wav", speak(SENTENCE))


async def test_a_sentence_spoken_in_chromium_comes_back_whole(server: Server, spoken_file: Path) -> None:
    """Correlation above 0.8, no gap over 40 ms after the first second, pitch unchanged."""
    need_commands("chromium")
    async with (
        chromium(spoken_file) as browser,
        opened_page(browser, f"http://localhost:{server.port}/?raw=1") as page,
    ):
        await start_talking(page)
        await page.wait_for_selector('[data-testid=state][data-state="speaking"]', timeout=20_000)
        recording = await record(page, RECORD_S)
        await screenshot(page, "echo")
        assert await page.get_by_test_id("notice").is_visible()
    said, played = recording.said[SPEECH_HZ:], recording.played[SPEECH_HZ:]
    likeness = steady_likeness(said, played, SPEECH_HZ)
    assert likeness.correlation > 0.8
    assert 0 < likeness.delay_ms < 600
    assert longest_gap_ms(said, played, SPEECH_HZ, likeness.delay_ms) <= 40
    assert pitch_ratio(said, played, SPEECH_HZ, likeness.delay_ms) == pytest.approx(1.0, abs=0.01)
