"""Clients of OpenAI Realtime that others wrote, unchanged: each asks Pico for a sum, and hears and reads the answer."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import sys
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import soxr
from agents.realtime import (
    RealtimeAgent,
    RealtimeAgentEndEvent,
    RealtimeAudio,
    RealtimeError,
    RealtimeHistoryUpdated,
    RealtimeRawModelEvent,
    RealtimeRunner,
    RealtimeSession,
    RealtimeSessionEvent,
)
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from playwright.async_api import Route

from lab.browsers.chromium import chromium, record, watch
from lab.pico.recogniser import Recogniser
from lab.speech.clips import SPEECH_HZ, write_wav
from lab.waiting import until
from rtc_server import audio
from rtc_server.app import Server
from rtc_server.audio import FRAME_SAMPLES, FloatArray
from tests.conftest import need_commands, running_server
from tests.foreign.agents import need_agents
from tests.foreign.test_clients import HERE, JS, need_package
from tests.support.openai_realtime import pcm16
from tests.support.pace import every_frame
from tests.support.script import spoken
from tests.support.server_process import ROOT
from tests.test_docs import blocks

pytestmark = pytest.mark.alone

QUESTION, ANSWER = "what is three plus four", "that is seven"
LONG = "count to ten"
TRIES: Final = 3
"""As a person does, a question is asked again that was not understood just behind a "stop"."""
DOORS = (ROOT / "docs" / "doors.md").read_text()


@pytest.fixture
async def pico() -> AsyncIterator[Server]:
    need_commands("espeak-ng")
    async with running_server("--model", "pico", "--slots", "1", "--stt", "none") as server:
        yield server


class Talk:
    """What a program of a user's does with the connection. ``said``: the events, without the audio."""

    def __init__(self, connection: AsyncRealtimeConnection) -> None:
        self.connection = connection
        self._left = np.zeros(0, np.float32)
        self._sound: list[bytes] = []
        self.said: list[Any] = []

    def say(self, text: str, then_quiet_s: float = 0.0) -> None:
        quiet = np.zeros(round(then_quiet_s * audio.MODEL_RATE_HZ), np.float32)
        self._left = np.concatenate((self._left, spoken(text), quiet))

    @property
    def heard(self) -> FloatArray:
        return audio.from_int16(np.frombuffer(b"".join(self._sound), "<i2"))

    @property
    def words(self) -> str:
        return "".join(event.delta for event in self.said if event.type == "response.output_audio_transcript.delta")

    def types(self) -> list[str]:
        return [event.type for event in self.said]

    async def microphone(self) -> None:
        async for _ in every_frame():
            frame, self._left = self._left[:FRAME_SAMPLES], self._left[FRAME_SAMPLES:]
            frame = np.pad(frame, (0, FRAME_SAMPLES - frame.size))
            await self.connection.input_audio_buffer.append(audio=pcm16(frame))

    async def loudspeaker(self) -> None:
        async for event in self.connection:
            if event.type == "response.output_audio.delta":
                self._sound.append(base64.b64decode(event.delta))
            else:
                self.said.append(event)


@contextlib.asynccontextmanager
async def talk(server: Server) -> AsyncIterator[Talk]:
    async with (
        AsyncOpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="any") as client,
        client.realtime.connect(model="gpt-realtime") as connection,
    ):
        await connection.session.update(session={"type": "realtime", "instructions": "Be kind."})
        talking = Talk(connection)
        tasks = [asyncio.create_task(work()) for work in (talking.microphone, talking.loudspeaker)]
        try:
            yield talking
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_sum(pico: Server) -> None:
    """The words and the sound of the answer, and the question as an item before it."""
    async with talk(pico) as talking:
        talking.say(QUESTION)
        await until(lambda: "response.done" in talking.types(), "the answer", 60)
        assert talking.words == ANSWER
        assert Recogniser().hear(talking.heard) == ANSWER
        types = talking.types()
        assert types[:2] == ["session.created", "session.updated"]
        assert types.index("input_audio_buffer.speech_started") < types.index("response.created")
        assert "input_audio_buffer.committed" in types
        assert "error" not in types
        (response,) = [event.response for event in talking.said if event.type == "response.done"]
        assert response.status == "completed"
        assert response.output[0].content[0].transcript == ANSWER


