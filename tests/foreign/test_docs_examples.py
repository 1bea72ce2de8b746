"""The examples of docs/clients.md, cut out and run: in Chromium, as Python programs, and with curl."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import time
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from playwright.async_api import Dialog, Page, Request, Route

from lab.browsers.chromium import chromium, watch
from lab.network.vanishing import blackhole
from lab.pico.phrases import NUMBERS
from lab.sound.tones import Ear, pitch_hz, tone
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.audio import FloatArray
from rtc_server.client import MicrophoneTrack, VoiceClient
from tests.conftest import need_commands, running_server
from tests.support.calls import listen
from tests.support.leftovers import leaves_nothing
from tests.support.server_process import ROOT
from tests.test_docs import blocks

pytestmark = pytest.mark.alone

HZ = 440
RUN_S = 60.0


def example(language: str, name: str) -> str:
    """The block that begins with its name."""
    (code,) = [block for block in blocks(language) if name in block.split("\n", 1)[0]]
    return code


def cut(server: Server) -> None:
    """Nothing gets through any more between the server and its only client."""
    (call,) = server.registry
    pc = call.transport._peer._pc
    blackhole(pc)
    for transceiver in pc.getTransceivers():
        for protocol in transceiver.receiver.transport.transport._connection._protocols:
            protocol.datagram_received = lambda data, address: None


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
            found.append((time.monotonic(), request.post_data_json))

    page.on("request", note)
    return found


@pytest.mark.browser
async def test_the_browsers_conversation_survives_its_path(server: Server) -> None:
    """Even where the answer to the first offer that resumes is lost as well."""
    async with leaves_nothing(server), talk_page(server, tolerate=("Failed to load resource",)) as page:
        offered = offers(page)
        candidates: list[dict[str, Any]] = []
        page.on("request", lambda each: candidates.append(each.post_data_json) if each.method == "PATCH" else None)
        await page.click("#talk")
        await talks(page)
        assert candidates[-1] == {"complete": True}
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
        assert await page.text_content("#status") == "This server wants a key."
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


def write_tone(path: Path, seconds: float) -> None:
    t = np.arange(round(seconds * 48_000)) / 48_000
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 48_000, 0, "NONE", ""))
        file.writeframes((8000 * np.sin(2 * np.pi * HZ * t)).astype(np.int16).tobytes())


def heard_at_the_end(path: Path) -> float:
    """The pitch of the last half second that is not silent."""
    with wave.open(str(path)) as file:
        pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)[:: file.getnchannels()].astype(np.float32)
        rate = file.getframerate()
    end = int(np.flatnonzero(np.abs(pcm) > 2000)[-1])
    return pitch_hz(pcm[end - rate // 2 : end]) * rate / 24_000


@contextlib.asynccontextmanager
async def program(code: str, where: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python program of the document; killed at the end if it still runs."""
    script = where / "example.py"
    script.write_text(code)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(script), *arguments),
        cwd=where,
        env={**os.environ, "PYTHONPATH": str(ROOT), "KEY": "a-key"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def finished(process: asyncio.subprocess.Process) -> str:
    async with asyncio.timeout(RUN_S):
        out, error = await process.communicate()
    assert process.returncode == 0, error.decode()
    return out.decode()


@pytest.mark.parametrize("name", ["say.py", "say_aiortc.py"])
async def test_python_hears_what_it_says(server: Server, base_url: str, tmp_path: Path, name: str) -> None:
    write_tone(tmp_path / "question.wav", 3)
    async with (
        leaves_nothing(server),
        program(example("python", f"{name}:"), tmp_path, base_url, "question.wav", "answer.wav") as process,
    ):
        assert "connected" in await finished(process)
    assert heard_at_the_end(tmp_path / "answer.wav") == pytest.approx(HZ, abs=3)


def write_phrase(path: Path, text: str) -> None:
    subprocess.run(["espeak-ng", "-w", path, text], check=True)


def levels(path: Path) -> FloatArray:
    """The loudest sample of each tenth of a second, of full scale."""
    with wave.open(str(path)) as file:
        pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)[:: file.getnchannels()]
        tenth = file.getframerate() // 10
    loud = np.abs(pcm[: pcm.size // tenth * tenth].astype(np.float32)).reshape(-1, tenth).max(axis=1)
    return (loud / 32768).astype(np.float32)


@pytest.mark.parametrize("name", ["say.py", "say_aiortc.py"])
async def test_python_hears_the_whole_answer_of_a_model(tmp_path: Path, name: str) -> None:
    """Which begins after the question, goes on for longer than that, and pauses between its words. The question is a
    file as espeak-ng writes it."""
    need_commands("espeak-ng")
    write_phrase(tmp_path / "question.wav", "count to ten")
    async with running_server("--model", "pico", "--slots", "1", "--stt", "none", "--allow-slow") as server:
        url = f"http://127.0.0.1:{server.port}"
        code = example("python", f"{name}:")
        async with program(code, tmp_path, url, "question.wav", "answer.wav") as process:
            said = await finished(process)
    words = re.findall(r"'delta': '([^']*)'", said) or said.splitlines()[-1:]
    assert "".join(words).split() == NUMBERS[1:11]
    heard = levels(tmp_path / "answer.wav")
    assert np.count_nonzero(heard > 0.02) > 25
    assert np.all(heard[-10:] < 0.02), "it was cut off"


async def test_python_comes_back(server: Server, base_url: str, tmp_path: Path) -> None:
    write_tone(tmp_path / "question.wav", 15)
    async with (
        leaves_nothing(server),
        program(example("python", "say.py:"), tmp_path, base_url, "question.wav", "answer.wav") as process,
    ):
        assert process.stdout is not None
        async with asyncio.timeout(RUN_S):
            assert b"connected" in await process.stdout.readline()
        cut(server)
        assert "resumed" in await finished(process)
        assert server.metrics.sessions_resumed.labels("echo")._value.get() == 1
    assert heard_at_the_end(tmp_path / "answer.wav") == pytest.approx(HZ, abs=3)


async def test_aiortc_says_why_it_was_refused(tmp_path: Path) -> None:
    write_tone(tmp_path / "question.wav", 1)
    async with running_server("--model", "echo", "--echo-slots", "1") as server:
        url = f"http://127.0.0.1:{server.port}"
        async with (
            VoiceClient(url) as other,
            program(example("python", "say_aiortc.py:"), tmp_path, url, "question.wav", "answer.wav") as process,
        ):
            await other.wait_for("connected")
            async with asyncio.timeout(RUN_S):
                _, error = await process.communicate()
    assert (process.returncode, b"server_full: " in error) == (1, True), error.decode()


async def test_the_example_beside_it_runs(server: Server, base_url: str, tmp_path: Path) -> None:
    code = (ROOT / "examples" / "echo_client.py").read_text()
    async with leaves_nothing(server), program(code, tmp_path, base_url) as process:
        said = await finished(process)
    assert "'reason': 'bye'" in said


async def test_the_example_beside_it_says_what_it_is_and_what_is_wrong(tmp_path: Path) -> None:
    code = (ROOT / "examples" / "echo_client.py").read_text()
    async with program(code, tmp_path, "--help") as process:
        assert "http://localhost:8080" in await finished(process)
    for url, sentence in (("http://127.0.0.1:9", "No server answers"), ("localhost", "is no address of a server")):
        async with program(code, tmp_path, url) as process:
            _, error = await process.communicate()
        assert process.returncode == 1
        assert error.decode().startswith("error: ")
        assert sentence in error.decode()
        assert "Traceback" not in error.decode()


# curl.


class Shell:
    """Bash, as somebody would use it who tries the commands one after the other."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def __call__(self, commands: str) -> str:
        """What they print. Raises AssertionError when one of them fails."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{commands}\necho; echo done\n".encode())
        said = b""
        async with asyncio.timeout(RUN_S):
            async for line in self._process.stdout:
                if line == b"done\n":
                    return said.decode()
                said += line
        raise AssertionError(f"it ended: {said.decode()}")


@contextlib.asynccontextmanager
async def shell(where: Path, **environment: str) -> AsyncIterator[Shell]:
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-s"),
        cwd=where,
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield Shell(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def offer_of(pc: RTCPeerConnection) -> str:
    await pc.setLocalDescription(await pc.createOffer())
    sdp: str = pc.localDescription.sdp
    return sdp


async def answered(pc: RTCPeerConnection, sdp: str) -> None:
    await pc.setRemoteDescription(RTCSessionDescription(sdp, "answer"))
    await until(lambda: pc.connectionState == "connected", "a connection")


async def test_curl_publishes_listens_and_hangs_up(server: Server, base_url: str, tmp_path: Path) -> None:
    """By WHIP and WHEP: what it says is heard, and nothing is left of either."""
    need_commands("curl", "bash")
    publish, trickle, hear, hang_up = blocks("sh")
    voice, ear = RTCPeerConnection(RTCConfiguration(iceServers=[])), Ear()
    player = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    voice.addTransceiver(MicrophoneTrack(tone(HZ)), direction="sendonly")
    player.addTransceiver("audio", direction="recvonly")
    listening: list[asyncio.Task[None]] = []
    player.on("track", lambda track: listening.append(asyncio.create_task(listen(track, ear))))
    async with leaves_nothing(server), shell(tmp_path, SERVER=base_url, KEY="a-key") as bash:
        try:
            (tmp_path / "offer.sdp").write_text(await offer_of(voice), newline="")
            await bash(publish)
            await answered(voice, (tmp_path / "answer.sdp").read_text())
            session, etag = (await bash('echo "$SESSION $ETAG"')).split()
            assert session == f"../whip/echo/{next(iter(server.registry)).id.text}"
            assert json.loads(etag)  # a strong tag: in quotation marks
            await bash(trickle)
            (tmp_path / "listen.sdp").write_text(await offer_of(player), newline="")
            await bash(hear)
            await answered(player, (tmp_path / "listen-answer.sdp").read_text())
            await ear.until_voice()
            await ear.hear(1.0)
            assert pitch_hz(ear.last(0.5)) == pytest.approx(HZ, abs=3)
            await bash(hang_up)
            assert not len(server.registry)
        finally:
            await voice.close()
            await player.close()
            await asyncio.gather(*listening)
