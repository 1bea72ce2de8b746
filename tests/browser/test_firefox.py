"""Firefox: the same page in another engine. A tone comes back whole, a path that dies is taken up again, and when the
page says that it listens, packets leave."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from lab.browsers.chromium import (
    call_of,
    local_url,
    record,
    start_talking,
    visited_page,
    wait_for_events,
    wait_for_state,
)
from lab.browsers.firefox import firefox
from lab.sound.likeness import longest_gap_ms, pitch_ratio, steady_likeness
from lab.speech.clips import SPEECH_HZ
from rtc_server.app import Server
from tests.browser.conftest import IN_A_BROWSER
from tests.conftest import need_commands

pytestmark = [*IN_A_BROWSER, pytest.mark.alone]
STEADY_PACKETS = 8
"""Of the 15 in the time that static/connection/flow.js wants to see them leave: a busy machine's are late."""
FRAME_MS = 80
"""What the engine gives at a time. A gap of this length is the server's; a busy machine's Firefox makes 50 and 60."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def humming(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    """Firefox takes seconds to start; each test has a page in a context of its own."""
    need_commands("firefox-esr", "pulseaudio")
    async with firefox(tmp_path_factory.mktemp("card")) as running:
        yield running


async def test_a_tone_comes_back_whole(server: Server, humming: Browser) -> None:
    """Correlation above 0.8, no frame missing after the first second, pitch unchanged."""
    async with visited_page(humming, local_url(server, "?raw=1")) as page:
        await start_talking(page)
        await wait_for_state(page, "speaking")
        recording = await record(page, 6.0)
    said, played = recording.said[SPEECH_HZ:], recording.played[SPEECH_HZ:]
    likeness = steady_likeness(said, played, SPEECH_HZ)
    assert likeness.correlation > 0.8
    assert longest_gap_ms(said, played, SPEECH_HZ, 0.0) < FRAME_MS
    assert pitch_ratio(said, played, SPEECH_HZ, 0.0) == pytest.approx(1.0, abs=0.01)


async def test_a_path_that_dies_is_taken_up_again(server: Server, humming: Browser) -> None:
    """The server drops its connection: the same session goes on over another."""
    async with visited_page(humming, local_url(server)) as page:
        await start_talking(page)
        session = await page.evaluate("window.__voice.sessionId")
        call = await call_of(page, server)
        before = call.transport
        await before.close(flush=False)
        await wait_for_events(page, "retrying")
        await wait_for_state(page, "listening", "speaking")
        assert await page.evaluate("window.__voice.sessionId") == session
        assert call.transport is not before
        await expect(page.locator("#announce")).to_have_text("Connected again. The conversation goes on where it was.")


async def test_when_the_page_says_that_it_listens_packets_leave(server: Server, humming: Browser) -> None:
    """By the browser's own count, at the moment at which the word changes."""
    await expect_packets(server, humming)


async def test_so_they_do_in_chromium(server: Server, browser: Browser) -> None:
    await expect_packets(server, browser)


async def expect_packets(server: Server, browser: Browser) -> None:
    async with visited_page(browser, local_url(server)) as page:
        await page.evaluate(_NOTE_PACKETS)
        await start_talking(page)
        assert await page.evaluate("() => window.sent") >= STEADY_PACKETS


_NOTE_PACKETS = """
() => {
  const state = document.querySelector('[data-testid=state]');
  window.sent = new Promise((resolve) => {
    new MutationObserver(async () => {
      if (!['listening', 'speaking'].includes(state.dataset.state)) return;
      const reports = [...(await window.__voice.pc.getStats()).values()];
      resolve(reports.find(({ type }) => type === 'outbound-rtp').packetsSent);
    }).observe(state, { attributes: true });
  });
}
"""