async def test_the_example_of_the_docs(pico: Server, tmp_path: Path) -> None:
    """As it stands in docs/doors.md: a file with a question, and one with the answer."""
    (code,) = [block for block in blocks("python", DOORS) if "realtime.py" in block.split("\n", 1)[0]]
    program, question, answer = (tmp_path / name for name in ("realtime.py", "question.wav", "answer.wav"))
    program.write_text(code)
    with wave.open(str(question), "wb") as file:
        file.setparams((1, 2, audio.MODEL_RATE_HZ, 0, "NONE", ""))
        file.writeframes(audio.to_int16(spoken(QUESTION)).tobytes())
    url = f"http://127.0.0.1:{pico.port}/v1"
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, program, url, question, answer), stdout=asyncio.subprocess.PIPE
    )
    words, _ = await asyncio.wait_for(running.communicate(), 60)
    assert (running.returncode, words.decode()) == (0, ANSWER)
    with wave.open(str(answer)) as file:
        heard = audio.from_int16(np.frombuffer(file.readframes(file.getnframes()), "<i2"))
    assert Recogniser().hear(heard) == ANSWER


async def test_a_long_answer_is_interrupted(pico: Server) -> None:
    """By voice: the model stops, and the client is told that it was cut off, and that the user speaks."""
    async with talk(pico) as talking:
        talking.say(LONG)
        await until(lambda: "three" in talking.words, "the beginning of the answer", 60)
        talking.say("stop")
        await until(lambda: "response.done" in talking.types(), "its end", 60)
        assert "ten" not in talking.words


async def test_a_long_answer_is_cancelled(pico: Server) -> None:
    """By the program: nothing more of it is heard, and the next question has its answer."""
    async with talk(pico) as talking:
        talking.say(LONG)
        await until(lambda: "three" in talking.words, "the beginning of the answer", 60)
        await talking.connection.response.cancel()
        await until(lambda: "response.done" in talking.types(), "its end", 60)
        heard = talking.heard.size
        talking.say("stop", then_quiet_s=2.0)  # in which it falls silent
        talking.said.clear()
        for _ in range(TRIES):
            talking.say(QUESTION)
            with contextlib.suppress(AssertionError):
                await until(lambda: ANSWER in talking.words, "an answer", 15)
                break
        assert ANSWER in talking.words
        assert talking.heard.size > heard


async def test_a_runner_of_openai_agents(pico: Server) -> None:
    """Of OpenAI's agents in Python, which hold each event against strict types, and make a history of them."""
    url = f"ws://127.0.0.1:{pico.port}/v1/realtime?model=gpt-realtime"
    runner = RealtimeRunner(RealtimeAgent(name="Pico", instructions="Be kind."))
    sound: list[bytes] = []
    seen: list[RealtimeSessionEvent] = []
    history: list[str] = []

    async def listen(session: RealtimeSession) -> None:
        async for event in session:
            match event:
                case RealtimeAudio(audio=said):
                    sound.append(said.data)
                case RealtimeHistoryUpdated(history=items):
                    history[:] = [f"{item.role} {item.status}" for item in items if item.type == "message"]
                case _:
                    seen.append(event)

    async with await runner.run(model_config={"url": url, "api_key": "any"}) as session:
        listening = asyncio.create_task(listen(session))
        pcm = audio.to_int16(np.pad(spoken(QUESTION), (0, audio.MODEL_RATE_HZ))).tobytes()
        for start in range(0, len(pcm), 9600):
            await session.send_audio(pcm[start : start + 9600])
        await until(lambda: any(isinstance(event, RealtimeAgentEndEvent) for event in seen), "the end of its turn", 60)
        await until(lambda: "assistant completed" in history, "the answer in the history")
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    troubles = [event for event in seen if isinstance(event, RealtimeError) or _is_trouble(event)]
    assert not troubles, troubles
    heard = audio.from_int16(np.frombuffer(b"".join(sound), "<i2"))
    assert Recogniser().hear(heard) == ANSWER


def _is_trouble(event: RealtimeSessionEvent) -> bool:
    return isinstance(event, RealtimeRawModelEvent) and event.data.type in ("error", "exception")


async def test_both_sides_are_written_down() -> None:
    """With the bundled models: the user's words belong to the user's item."""
    need_commands("espeak-ng")
    limits = ("--device", "cpu", "--slots", "1", "--stt-slots", "1", "--max-step-ms", "100000", "--allow-slow")
    async with running_server("--model", "pico", *limits) as server, talk(server) as talking:
        transcription = {"input": {"transcription": {"model": "gpt-4o-transcribe"}}}
        await talking.connection.session.update(session={"type": "realtime", "audio": transcription})  # type: ignore[typeddict-item]
        await until(lambda: talking.types().count("session.updated") == 2, "the settings")
        await until(lambda: server.engines["transcribe"].slots_used == 1, "captions", 30)
        talking.say(QUESTION)
        completed = "conversation.item.input_audio_transcription.completed"
        await until(lambda: completed in talking.types(), "the question", 60)
        (heard,) = [event for event in talking.said if event.type == completed]
        (item,) = [event.item for event in talking.said if event.type == "conversation.item.done" and _is_user(event)]
        assert (heard.transcript, heard.item_id) == (QUESTION, item.id)
        await until(lambda: talking.words, "an answer", 60)


