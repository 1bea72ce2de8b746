"""Chromium with a spoken file or a sound card as its microphone, and a recorder for what it says and plays."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import aiohttp
import numpy as np
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright

from lab.sound.card import SoundCard
from rtc_server.access.principals import ANONYMOUS, Visitor
from rtc_server.app import Server
from rtc_server.audio import FloatArray, to_int16
from rtc_server.sessions.session import Session

ARTIFACTS = Path(__file__).parent.parent.parent / "artifacts"
_FEATURES_OFF = (
    # Two pages in processes of their own, for what an address bar that is never seen would show: a second of work each
    # time that the browser is started.
    "WebUIOmniboxPopup",
    "WebUIOmniboxAimPopup",
    # What Playwright turns off by itself: a second list takes the place of the first.
    "AimEnabled",
    "AutoDeElevate",
    "AvoidCorsURLLoaderRestartOnRedirect",
    "AvoidUnnecessaryBeforeUnloadCheckSync",
    "BlockOriginHeaderModificationOnRedirect",
    "DestroyProfileOnBrowserClose",
    "DialMediaRouteProvider",
    "GlobalMediaControls",
    "HttpsUpgrades",
    "LensOverlay",
    "MediaRouter",
    "NetworkTimeServiceQuerying",
    "OptimizationHints",
    "PaintHolding",
    "ThirdPartyStoragePartitioning",
    "Translate",
)
_ARGUMENTS = [
    f"--disable-features={','.join(_FEATURES_OFF)}",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--autoplay-policy=no-user-gesture-required",
]
_OPENS_MS = 120_000
"""A page is there as soon as a machine with other work has time for it: Playwright's 30 s are a browser's alone."""
_POLL_S = 0.05
_WORKLET_PATH = "static/test-recorder.js"

# Records two tracks in one audio context, so that both are on one clock: channel 0 is the microphone as the page
# sends it, channel 1 is the voice as the page plays it.
_WORKLET = """
registerProcessor('recorder', class extends AudioWorkletProcessor {
  process(inputs) {
    const channel = (i) => inputs[i][0] || new Float32Array(128);
    this.port.postMessage([channel(0).slice(), channel(1).slice()]);
    return true;
  }
});
"""
_RECORDER = """
async ([source, address]) => {
  const context = new AudioContext({ sampleRate: 48000 });
  await context.audioWorklet.addModule(address ?? URL.createObjectURL(new Blob([source], { type: 'text/javascript' })));
  const node = new AudioWorkletNode(context, 'recorder', { numberOfInputs: 2, numberOfOutputs: 0 });
  const pc = window.__voice.pc;
  const tracks = [pc.getSenders().find((s) => s.track).track, pc.getReceivers().find((r) => r.track).track];
  tracks.forEach((track, input) => {
    context.createMediaStreamSource(new MediaStream([track])).connect(node, 0, input);
  });
  const blocks = [[], []];
  node.port.onmessage = ({ data }) => data.forEach((block, i) => blocks[i].push(block));
  window.__recording = { context, blocks };
}
"""
_TAKE = """
() => {
  const join = (blocks) => {
    const all = new Float32Array(blocks.length * 128);
    blocks.forEach((block, i) => all.set(block, i * 128));
    const bytes = new Uint8Array(all.buffer);
    let text = '';
    for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
    return btoa(text);
  };
  const { context, blocks } = window.__recording;
  context.close();
  const size = Math.min(blocks[0].length, blocks[1].length);
  return blocks.map((list) => join(list.slice(0, size)));
}
"""

_AUDIBLE = 0.01
_QUIET = """
([count, audible]) => {
  const blocks = window.__recording.blocks[1];
  return blocks.length >= count && blocks.slice(-count).every((block) => block.every((x) => Math.abs(x) < audible));
}
"""

# In the place of a microphone: what a test says, and silence.
_MOUTH = """
const context = new AudioContext({ sampleRate: 24000 });
const mouth = context.createMediaStreamDestination();
const silence = new ConstantSourceNode(context, { offset: 0 });
silence.connect(mouth);
silence.start();
navigator.mediaDevices.getUserMedia = async () => mouth.stream.clone();
window.say = (text) => {
  const pcm = new Int16Array(Uint8Array.from(atob(text), (char) => char.charCodeAt(0)).buffer);
  const buffer = new AudioBuffer({ length: pcm.length, sampleRate: 24000 });
  buffer.copyToChannel(Float32Array.from(pcm, (sample) => sample / 32768), 0);
  const source = new AudioBufferSourceNode(context, { buffer });
  source.connect(mouth);
  source.start();
};
"""

# Keeps what the page opens, so that a test can see how it was left, and speak in the server's place.
_SPY = """
window.spied = { tracks: [], channels: [], violations: [] };
document.addEventListener('securitypolicyviolation', (event) => spied.violations.push(event.violatedDirective));
const media = navigator.mediaDevices ?? {};
const { getUserMedia } = media;
media.getUserMedia = async function (...wish) {
  const stream = await getUserMedia.apply(this, wish);
  spied.tracks.push(...stream.getTracks());
  return stream;
};
const { createDataChannel } = RTCPeerConnection.prototype;
RTCPeerConnection.prototype.createDataChannel = function (...wish) {
  const channel = createDataChannel.apply(this, wish);
  spied.channels.push(channel);
  return channel;
};
"""


@dataclass(frozen=True, slots=True)
class Recording:
    """Mono float32 at 48 kHz, on one clock."""

    said: FloatArray
    played: FloatArray


@contextlib.asynccontextmanager
async def chromium(
    microphone: Path | SoundCard | None = None,
    *,
    allow_microphone: bool = True,
    further: Sequence[str] = (),
    program: str = "/usr/bin/chromium",
) -> AsyncIterator[Browser]:
    """Debian's Chromium. ``microphone``: a wave file that it says over and over, or a sound card; by default it beeps.

    ``further``: command-line arguments. ``program``: what is started in its place, with its arguments.
    """
    arguments = [*_ARGUMENTS, *further]
    if allow_microphone:
        arguments.append("--use-fake-ui-for-media-stream")
    environment: dict[str, str | float | bool] = {**os.environ}
    if isinstance(microphone, SoundCard):
        environment |= microphone.environment
    else:
        arguments.append("--use-fake-device-for-media-stream")
        if microphone is not None:
            arguments.append(f"--use-file-for-fake-audio-capture={microphone}")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=arguments, env=environment)
        try:
            yield browser
        finally:
            await browser.close()


def local_url(server: Server, query: str = "") -> str:
    """The page of a server on this machine, at an address that browsers trust with a microphone."""
    return f"http://localhost:{server.port}/{query}"


@contextlib.asynccontextmanager
async def visited_page(
    browser: Browser, url: str, *, tolerate: Sequence[str] = (), **context: Any
) -> AsyncIterator[Page]:
    """A page in a context of its own, as a visitor has it, the page's own policy included.

    An exception in it, or an error or a warning in its console, fails the test at the end, unless one of
    ``tolerate`` is in the text.
    """
    async with await browser.new_context(**context) as fresh:
        page = await fresh.new_page()
        complaints = watch(page, tolerate)
        await page.goto(url, timeout=_OPENS_MS)
        yield page
    assert not complaints, complaints


@contextlib.asynccontextmanager
async def opened_page(browser: Browser, url: str, **context: Any) -> AsyncIterator[Page]:
    """Like :func:`visited_page`, and :func:`record` works in it."""
    # The recorder's worklet comes from a blob, which the page's own policy rightly forbids.
    async with visited_page(browser, url, bypass_csp=True, **context) as page:
        yield page


def watch(page: Page, tolerate: Sequence[str] = ()) -> list[str]:
    """What goes wrong in a page from now on; the list grows."""
    complaints: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(text in message.text for text in tolerate):
            complaints.append(message.text)

    page.on("console", on_console)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return complaints


async def start_talking(page: Page, timeout_ms: float = 20_000) -> None:
    """Press the button and wait until the conversation runs."""
    await page.get_by_test_id("start").click()
    await wait_for_state(page, "listening", "speaking", timeout_ms=timeout_ms)


async def wait_for_state(page: Page, *states: str, timeout_ms: float = 20_000) -> None:
    """Until the page shows one of ``states``."""
    selector = ", ".join(f'[data-testid=state][data-state="{state}"]' for state in states)
    await page.wait_for_selector(selector, state="attached", timeout=timeout_ms)


async def spy_on(page: Page) -> None:
    """Before the page is opened: ``window.spied`` then keeps its tracks, data channels and policy violations."""
    await page.add_init_script(_SPY)


async def give_mouth(page: Page) -> None:
    """Before the page is opened: what it has for a microphone then says what :func:`say` tells it to."""
    await page.add_init_script(f"(() => {{ {_MOUTH} }})();")


async def say(page: Page, pcm: FloatArray) -> None:
    """Into the microphone of a page with a mouth, from now on: mono at 24 kHz."""
    await page.evaluate("say", base64.b64encode(to_int16(pcm).astype("<i2").tobytes()).decode())


async def microphones(page: Page) -> list[str]:
    """The state of every track that a page with the spy ever opened."""
    states: list[str] = await page.evaluate("spied.tracks.map((track) => track.readyState)")
    return states


async def hand_over(page: Page, *messages: str) -> None:
    """Give a page with the spy messages as if they came from the server, on its latest data channel."""
    await page.evaluate(
        "(all) => all.forEach((data) => spied.channels.at(-1).dispatchEvent(new MessageEvent('message', { data })))",
        messages,
    )


async def wait_for_events(page: Page, event_type: str, count: int = 1, timeout_ms: float = 20_000) -> None:
    """Until the page's journal holds so many events of a type."""
    await page.wait_for_function(
        "([type, count]) => window.__voice.events.filter((event) => event.type === type).length >= count",
        arg=[event_type, count],
        timeout=timeout_ms,
    )


