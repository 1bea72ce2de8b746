"""Clients of Moshi that others wrote, unchanged: each asks Pico for a sum and hears and reads the answer."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import soxr
from playwright.async_api import Page, Route, expect

from rtc_server.app import Server
from rtc_server.audio import MODEL_RATE_HZ, FloatArray
from tests.conftest import need_commands, running_server
from tests.support.browser import chromium, local_url, visited_page
from tests.support.calls import until
from tests.support.script import spoken
from tests.support.speech import SPEECH_HZ, write_wav
from training.recognise import Recogniser

QUESTION, ANSWER = "what is three plus four", "that is seven"
MODULES = Path(__file__).parent / "js" / "node_modules"


@pytest.fixture
async def pico() -> AsyncIterator[Server]:
    need_commands("espeak-ng")
    async with running_server("--model", "pico", "--slots", "1", "--stt", "none") as server:
        yield server


async def answered(server: Server, client: asyncio.subprocess.Process, answer: Path) -> FloatArray:
    """What a client has recorded when it has written the answer, and some time after it, and was told to end."""
    assert client.stdin is not None
    assert client.stdout is not None
    text = ""
    async with asyncio.timeout(60):
        while ANSWER not in " ".join(text.split()):
            more = await client.stdout.read(100)
            assert more, f"it ended: {text!r}"
            text += more.decode()
    # Words are written as they begin to be said, and its loudspeaker is some frames behind.
    (session,) = server.registry._sessions.values()
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


@pytest.mark.browser
async def test_a_page_with_the_codecs_of_the_web_client(pico: Server, tmp_path: Path) -> None:
    """opus-recorder from a microphone, ogg-opus-decoder to the ear: what Moshi's web client and QuiLLMan's page use."""
    need_commands("chromium")
    assert MODULES.is_dir(), "make clients"
    question = soxr.resample(spoken(QUESTION), MODEL_RATE_HZ, SPEECH_HZ)
    pause = np.zeros(3 * SPEECH_HZ, dtype=np.float32)
    microphone = write_wav(tmp_path / "question.wav", np.concatenate((pause, question, pause)).astype(np.float32))
    async with chromium(microphone) as browser, visited_page(browser, local_url(pico, "healthz")) as page:
        await serve_page(page)
        await page.goto(local_url(pico, "moshi/moshi_page.html"))
        await page.evaluate("talk('/api/chat')")
        await expect(page.locator("#text")).to_contain_text(re.compile(r"that\s+is\s+seven"), timeout=60_000)
        seen = await page.evaluate("heard.length")
        await page.wait_for_function("(least) => heard.length > least", arg=seen + 3 * 48_000)
        pcm = np.array(await page.evaluate("heard"), dtype=np.float32)
        rate_hz = await page.evaluate("rate")
    assert ANSWER in Recogniser().hear(np.asarray(soxr.resample(pcm, rate_hz, MODEL_RATE_HZ), dtype=np.float32))


async def serve_page(page: Page) -> None:
    """The page's files, from the server's own origin."""
    files = [
        Path(__file__).parent / "js" / "moshi_page.html",
        MODULES / "opus-recorder" / "dist" / "recorder.min.js",
        MODULES / "opus-recorder" / "dist" / "encoderWorker.min.js",
        MODULES / "ogg-opus-decoder" / "dist" / "ogg-opus-decoder.min.js",
    ]
    served = {path.name: path for path in files}

    async def fulfill(route: Route) -> None:
        await route.fulfill(path=served[route.request.url.rpartition("/")[2]])

    await page.route("**/moshi/*", fulfill)
