"""On phones: small screens either way up, and what a phone does to a page that talks: calls that come in, headsets
that go, screens that lock. Chromium plays the phone; what it does not do by itself is faked as the events that iOS and
Android are documented to send."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect
from playwright.sync_api import sync_playwright

from lab.browsers.chromium import (
    call_of,
    local_url,
    microphones,
    screenshot,
    spy_on,
    start_talking,
    visited_page,
    wait_for_events,
    wait_for_state,
)
from rtc_server.app import Server
from tests.browser.conftest import IN_A_BROWSER
from tests.browser.test_page_looks import crowded
from tests.support.looks import TOO_SMALL, TOO_WIDE, TOUCH_PX

pytestmark = IN_A_BROWSER

Handset = Callable[[str], dict[str, Any]]
PAUSED = "Paused by a call or by another app. It goes on by itself afterwards."
HEARD = "[data-testid=meter-voice]:not([aria-valuenow='0'])"

# What a phone has and this Chromium may not: an audio session, a wake lock, contexts that are interrupted. The page's
# own code sees no difference.
_PHONE = """
window.phone = { sessions: [], locks: [], contexts: [], gestures: [] };
Object.defineProperty(navigator, 'audioSession', { value: {
  get type() { return phone.sessions.at(-1) ?? 'auto'; },
  set type(type) { phone.sessions.push(type); },
} });
Object.defineProperty(navigator, 'wakeLock', { value: {
  async request() {
    const lock = new EventTarget();
    lock.released = false;
    lock.release = async () => { lock.released = true; };
    phone.locks.push(lock);
    return lock;
  },
} });
const { resume } = AudioContext.prototype;
AudioContext.prototype.resume = function () {
  if (!phone.contexts.includes(this)) phone.contexts.push(this);
  phone.gestures.push(['resume', navigator.userActivation.isActive]);
  delete this.state;
  return resume.call(this);
};
const { play } = HTMLMediaElement.prototype;
HTMLMediaElement.prototype.play = function () {
  phone.gestures.push(['play', navigator.userActivation.isActive]);
  return play.call(this);
};
phone.interrupt = () => {
  const context = phone.contexts.at(-1);
  Object.defineProperty(context, 'state', { value: 'interrupted', configurable: true });
  context.dispatchEvent(new Event('statechange'));
};
phone.silence = (muted) => {
  const track = spied.tracks.at(-1);
  Object.defineProperty(track, 'muted', { value: muted, configurable: true });
  track.dispatchEvent(new Event(muted ? 'mute' : 'unmute'));
};
phone.look = (visible) => {
  Object.defineProperty(document, 'visibilityState', { value: visible ? 'visible' : 'hidden', configurable: true });
  document.dispatchEvent(new Event('visibilitychange'));
};
const { getUserMedia: open } = navigator.mediaDevices;
navigator.mediaDevices.getUserMedia = async function (...wish) {
  if (document.visibilityState !== 'visible') throw new DOMException('nobody looks', 'InvalidStateError');
  return open.apply(this, wish);
};
phone.withoutDevice = (id) => {
  const { enumerateDevices } = navigator.mediaDevices;
  navigator.mediaDevices.enumerateDevices = async () => (await enumerateDevices.call(navigator.mediaDevices))
    .filter(({ deviceId }) => deviceId !== id);
  navigator.mediaDevices.dispatchEvent(new Event('devicechange'));
};
"""


@pytest.fixture(scope="module")
def handset() -> Handset:
    """A context of Playwright's list of devices; all of them are played by Chromium here."""
    with sync_playwright() as playwright:
        devices = dict(playwright.devices)

    def context(name: str) -> dict[str, Any]:
        return {key: value for key, value in devices[name].items() if key != "default_browser_type"}

    return context


async def phone_page(page: Page, server: Server) -> None:
    """A conversation on a phone."""
    await spy_on(page)
    await page.add_init_script(_PHONE)
    await page.goto(local_url(server))
    await start_talking(page)
    await page.wait_for_selector(HEARD)


async def expect_detail(page: Page, sentence: str) -> None:
    await expect(page.get_by_test_id("state-detail")).to_have_text(sentence)


async def wait_for_level(page: Page, server: Server, *, above: float) -> None:
    """Until the server hears the microphone."""
    deadline = time.monotonic() + 30
    while (await (await call_of(page, server)).stats()).level_in_dbfs <= above:
        assert time.monotonic() < deadline, "the server does not hear it"
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("name", ["iPhone 13", "iPhone SE", "Pixel 7", "Galaxy S9+", "iPhone 13 landscape"])
async def test_on_a_handset(browser: Browser, server: Server, handset: Handset, name: str) -> None:
    """Whole conversation by touch; every control is large enough, on screen, and nothing reaches over the edge."""
    device = handset(name)
    async with visited_page(browser, "about:blank", **device) as page:
        await crowded(page, server)
        assert await page.evaluate("document.documentElement.scrollWidth") <= device["viewport"]["width"]
        assert await page.evaluate(TOO_WIDE) == []
        assert await page.evaluate(TOO_SMALL, TOUCH_PX) == []
        await page.get_by_test_id("dismiss").tap()
        await screenshot(page, f"handset-{name.replace(' ', '-').lower()}")
        await page.evaluate("scrollTo(0, 0)")
        await page.get_by_test_id("mute").tap()
        await expect(page.get_by_test_id("mute")).to_have_attribute("aria-pressed", "true")
        await page.get_by_test_id("start").tap()
        await wait_for_state(page, "ended")
        # Zooming in on a field that is typed into would push the page about: iOS does that below 16 px.
        sizes = await page.evaluate(
            "[...document.querySelectorAll('input, select')].map((one) => parseFloat(getComputedStyle(one).fontSize))"
        )
        assert min(sizes) >= 16


