"""What the page says is so: that it listens, that something was lost, that a microphone is dead, that a conversation is
a new one. And what it says reaches eyes, ears and keyboards alike."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from lab.browsers.chromium import hand_over, local_url, spy_on, start_talking, visited_page
from rtc_server.app import Server
from rtc_server.engine.local import LocalLink
from rtc_server.models.echo import EchoModel
from tests.browser.conftest import IN_A_BROWSER
from tests.conftest import server_with
from tests.support.looks import TOO_WIDE, ZOOMED
from tests.support.page_constants import with_constant
from tests.support.parrot import Parrot

pytestmark = IN_A_BROWSER
DEAD_AFTER_MS = 2_000
"""A third of what the page waits for before it doubts a microphone."""

# A microphone that gives nothing at all until `sounds()`, and digital silence after `gate()`.
_GATED = """
window.times = {};
(navigator.mediaDevices ?? {}).getUserMedia = async () => {
  const context = new AudioContext();
  await context.suspend();
  const [tone, gain, out] = [context.createOscillator(), context.createGain(), context.createMediaStreamDestination()];
  tone.connect(gain).connect(out);
  tone.start();
  window.sounds = () => { times.sounds = performance.now(); return context.resume(); };
  window.gate = () => { gain.gain.value = 0; };
  return out.stream;
};
"""


async def imported(page: Page, module: str, script: str) -> Any:
    """``script`` sees the module's exports as ``m``."""
    return await page.evaluate(f"(async () => {{ const m = await import('/static/{module}.js'); {script} }})()")


async def test_it_listens_once_packets_leave(browser: Browser, server: Server) -> None:
    """Not when it is connected: the sound of a browser may start two seconds later."""
    async with visited_page(browser, "about:blank") as page:
        await page.add_init_script(_GATED)
        await page.goto(local_url(server))
        await page.evaluate(
            """() => {
              const look = () => {
                const detail = document.querySelector('[data-testid=state-detail]').textContent;
                if (detail.startsWith('Connected.')) window.waiting ??= setTimeout(() => sounds(), 500);
                const { state } = document.querySelector('[data-testid=state]').dataset;
                if (['listening', 'speaking'].includes(state)) times.listening ??= performance.now();
              };
              new MutationObserver(look).observe(document.body, { subtree: true, attributes: true, childList: true });
            }"""
        )
        await start_talking(page)
        times = await page.evaluate("times")
        assert times["sounds"] <= times["listening"]
        assert (
            await imported(page, "connection/flow", "return m.packetsSent([...(await __voice.pc.getStats()).values()])")
            > 0
        )
        await expect(page.locator("#announce")).to_have_text("Connected. You can talk.")


async def test_a_microphone_that_was_heard_is_not_dead(browser: Browser, server: Server) -> None:
    """A gate sends digital silence between phrases; one that is silent from the beginning is worth a word."""
    async with visited_page(browser, "about:blank") as page:
        await with_constant(page, "page/levels", "DEAD_AFTER_MS", DEAD_AFTER_MS)
        await page.add_init_script(_GATED)
        await page.goto(local_url(server))
        await page.get_by_test_id("start").click()
        await page.wait_for_function("() => window.sounds")
        await page.evaluate("gate(); sounds()")
        await expect(page.get_by_test_id("silence")).to_contain_text("Nothing comes", timeout=20_000)
        await page.get_by_test_id("start").click()
        await page.evaluate("window.sounds = null")
        await page.get_by_test_id("start").click()
        await page.wait_for_function("() => window.sounds")
        await page.evaluate("sounds()")
        await page.wait_for_function("() => Number(document.querySelector('#meter-mic').ariaValueNow) > 0")
        await page.evaluate("gate()")
        await page.wait_for_timeout(1.25 * DEAD_AFTER_MS)
        await expect(page.get_by_test_id("silence")).to_be_empty()


async def test_a_pause_is_no_loss(browser: Browser, server: Server) -> None:
    """Browsers fade out what was said last when the server pauses. What counts is what was made up for a loss."""
    script = """
    const before = { received: 0, lost: 0, concealed: 0, samples: 0, delay_s: 0, emitted: 0 };
    const share = (packetsReceived, packetsLost) => m.readStats([{ type: 'inbound-rtp', kind: 'audio', packetsReceived,
      packetsLost, concealedSamples: 12000, silentConcealedSamples: 2400, totalSamplesReceived: 48000 }], before);
    return [share(20, 0), share(40, 10), share(50, 0)].map((reading) => reading.concealed_out);
    """
    async with visited_page(browser, local_url(server)) as page:
        assert await imported(page, "connection/stats", script) == [0, pytest.approx(0.2), pytest.approx(0.2)]


async def test_a_new_conversation_is_seen_and_a_message_that_goes_leaves_the_focus(
    browser: Browser, server: Server
) -> None:
    async with visited_page(browser, "about:blank") as page:
        await spy_on(page)
        await page.goto(local_url(server))
        await start_talking(page)
        await expect(page.locator("#announce")).to_have_text("Connected. You can talk.")
        text = {"type": "text", "time_ms": 1, "delta": "Seven."}
        reset = {"type": "state", "state": "listening", "reason": "reset", "time_ms": 2}
        error = {"type": "error", "time_ms": 3, "code": "rate_limited", "message": "", "retryable": True}
        await hand_over(page, *(json.dumps(message) for message in (text, reset, text, error)))
        await expect(page.get_by_test_id("state-detail")).to_have_text("A new conversation begins.")
        await expect(page.locator("#announce")).to_have_text("A new conversation begins.")
        titles = await page.locator("#transcript p").evaluate_all("(all) => all.map((one) => one.dataset.time)")
        assert [title.startswith("New conversation, ") for title in titles] == [False, True]
        await page.get_by_test_id("dismiss").click()
        await expect(page.get_by_test_id("start")).to_be_focused()


async def test_words_need_not_be_read_aloud(browser: Browser, server: Server) -> None:
    """A screen reader speaks into an open microphone: the switch is remembered."""
    async with visited_page(browser, local_url(server)) as page:
        logs = [page.locator("#transcript"), page.locator("#captions-log")]
        for log in logs:
            await expect(log).to_have_attribute("aria-live", "polite")
        await page.get_by_label("Screen readers read new words aloud").uncheck()
        await page.reload()
        for log in logs:
            await expect(log).to_have_attribute("aria-live", "off")


async def test_enlarged_to_400_percent_nothing_is_cut_off(browser: Browser) -> None:
    """WCAG 1.4.10, in both views, with a message on show. Without WebRTC, files still work: no alarm for those."""
    links = {"dialogue": lambda: LocalLink(lambda: EchoModel(2)), "transcribe": lambda: LocalLink(Parrot)}
    async with server_with(links) as server:
        for view in ("talk", "transcribe"):
            async with visited_page(browser, "about:blank", viewport=ZOOMED) as page:
                await page.add_init_script("delete window.RTCPeerConnection")
                await page.goto(local_url(server, f"?view={view}"))
                await expect(page.get_by_test_id("views")).to_be_visible()
                if view == "transcribe":
                    await expect(page.get_by_test_id("message")).to_be_hidden()
                    await expect(page.get_by_test_id("state-detail")).to_contain_text("Files can be transcribed")
                    assert await page.evaluate(TOO_WIDE) == []
                    await page.get_by_role("radio", name="Talk").check()
                await expect(page.get_by_test_id("message")).to_contain_text("This browser has no WebRTC")
                assert await page.evaluate(TOO_WIDE) == []
                assert await page.evaluate("document.documentElement.scrollWidth") <= ZOOMED["width"]
