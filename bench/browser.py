"""``python -m bench browser``: what a person in front of Chromium has to wait for, connecting and talking."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from playwright.async_api import Browser, Page

from bench.systems import OURS, SYSTEMS
from bench.table import publish, spread
from lab.browsers.chromium import chromium, record, start_talking, wait_for_state
from lab.network.profiles import PROFILES
from lab.network.proxy import proxied
from lab.servers import running
from lab.sound.likeness import levels, longest_gap_ms, steady_likeness
from lab.speech.clips import SPEECH_HZ, speak, write_wav

HELP = "mouth to ear and connecting times in Chromium"

_TEXT = "The quick brown fox jumps over the lazy dog while seven wizards quietly brew strong black coffee."
_FIRST_SOUND_TIMEOUT_MS = 15_000

# Notes, by the page's own clock, when the offer was posted, when media connected and when the first sound of the
# server reached the page's audio graph. Nothing of the page is changed.
_STOPWATCH = """
window.__watch = {};
const mark = (name) => { window.__watch[name] ??= performance.now(); };
document.addEventListener('click', () => mark('clicked'), { capture: true });
const post = window.fetch;
window.fetch = (url, options) => {
  if (String(url).includes('/api/offer')) mark('offered');
  return post(url, options);
};
const Original = window.RTCPeerConnection;
window.RTCPeerConnection = class extends Original {
  constructor(...rest) {
    super(...rest);
    this.addEventListener('connectionstatechange', () => {
      if (this.connectionState === 'connected') mark('connected');
    });
    this.addEventListener('track', ({ track }) => {
      const context = new AudioContext();
      const analyser = context.createAnalyser();
      analyser.fftSize = 256;
      context.createMediaStreamSource(new MediaStream([track])).connect(analyser);
      const samples = new Float32Array(256);
      const timer = setInterval(() => {
        analyser.getFloatTimeDomainData(samples);
        if (Math.hypot(...samples) / 16 < 0.01) return;
        mark('heard');
        clearInterval(timer);
        context.close();
      }, 4);
    });
  }
};
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--calls", type=int, default=10, help="calls for the connecting times")
    parser.add_argument("--seconds", type=float, default=10, help="recorded for mouth to ear, each time")
    parser.add_argument("--recordings", type=int, default=3, help="recordings for mouth to ear")
    parser.add_argument("--profile", choices=PROFILES, help="a bad network in between (default: none)")
    parser.add_argument("--server-args", default="", help="further arguments of the server, as one string")


@dataclass(frozen=True, slots=True)
class Connecting:
    """Milliseconds, by the page's clock."""

    load_to_ready: float
    click_to_connected: float
    offer_to_connected: float
    offer_to_sound: float | None


@dataclass(frozen=True, slots=True)
class Talking:
    """``delay_ms``: from the microphone's track to the played track, in one audio graph."""

    delay_ms: float
    correlation: float
    gap_ms: float


def run(arguments: argparse.Namespace) -> None:
    connecting, talking, version = asyncio.run(_measure(arguments))
    rows = [
        ("mouth to ear (said to played in Chromium)", spread([one.delay_ms for one in talking], "ms")),
        ("correlation of played with said", spread([one.correlation for one in talking], "", 2)),
        ("longest gap", spread([one.gap_ms for one in talking], "ms")),
        ("page opened → connected, without the person's click", _sum_of_load_and_connect(connecting)),
        ("click → connected", spread([one.click_to_connected for one in connecting], "ms")),
        ("offer → connected", spread([one.offer_to_connected for one in connecting], "ms")),
        ("offer → first audio", spread([one.offer_to_sound for one in connecting], "ms")),
    ]
    network = PROFILES[arguments.profile].describe() if arguments.profile else "none but the machine's own"
    publish(
        "Echo in Chromium",
        ["", "this server"],
        rows,
        [
            f"Median (least–most): {len(talking)} recordings of {arguments.seconds:g} s, {len(connecting)} calls. "
            f"Network: {network}. {version}, its processing of the microphone off.",
            "Mouth to ear is from the page's microphone track to the page's played track: the sound card's own delays "
            "are not in it, Chromium's jitter buffer is.",
        ],
    )


async def _measure(arguments: argparse.Namespace) -> tuple[list[Connecting], list[Talking], str]:
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = await stack.enter_async_context(running(SYSTEMS[OURS], arguments.server_args.split()))
        url = server.url
        if arguments.profile:
            proxy = await stack.enter_async_context(proxied(url, PROFILES[arguments.profile]))
            url = f"http://127.0.0.1:{proxy.port}"
        url = url.replace("127.0.0.1", "localhost") + "/?raw=1"
        spoken = write_wav(directory / "speech.wav", speak(_TEXT))
        browser = await stack.enter_async_context(chromium(spoken))
        connecting = []
        for number in range(arguments.calls):
            print(f"call {number + 1}", file=sys.stderr)
            connecting.append(await _connect(browser, url))
        talking = []
        for number in range(arguments.recordings):
            print(f"recording {number + 1}", file=sys.stderr)
            talking.append(await _talk(browser, url, arguments.seconds))
        return connecting, talking, f"Chromium {browser.version}"


@contextlib.asynccontextmanager
async def _opened(browser: Browser) -> AsyncIterator[Page]:
    # The recorder's worklet comes from a blob, which the page's own policy rightly forbids.
    async with await browser.new_context(bypass_csp=True) as context:
        yield await context.new_page()


async def _connect(browser: Browser, url: str) -> Connecting:
    async with _opened(browser) as page:
        await page.add_init_script(_STOPWATCH)
        await page.goto(url)
        await page.locator("[data-testid=start]:enabled").wait_for()
        ready = await page.evaluate("performance.now()")
        await start_talking(page)
        with contextlib.suppress(TimeoutError):
            await page.wait_for_function("window.__watch.heard !== undefined", timeout=_FIRST_SOUND_TIMEOUT_MS)
        watch: dict[str, Any] = await page.evaluate("window.__watch")
        await _hang_up(page)
    heard = watch.get("heard")
    return Connecting(
        load_to_ready=ready,
        click_to_connected=watch["connected"] - watch["clicked"],
        offer_to_connected=watch["connected"] - watch["offered"],
        offer_to_sound=None if heard is None else heard - watch["offered"],
    )


async def _talk(browser: Browser, url: str, seconds: float) -> Talking:
    async with _opened(browser) as page:
        await page.goto(url)
        await start_talking(page)
        await page.wait_for_selector('[data-testid=state][data-state="speaking"]', timeout=20_000)
        # NetEq, Chromium's jitter buffer, stretches and squeezes in a call's first seconds.
        recording = await record(page, seconds + 3)
        await _hang_up(page)
    said, played = recording.said[SPEECH_HZ * 3 :], recording.played[SPEECH_HZ * 3 :]
    likeness = steady_likeness(said, played, SPEECH_HZ)
    assert np.max(levels(said, SPEECH_HZ)) > -40, "the fake microphone is silent"
    return Talking(likeness.delay_ms, likeness.correlation, longest_gap_ms(said, played, SPEECH_HZ, likeness.delay_ms))


async def _hang_up(page: Page) -> None:
    """By the button, as a person does: a page that is merely closed leaves its call to time out."""
    await page.get_by_test_id("start").click()
    await wait_for_state(page, "ended")


def _sum_of_load_and_connect(connecting: list[Connecting]) -> str:
    return spread([one.load_to_ready + one.click_to_connected for one in connecting], "ms")