@pytest.mark.parametrize("name", ["iPhone 13", "Pixel 7"])
async def test_everything_that_a_phone_blocks_is_unlocked_by_the_tap(
    browser: Browser, server: Server, handset: Handset, name: str
) -> None:
    """Both kinds of sound begin inside it, the element plays in the page, and the sound goes where a call's goes."""
    device = handset(name)
    async with visited_page(browser, "about:blank", **device) as page:
        await spy_on(page)
        await page.add_init_script(_PHONE)
        await page.goto(local_url(server))
        assert await page.locator("audio").evaluate("(audio) => audio.hasAttribute('playsinline')")
        await page.get_by_test_id("start").tap()
        await wait_for_events(page, "state")
        gestures = dict(reversed(await page.evaluate("phone.gestures")))
        assert gestures == {"resume": True, "play": True}
        await wait_for_state(page, "listening", "speaking")
        await page.wait_for_selector(HEARD)
        assert await page.evaluate("phone.sessions") == ["play-and-record"]
        await page.get_by_test_id("start").tap()
        await wait_for_state(page, "ended")
        assert await page.evaluate("phone.sessions") == ["play-and-record", "auto"]


async def test_a_phone_call_pauses_the_conversation(browser: Browser, server: Server, handset: Handset) -> None:
    """iOS mutes the microphone and interrupts the sound; the page says so, and sets both going again afterwards."""
    async with visited_page(browser, "about:blank", **handset("iPhone 13")) as page:
        await phone_page(page, server)
        session = await page.evaluate("window.__voice.sessionId")
        await page.evaluate("phone.silence(true)")
        await page.evaluate("phone.interrupt()")
        await expect_detail(page, PAUSED)
        await expect(page.locator("#announce")).to_have_text(PAUSED)
        resumed = await page.evaluate("phone.gestures.length")
        await page.evaluate("phone.silence(false)")
        await expect(page.get_by_test_id("state-detail")).not_to_have_text(PAUSED)
        assert await page.evaluate("phone.contexts.at(-1).state") == "running"
        later = await page.evaluate("(count) => phone.gestures.slice(count).map(([what]) => what)", resumed)
        assert {"resume", "play"} <= set(later)
        assert await page.evaluate("window.__voice.sessionId") == session
        await page.wait_for_selector(HEARD)
        assert await microphones(page) == ["live"]


async def test_an_element_that_the_system_has_paused_plays_again(
    browser: Browser, server: Server, handset: Handset
) -> None:
    """As after Siri, or a headset that was taken off."""
    async with visited_page(browser, "about:blank", **handset("iPhone 13")) as page:
        await phone_page(page, server)
        await page.locator("audio").evaluate("(audio) => audio.pause()")
        await expect_detail(page, PAUSED)
        await page.evaluate("phone.look(true)")
        await expect(page.get_by_test_id("state-detail")).not_to_have_text(PAUSED)
        assert not await page.locator("audio").evaluate("(audio) => audio.paused")


async def test_a_microphone_that_stays_muted_is_opened_anew(browser: Browser, server: Server, handset: Handset) -> None:
    """Some calls never give it back."""
    async with visited_page(browser, "about:blank", **handset("iPhone 13")) as page:
        await phone_page(page, server)
        session = await page.evaluate("window.__voice.sessionId")
        await page.evaluate("phone.silence(true)")
        await expect_detail(page, PAUSED)
        await page.evaluate("phone.look(true)")
        await page.wait_for_function("() => spied.tracks.length === 2")
        await expect(page.get_by_test_id("state-detail")).not_to_have_text(PAUSED)
        await page.wait_for_function("() => spied.tracks[0].readyState === 'ended'")
        assert await page.evaluate("window.__voice.sessionId") == session
        await wait_for_level(page, server, above=-60)


async def test_a_microphone_that_a_call_has_ended_is_opened_when_the_page_is_back(
    browser: Browser, server: Server, handset: Handset
) -> None:
    """Not before: no browser opens one for a page that is not shown."""
    async with visited_page(browser, "about:blank", **handset("iPhone 13")) as page:
        await phone_page(page, server)
        await page.evaluate("phone.look(false)")
        await page.evaluate("spied.tracks[0].stop(); spied.tracks[0].dispatchEvent(new Event('ended'))")
        assert await page.evaluate("spied.tracks.length") == 1
        await page.evaluate("phone.look(true)")
        await page.wait_for_function("() => spied.tracks.length === 2")
        await expect(page.get_by_test_id("message")).to_be_hidden()
        await wait_for_level(page, server, above=-60)


