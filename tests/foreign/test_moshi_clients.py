"""Clients of Moshi that others wrote, unchanged: each asks Pico for a sum and hears and reads the answer."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import sys
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import soxr
from playwright.async_api import Page, Route
from playwright.async_api import TimeoutError as TooLate

from lab.browsers.chromium import chromium, give_mouth, say, watch
from lab.pico.recogniser import Recogniser
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.audio import MODEL_RATE_HZ, FloatArray
from tests.conftest import ON_ONE_LOOP, need_commands
from tests.foreign.asking import ANSWER, QUESTION
from tests.foreign.test_clients import JS, need_package
from tests.support.script import spoken

pytestmark = [pytest.mark.alone, ON_ONE_LOOP]

DECODED_HZ: Final = 48_000
SAID_WITHIN_S: Final = 3.0
"""Of an answer's beginning to be written down."""
_TRIES: Final = 3
"""As a person does, a question is asked again that was not understood."""
_ANSWER_S: Final = 10.0


async def answered(server: Server, client: asyncio.subprocess.Process, answer: Path) -> FloatArray:
    """What a client has recorded when it has written the answer, and some time after it, and was told to end."""
    assert client.stdin is not None
    assert client.stdout is not None
    text = ""
    async with asyncio.timeout(60):
        while "".join(ANSWER.split()) not in "".join(text.split()):  # one of them leaves the spaces out
            more = await client.stdout.read(100)
            assert more, f"it ended: {text!r}"
            text += more.decode()
    # Words are written as they begin to be said, and its loudspeaker is some frames behind.
    (session,) = server.registry
    said = session._stats.frames_out
    await until(lambda: session._stats.frames_out > said + 30, "the rest of the answer")
    client.stdin.close()
    assert await client.wait() == 0
    return np.asarray(np.load(answer), dtype=np.float32)


@pytest.mark.parametrize("kind", ["moshi", "fujielab"])
async def test_clients_in_python(pico: Server, tmp_path: Path, kind: str) -> None:
    """Kyutai's own, of the moshi package, with a stand-in for the sound card; and a library with a codec of its own."""
    question, answer = tmp_path / "question.npy", tmp_path / "answer.npy"
    np.save(question, spoken(QUESTION))
    url = [f"ws://127.0.0.1:{pico.port}/api/chat"] if kind == "fujielab" else ["127.0.0.1", str(pico.port)]
    client = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"tests.foreign.{kind}_client_apart", str(question), str(answer), *url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        heard = await answered(pico, client, answer)
    finally:
        if client.returncode is None:
            client.kill()
            await client.wait()
    assert Recogniser().hear(heard) == ANSWER


_PAGE: Final = """
<!doctype html>
<script src="/foreign/opus-recorder/dist/recorder.min.js"></script>
<script src="/foreign/ogg-opus-decoder/dist/ogg-opus-decoder.min.js"></script>
<script type="module">
const { OggOpusDecoder } = window['ogg-opus-decoder'];
window.words = '';
window.blocks = [];
window.size = () => blocks.reduce((sum, block) => sum + block.length, 0);
window.run = async () => {
  const decoder = new OggOpusDecoder();
  await decoder.ready;
  // What a worklet loads goes past a test's routes.
  const encoder = await (await fetch('/foreign/opus-recorder/dist/encoderWorker.min.js')).blob();
  const recorder = new Recorder({
    encoderPath: URL.createObjectURL(new Blob([encoder], { type: 'text/javascript' })),
    encoderSampleRate: 24000, encoderFrameSize: 20, maxFramesPerPage: 2, numberOfChannels: 1,
    encoderApplication: 2049, encoderComplexity: 0, resampleQuality: 3, streamPages: true,
  });
  const socket = new WebSocket(`ws://${location.host}/api/chat`);
  socket.binaryType = 'arraybuffer';
  recorder.ondataavailable = (page) => {
    if (socket.readyState === WebSocket.OPEN) socket.send(new Uint8Array([1, ...page]));
  };
  const utf8 = new TextDecoder();
  let decoding = Promise.resolve();
  socket.onmessage = ({ data }) => {
    const [kind, ...rest] = new Uint8Array(data);
    const payload = new Uint8Array(rest);
    if (kind === 0) recorder.start();
    if (kind === 1) {
      decoding = decoding.then(() => decoder.decode(payload)).then(({ channelData, samplesDecoded }) => {
        if (samplesDecoded) blocks.push(channelData[0].slice(0, samplesDecoded));
      });
    }
    if (kind === 2) window.words += utf8.decode(payload);
  };
  window.hangUp = async () => { await recorder.stop(); recorder.close(); socket.close(); };
};
window.heard = () => {
  const all = new Float32Array(size());
  let at = 0;
  for (const block of blocks) { all.set(block, at); at += block.length; }
  const bytes = new Uint8Array(all.buffer);
  let text = '';
  for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
  return btoa(text);
};
window.ready = true;
</script>
"""
"""What Kyutai's page does, with the same codecs: its microphone begins at the handshake, and it speaks in pages of two
packets of 20 ms."""


async def ask(page: Page) -> None:
    """Until the answer is written."""
    for _ in range(_TRIES):
        await say(page, spoken(QUESTION))
        with contextlib.suppress(TooLate):
            await page.wait_for_function(f"words.includes('{ANSWER}')", timeout=_ANSWER_S * 1000)
            return
    raise AssertionError(await page.evaluate("words"))


@pytest.mark.browser
async def test_a_page_with_the_codecs_of_kyutais(pico: Server) -> None:
    """opus-recorder and ogg-opus-decoder, in Chromium."""
    need_package("opus-recorder")
    need_package("ogg-opus-decoder")
    need_commands("chromium")
    base = f"http://localhost:{pico.port}"

    async def give(route: Route) -> None:
        name = route.request.url.removeprefix(f"{base}/foreign/")
        await route.fulfill(content_type="text/javascript", body=(JS / "node_modules" / name).read_text())

    # A page that a route has made comes from no address: Chromium opens no WebSocket to this machine for it.
    async with chromium() as browser:
        page = await browser.new_page(bypass_csp=True)
        complaints = watch(page, tolerate=("Failed to load resource",))
        await give_mouth(page)
        await page.goto(f"{base}/healthz")
        await page.route(f"{base}/foreign/**", give)
        await page.set_content(_PAGE)
        await page.wait_for_function("window.ready")
        await page.evaluate("run()")
        await page.wait_for_function("size() > 0")  # a connection that carries sound
        await ask(page)
        said = await page.evaluate("size()")
        await page.wait_for_function(f"size() > {said + SAID_WITHIN_S * DECODED_HZ}")
        raw = base64.b64decode(await page.evaluate("heard()"))
        await page.evaluate("hangUp()")
        await until(lambda: len(pico.registry) == 0, "the end")
    assert not complaints, complaints
    played = soxr.resample(np.frombuffer(raw, np.float32), DECODED_HZ, MODEL_RATE_HZ)
    assert ANSWER in Recogniser().hear(np.asarray(played, dtype=np.float32))