async def server_status(server: Server) -> dict[str, Any]:
    """What ``/status`` says."""
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"http://127.0.0.1:{server.port}/status") as response,
    ):
        status: dict[str, Any] = await response.json()
        return status


async def wait_for_sessions(server: Server, count: int, timeout_s: float = 20.0) -> None:
    """Until ``/status`` counts so many sessions: sooner than one that waits for its client ends by itself."""
    deadline = time.monotonic() + timeout_s
    while (found := sum((await server_status(server))["sessions"].values())) != count:
        assert time.monotonic() < deadline, f"{found} sessions after {timeout_s} s, not {count}"
        await asyncio.sleep(_POLL_S)


async def call_of(page: Page, server: Server) -> Session:
    """The server's side of the conversation that a page is in."""
    return server.registry.get(await page.evaluate("window.__voice.sessionId"), Visitor(ANONYMOUS, ""))


async def record(page: Page, seconds: float) -> Recording:
    """What the page sends and plays, for so long from now."""
    await start_recording(page)
    return await finish_recording(page, seconds)


async def start_recording(page: Page) -> None:
    """Keep what the page sends and plays from now on."""
    await page.evaluate(_RECORDER, [_WORKLET, await _module_address(page)])


async def finish_recording(page: Page, seconds: float = 0.0) -> Recording:
    """What was kept until now, and for so long from now."""
    blocks = int(seconds * 48_000 / 128) + int(await page.evaluate("window.__recording.blocks[1].length"))
    await page.wait_for_function(
        f"() => window.__recording.blocks[1].length >= {blocks}", timeout=(seconds * 3 + 10) * 1000
    )
    said, played = (np.frombuffer(base64.b64decode(raw), dtype=np.float32) for raw in await page.evaluate(_TAKE))
    return Recording(said, played)


