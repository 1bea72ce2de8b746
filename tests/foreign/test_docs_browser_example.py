"""The documents' example for pages runs as it stands there."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Dialog, Page, Request, Route

from lab.browsers.chromium import chromium, watch
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.client import VoiceClient
from tests.conftest import need_commands, running_server
from tests.support.docs_examples import cut, example
from tests.support.leftovers import leaves_nothing
from tests.test_docs import blocks

pytestmark = pytest.mark.slow

# Notes what the page does with its connections, and hears what its <audio> plays.
_WATCHER = """
window.seen = { events: [], steps: [] };
window.RTCPeerConnection = class extends RTCPeerConnection {
  number = seen.steps.push('open');
  createDataChannel(...wish) {
    const channel = super.createDataChannel(...wish);
    channel.addEventListener('message', ({ data }) => seen.events.push(JSON.parse(data)));
    return channel;
  }
  async setRemoteDescription(answer) {
    seen.steps.push('answer');
    await super.setRemoteDescription(answer);
  }
  close() {
    if (this.signalingState !== 'closed') seen.steps.push('close');
    super.close();
  }
};
window.loud = async (seconds = 2) => {
  const context = new AudioContext();
  const meter = new AnalyserNode(context, { fftSize: 32768 });
  context.createMediaStreamSource(document.querySelector('audio').srcObject).connect(meter);
  const samples = new Float32Array(meter.fftSize);
  const until_s = context.currentTime + seconds;
  while (context.currentTime < until_s) {
    await new Promise(requestAnimationFrame);
    meter.getFloatTimeDomainData(samples);
    if (samples.some((sample) => Math.abs(sample) > 0.05)) return true;
  }
  return false;
};
"""


@contextlib.asynccontextmanager
async def talk_page(server: Server, tolerate: tuple[str, ...] = ()) -> AsyncIterator[Page]:
    """The documented page, as if the server had it. What goes wrong in it fails the test."""
    need_commands("chromium")
    base = f"http://localhost:{server.port}"

    async def give(route: Route) -> None:
        if route.request.url.endswith(".js"):
            await route.fulfill(content_type="text/javascript", body=example("js", "voice.js"))
        else:
            (html,) = blocks("html")
            await route.fulfill(content_type="text/html", body=html)

    async with chromium() as browser:
        page = await browser.new_page()
        complaints = watch(page, tolerate)
        await page.add_init_script(_WATCHER)
        await page.route(f"{base}/clients/*", give)
        await page.goto(f"{base}/clients/talk.html")
        yield page
    assert not complaints, complaints


async def talks(page: Page, times: int = 1) -> None:
    """Until it has been told that it is connected, and hears itself."""
    connected = "seen.events.filter((event) => event.type === 'connected').length"
    await page.wait_for_function(f"{connected} >= {times}", timeout=30_000)
    await page.wait_for_function("['listening', 'speaking'].includes(document.querySelector('#status').textContent)")
    await page.wait_for_function("loud()", timeout=20_000)


def offers(page: Page) -> list[tuple[float, dict[str, Any]]]:
    """When the page offers from now on, and what; the list grows."""
    found: list[tuple[float, dict[str, Any]]] = []

    def note(request: Request) -> None:
        if request.url.endswith("/api/offer"):
            found.append((time.monotonic(), json.loads(request.post_data or "")))

    page.on("request", note)
    return found


@pytest.mark.browser
async def test_the_browsers_conversation_survives_its_path(server: Server) -> None:
    """Even where the answer to the first offer that resumes is lost as well."""
    async with leaves_nothing(server), talk_page(server, tolerate=("Failed to load resource",)) as page:
        offered = offers(page)
        candidates: list[dict[str, Any]] = []

        def note(request: Request) -> None:
            if request.method == "PATCH":
                candidates.append(json.loads(request.post_data or ""))

        page.on("request", note)
        await page.click("#talk")
        await talks(page)
        await until(lambda: candidates and candidates[-1] == {"complete": True}, "the last of the candidates")
        assert any(each.get("candidates") for each in candidates)
        (session,) = server.registry
        answers = 0

        async def lose_one(route: Route) -> None:
            nonlocal answers
            answers += 1
            response = await route.fetch()
            await (route.abort() if answers == 1 else route.fulfill(response=response))

        await page.route("**/api/offer", lose_one)
        cut(server)
        await talks(page, times=2)
        assert list(server.registry) == [session]
        assert server.metrics.sessions_resumed.labels("echo")._value.get() == 1
        assert (await page.evaluate("seen.events.findLast((event) => event.type === 'connected')"))["resumed"] is True
        numbers = await page.evaluate("seen.events.filter((event) => event.seq).map((event) => event.seq)")
        assert numbers == list(range(1, len(numbers) + 1))
        (_, first), (_, second), (_, again) = offered
        assert "resume" not in first
        assert second == again
        assert second["resume"]["last_seq"] > 0
        assert await page.evaluate("seen.steps") == ["open", "answer", "open", "answer", "close"]
        await page.click("#leave")
        await page.wait_for_function("document.querySelector('#status').textContent === 'over: bye'")


@pytest.mark.browser
async def test_the_browser_waits_for_as_long_as_it_is_told() -> None:
    async with (
        running_server("--model", "echo", "--echo-slots", "1") as server,
        leaves_nothing(server),
        talk_page(server, tolerate=("Failed to load resource",)) as page,
    ):
        offered = offers(page)
        async with VoiceClient(f"http://127.0.0.1:{server.port}") as other:
            await other.wait_for("connected")
            async with page.expect_response("**/api/offer") as refusal:
                await page.click("#talk")
            response = await refusal.value
            told_s = int(response.headers["retry-after"])
            assert (response.status, told_s > 0) == (503, True)
            other.send({"type": "bye"})
            await other.wait_for("disconnected")
        await talks(page)
        (first, _), *_, (last, _) = offered
        # By two clocks that tick in steps of their own.
        assert last - first >= told_s - 0.1
        await page.click("#leave")


@pytest.mark.browser
async def test_the_browser_asks_for_a_key_and_sends_it(server: Server) -> None:
    async with leaves_nothing(server), talk_page(server, tolerate=("Failed to load resource",)) as page:
        keys: list[str | None] = []

        async def doorkeeper(route: Route) -> None:
            keys.append(await route.request.header_value("Authorization"))
            if keys[-1] == "Bearer sesame":
                await route.continue_()
            else:
                error = {"code": "unauthorized", "message": "This server wants a key.", "retryable": False}
                await route.fulfill(status=401, json={"error": error}, headers={"WWW-Authenticate": "Bearer"})

        async def answer(dialog: Dialog) -> None:
            await dialog.accept("sesame")

        page.on("dialog", answer)
        await page.route("**/api/offer", doorkeeper)
        await page.click("#talk")
        await page.wait_for_function("sessionStorage.getItem('key') === 'sesame'")
        await page.wait_for_function("document.querySelector('#status').textContent === 'This server wants a key.'")
        await page.click("#talk")
        await talks(page)
        assert keys == [None, "Bearer sesame"]
        await page.click("#leave")


@pytest.mark.browser
async def test_the_browser_knows_when_a_conversation_is_over() -> None:
    """Nothing is left to resume: it says so and does not try for ever."""
    async with (
        running_server("--model", "echo", "--resume-grace-s", "0", "--peer-timeout-s", "1") as server,
        leaves_nothing(server),
        talk_page(server) as page,
    ):
        await page.click("#talk")
        await talks(page)
        cut(server)
        await page.wait_for_function(
            "document.querySelector('#status').textContent === 'over: peer_lost'", timeout=30_000
        )
        states = "document.querySelector('audio').srcObject.getTracks().map((track) => track.readyState)"
        assert await page.evaluate(states) == ["ended"]
