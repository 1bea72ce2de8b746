"""Clients of OpenAI Live that others wrote: each asks Pico for a sum in speech. Only the URL is ours."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from playwright.async_api import Route

from lab.browsers.chromium import chromium, give_mouth, watch
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.audio import FloatArray
from tests.conftest import ON_ONE_LOOP, need_commands
from tests.foreign.agents import need_agents
from tests.foreign.asking import COUNT, STOP, asked, asked_in_page, example, is_cut_short
from tests.foreign.test_clients import HERE, JS, need_package
from tests.support.live import live_client
from tests.support.script import spoken

pytestmark = [pytest.mark.alone, ON_ONE_LOOP]

_PAGE = """
<!doctype html>
<script type="importmap">{"imports": {"openai/": "/foreign/openai/"}}</script>
<audio autoplay></audio>
<script type="module">
import { converse } from '/foreign/live.js';
window.words = '';
window.run = async () => {
  const audio = document.querySelector('audio');
  window.client = await converse('/v1', 'any', audio, (delta) => { window.words += delta; });
  window.__voice = { pc: window.client.peerConnection };
};
window.ready = true;
</script>
"""


class Mouth:
    """A microphone that says what it is told to, and is quiet otherwise."""

    def __init__(self) -> None:
        self._left = np.zeros(0, np.float32)

    def say(self, text: str) -> None:
        self._left = np.concatenate((self._left, spoken(text)))

    def __call__(self, samples: int) -> FloatArray:
        pcm, self._left = self._left[:samples], self._left[samples:]
        return np.pad(pcm, (0, samples - pcm.size))


async def test_the_python_client(pico: Server, tmp_path: Path) -> None:
    (tmp_path / "live.py").write_text(example("python", "live.py"))
    await asked(pico, tmp_path, sys.executable, "live.py", url=f"http://127.0.0.1:{pico.port}/v1")


async def test_pipecat(pico: Server, tmp_path: Path) -> None:
    url = f"ws://127.0.0.1:{pico.port}/v1/live/sessions"
    await asked(pico, tmp_path, need_agents(), HERE / "pipecat_live_apart.py", url=url, interrupts=True)


async def test_livekit_agents(pico: Server, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{pico.port}/v1"
    await asked(pico, tmp_path, need_agents(), HERE / "livekit_live_apart.py", url=url, interrupts=True)


@pytest.mark.browser
async def test_the_javascript_client_in_chromium(pico: Server) -> None:
    """As docs/doors.md has it: a sum, and a count that is interrupted."""
    need_package("openai")
    need_commands("chromium")
    base = f"http://localhost:{pico.port}"

    async def give(route: Route) -> None:
        name = route.request.url.removeprefix(f"{base}/foreign/")
        if name == "page.html":
            await route.fulfill(content_type="text/html", body=_PAGE)
        elif name == "live.js":
            await route.fulfill(content_type="text/javascript", body=example("js", "live.js"))
        else:  # its modules name each other with and without what they end with
            path = JS / "node_modules" / name
            await route.fulfill(content_type="text/javascript", body=path.with_suffix(".mjs").read_text())

    async with chromium() as browser:
        page = await browser.new_page()
        complaints = watch(page, tolerate=("favicon",))
        await give_mouth(page)
        await page.route(f"{base}/foreign/**", give)
        await page.goto(f"{base}/foreign/page.html")
        await page.wait_for_function("window.ready")
        await page.evaluate("run()")
        await asked_in_page(page)
        await page.evaluate("client.send({ type: 'session.close' })")
        await page.wait_for_function("client.state === 'closed'")
        await until(lambda: len(pico.registry) == 0, "the end")
    assert not complaints, complaints


async def test_a_long_reply_is_interrupted(pico: Server) -> None:
    """Who says stop hears no more of it: not a word, and digital silence."""
    mouth = Mouth()
    async with live_client(f"http://127.0.0.1:{pico.port}", mouth) as client:
        await until(lambda: client.chunks, "a connection that carries sound")
        mouth.say(COUNT)
        await until(lambda: len(client.text.split()) >= 3, "a count", 30.0)
        mouth.say(STOP)
        await until(lambda: not any(b"".join(client.chunks[-12:])), "a second of silence", 30.0)
        assert is_cut_short(client.text)