async def until_quiet(page: Page, seconds: float, unless: str = "false", timeout_s: float = 30.0) -> bool:
    """Until the page has played nothing for so long, of what is being recorded: True. False as soon as ``unless``, an
    expression of the page's, holds before."""
    blocks = int(seconds * 48_000 / 128)
    outcome = await page.wait_for_function(
        f"(arg) => ({_QUIET})(arg) ? 'quiet' : {unless} ? 'not quiet' : null",
        arg=[blocks, _AUDIBLE],
        timeout=timeout_s * 1000,
        polling=100,
    )
    return bool(await outcome.json_value() == "quiet")


async def _module_address(page: Page) -> str | None:
    """Where the recorder's module is found. Firefox keeps to the page's policy, and has to be given it from the page's
    own origin; Chromium does not have to (:func:`opened_page`), and asks nobody but the server there."""
    browser = page.context.browser
    if browser is None or browser.browser_type.name != "firefox":
        return None
    address = urljoin(page.url, _WORKLET_PATH)
    await page.route(address, lambda route: route.fulfill(body=_WORKLET, content_type="text/javascript"))
    return address


async def screenshot(page: Page, name: str) -> Path:
    """Kept under artifacts/."""
    ARTIFACTS.mkdir(exist_ok=True)
    path = ARTIFACTS / f"{name}.png"
    await page.screenshot(path=str(path), full_page=True)
    return path