@pytest.mark.parametrize("chosen", [True, False], ids=["chosen", "default"])
async def test_a_headset_that_goes(browser: Browser, server: Server, handset: Handset, chosen: bool) -> None:
    """The system's microphone takes its place, in the same session, with the echo still cancelled."""
    async with visited_page(browser, "about:blank", **handset("Pixel 7")) as page:
        await phone_page(page, server)
        session = await page.evaluate("window.__voice.sessionId")
        if chosen:
            await page.get_by_test_id("mic-select").select_option(index=1)
            await page.wait_for_function("() => spied.tracks.length === 2")
        before = await page.evaluate("spied.tracks.length")
        await page.evaluate("phone.withoutDevice(spied.tracks.at(-1).getSettings().deviceId)")
        await page.wait_for_function("(before) => spied.tracks.length > before", arg=before)
        await expect(page.get_by_test_id("mic-select")).to_have_value("")
        await page.wait_for_function(
            "() => spied.tracks.filter(({ readyState }) => readyState === 'live').length === 1"
            " && spied.tracks.at(-1).readyState === 'live'"
        )
        assert await page.evaluate("spied.tracks.at(-1).getSettings().echoCancellation")
        assert await page.evaluate("window.__voice.sessionId") == session
        await wait_for_level(page, server, above=-60)


async def test_another_loudspeaker(browser: Browser, server: Server) -> None:
    """Where the browser lets the page choose: at once, remembered, and given up while it is unplugged."""
    async with visited_page(browser, "about:blank") as page:
        await phone_page(page, server)
        choices, sink = page.get_by_test_id("speaker-select"), "() => document.querySelector('audio').sinkId"
        await expect(choices.locator("option")).not_to_have_count(1)
        await choices.select_option(index=1)
        chosen = await choices.input_value()
        await page.wait_for_function(f"(id) => ({sink})() === id", arg=chosen)
        await page.reload()
        await start_talking(page)
        await expect(choices).to_have_value(chosen)
        await page.wait_for_function(f"(id) => ({sink})() === id", arg=chosen)
        await page.evaluate("(id) => phone.withoutDevice(id)", chosen)
        await page.wait_for_function(f"() => ({sink})() === ''")
        await expect(choices).to_have_value("")
        assert await microphones(page) == ["live"]


async def test_a_browser_that_routes_sound_by_itself(browser: Browser, server: Server, handset: Handset) -> None:
    """As phones do: nothing is there to be chosen."""
    async with visited_page(browser, "about:blank", **handset("iPhone 13")) as page:
        await page.add_init_script("delete HTMLMediaElement.prototype.setSinkId")
        await phone_page(page, server)
        await expect(page.get_by_test_id("speaker-select")).to_be_hidden()


async def test_devices_that_come_change_nothing(browser: Browser, server: Server, handset: Handset) -> None:
    """What is in use stays in use."""
    async with visited_page(browser, "about:blank", **handset("Pixel 7")) as page:
        await phone_page(page, server)
        await page.evaluate("navigator.mediaDevices.dispatchEvent(new Event('devicechange'))")
        await page.evaluate("phone.look(true)")
        heard = "window.__voice.events.filter(({ type }) => type === 'figures').length"
        count = await page.evaluate(heard)
        await page.wait_for_function(f"(count) => {heard} > count + 1", arg=count)
        assert await microphones(page) == ["live"]


async def test_the_screen_stays_on(browser: Browser, server: Server, handset: Handset) -> None:
    """The system takes the lock away whenever the page is hidden, and the page takes it again."""
    async with visited_page(browser, "about:blank", **handset("Pixel 7")) as page:
        await phone_page(page, server)
        assert await page.evaluate("phone.locks.map(({ released }) => released)") == [False]
        await page.evaluate("phone.locks[0].released = true")
        await page.evaluate("phone.look(false)")
        assert await page.evaluate("phone.locks.length") == 1
        await page.evaluate("phone.look(true)")
        await page.wait_for_function("() => phone.locks.length === 2")
        await page.get_by_test_id("start").tap()
        await wait_for_state(page, "ended")
        await page.wait_for_function("() => phone.locks.every(({ released }) => released)")


async def test_sound_that_is_blocked_waits_for_a_tap(browser: Browser, server: Server, handset: Handset) -> None:
    """The button says so, and begins it."""
    async with visited_page(browser, "about:blank", **handset("iPhone 13")) as page:
        await page.add_init_script("""
            const { play } = HTMLMediaElement.prototype;
            HTMLMediaElement.prototype.play = function () {
              if (navigator.userActivation.isActive && window.tapped) return play.call(this);
              return Promise.reject(new DOMException('as a test wants it', 'NotAllowedError'));
            };
        """)
        await page.goto(local_url(server))
        await start_talking(page)
        hear = page.get_by_test_id("hear")
        await expect(hear).to_be_visible()
        await page.evaluate("window.tapped = true")
        await hear.tap()
        await expect(hear).to_be_hidden()