def _is_user(event: Any) -> bool:
    return bool(event.item.role == "user")


async def asked(pico: Server, directory: Path, program: str, url: str) -> None:
    """A framework asks what is in one file, prints the words of the answer, and writes its sound into another."""
    question, answer = directory / "question.wav", directory / "answer.wav"
    write_wav(question, np.pad(spoken(QUESTION), (audio.MODEL_RATE_HZ, 0)), audio.MODEL_RATE_HZ)
    process = await asyncio.create_subprocess_exec(
        *(need_agents(), HERE / program, url, question, answer),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        words, complaints = await asyncio.wait_for(process.communicate(), 90)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, complaints.decode()
    assert words.decode().strip() == ANSWER
    with wave.open(str(answer)) as file:
        heard = audio.from_int16(np.frombuffer(file.readframes(file.getnframes()), "<i2"))
    assert Recogniser().hear(heard) == ANSWER
    await until(lambda: len(pico.registry) == 0, "the end")


async def test_pipecat(pico: Server, tmp_path: Path) -> None:
    await asked(pico, tmp_path, "pipecat_realtime_apart.py", f"ws://127.0.0.1:{pico.port}/v1/realtime")


async def test_livekit_agents(pico: Server, tmp_path: Path) -> None:
    await asked(pico, tmp_path, "livekit_realtime_apart.py", f"http://127.0.0.1:{pico.port}/v1")


PERIOD_S: Final = 8.0
"""Chromium says its file over and over: a question, then time for the answer."""
_PAGE: Final = """
<!doctype html>
<script type="importmap">{"imports": {
  "@openai/agents-realtime": "/foreign/@openai/agents-realtime/dist/bundle/openai-realtime-agents.mjs"
}}</script>
<audio autoplay></audio>
<script type="module">
import { converse } from '/foreign/realtime.js';
window.words = '';
window.run = async (key) => {
  const audio = document.querySelector('audio');
  window.session = await converse(`${location.origin}/v1`, key, audio, (delta) => { window.words += delta; });
  window.__voice = { pc: window.session.transport.connectionState.peerConnection };
};
window.ready = true;
</script>
"""


@pytest.mark.browser
async def test_agents_realtime_in_chromium(pico: Server, tmp_path: Path) -> None:
    """OpenAI's agents for browsers, as docs/doors.md has them, with a client secret."""
    need_package("@openai/agents-realtime")
    need_commands("chromium")
    pcm = np.asarray(soxr.resample(spoken(QUESTION), audio.MODEL_RATE_HZ, SPEECH_HZ), dtype=np.float32)
    pcm = np.pad(pcm, (SPEECH_HZ, 0))
    microphone = write_wav(tmp_path / "question.wav", np.pad(pcm, (0, round(PERIOD_S * SPEECH_HZ) - pcm.size)))
    (code,) = [block for block in blocks("js", DOORS) if "realtime.js" in block.split("\n", 1)[0]]
    base = f"http://localhost:{pico.port}"

    async def give(route: Route) -> None:
        name = route.request.url.removeprefix(f"{base}/foreign/")
        if name == "page.html":
            await route.fulfill(content_type="text/html", body=_PAGE)
        elif name == "realtime.js":
            await route.fulfill(content_type="text/javascript", body=code)
        else:
            await route.fulfill(content_type="text/javascript", body=(JS / "node_modules" / name).read_text())

    async with AsyncOpenAI(base_url=f"{base}/v1", api_key="any") as client:
        secret = await client.realtime.client_secrets.create(session={"type": "realtime", "model": "gpt-realtime"})
    async with chromium(microphone) as browser:
        page = await browser.new_page()
        complaints = watch(page, tolerate=("favicon",))
        await page.route(f"{base}/foreign/**", give)
        await page.goto(f"{base}/foreign/page.html")
        await page.wait_for_function("window.ready")
        await page.evaluate("(key) => run(key)", secret.value)
        assert (await page.evaluate("session.transport.callId")).startswith("rtc_")
        recording = await record(page, 2 * PERIOD_S)
        await page.wait_for_function(f"window.words.includes('{ANSWER}')")
        history = await page.evaluate("session.history.map(({ role, status }) => `${role} ${status}`)")
        assert {"user completed", "assistant completed"} <= set(history)
        await page.evaluate("session.close()")
        await until(lambda: len(pico.registry) == 0, "the end")
    assert not complaints, complaints
    played = np.asarray(soxr.resample(recording.played, SPEECH_HZ, audio.MODEL_RATE_HZ), dtype=np.float32)
    assert ANSWER in Recogniser().hear(played)
