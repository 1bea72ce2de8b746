"""Clients of OpenAI Realtime that others wrote, unchanged: each asks Pico for a sum, and hears and reads the answer."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from playwright.async_api import Route

from lab.browsers.chromium import chromium, give_mouth, watch
from lab.pico.recogniser import Recogniser
from lab.waiting import until
from rtc_server import audio
from rtc_server.app import Server
from rtc_server.audio import FRAME_SAMPLES, FloatArray
from tests.conftest import ON_ONE_LOOP, need_commands, running_server
from tests.foreign.agents import need_agents
from tests.foreign.asking import ANSWER, COUNT, QUESTION, STOP, asked, asked_in_page, example, is_cut_short
from tests.foreign.test_clients import HERE, JS, need_package
from tests.support.openai_realtime import pcm16
from tests.support.pace import every_frame
from tests.support.script import spoken

pytestmark = [pytest.mark.alone, ON_ONE_LOOP]

TRIES: Final = 3
"""As a person does, a question is asked again that was not understood just behind a "stop"."""


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
    (tmp_path / "realtime.py").write_text(example("python", "realtime.py"))
    await asked(pico, tmp_path, sys.executable, "realtime.py", url=f"http://127.0.0.1:{pico.port}/v1")


async def frames_pass(pico: Server, frames: int) -> None:
    """So many of the only conversation, from now on."""
    (session,) = pico.registry
    last = session._stats.frames_out + frames
    await until(lambda: session._stats.frames_out > last, "frames")


async def test_a_long_answer_is_interrupted(pico: Server) -> None:
    """By voice: the model stops, and nothing more comes."""
    async with talk(pico) as talking:
        talking.say(COUNT)
        await until(lambda: "three" in talking.words, "the beginning of the answer", 60)
        talking.say(STOP)
        await until(lambda: "response.done" in talking.types(), "its end", 60)
        heard = talking.heard.size
        await frames_pass(pico, 15)
        assert talking.heard.size == heard
        assert is_cut_short(talking.words)


async def test_a_long_answer_is_cancelled(pico: Server) -> None:
    """By the program: nothing more of it is heard, and the next question has its answer."""
    async with talk(pico) as talking:
        talking.say(COUNT)
        await until(lambda: "three" in talking.words, "the beginning of the answer", 60)
        await talking.connection.response.cancel()
        await until(lambda: "response.done" in talking.types(), "its end", 60)
        heard = talking.heard.size
        talking.say(STOP, then_quiet_s=2.0)  # in which it falls silent
        talking.said.clear()
        for _ in range(TRIES):
            talking.say(QUESTION)
            with contextlib.suppress(AssertionError):
                await until(lambda: ANSWER in talking.words, "an answer", 15)
                break
        assert ANSWER in talking.words
        assert talking.heard.size > heard


async def test_a_runner_of_openai_agents(pico: Server) -> None:
    """Of OpenAI's agents in Python, which hold each event against strict types, and make a history of them: a sum, and
    a count that is interrupted."""
    from tests.foreign.openai_agents_run import Run, opened

    url = f"ws://127.0.0.1:{pico.port}/v1/realtime?model=gpt-realtime"
    async with await opened(url) as session:
        run = Run(session)
        tasks = [asyncio.create_task(work()) for work in (run.microphone, run.listen)]
        run.say(QUESTION)
        await until(lambda: run.turns == 1, "the end of its turn", 60)
        await until(lambda: "assistant completed" in run.states, "the answer in the history")
        heard = audio.from_int16(np.frombuffer(run.sound, "<i2"))
        run.words = ""
        run.say(COUNT)
        await until(lambda: "three" in run.words, "the beginning of a count", 60)
        run.say(STOP)
        await until(lambda: run.turns == 2, "its end", 60)
        counted = len(run.sound)
        await frames_pass(pico, 15)
        assert len(run.sound) == counted
        assert is_cut_short(run.words), run.words
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert not run.troubles, run.troubles
    assert Recogniser().hear(heard) == ANSWER


async def test_both_sides_are_written_down() -> None:
    """With the bundled models: the user's words belong to the user's item."""
    need_commands("espeak-ng")
    limits = ("--device", "cpu", "--slots", "1", "--stt-slots", "1", "--max-step-ms", "100000", "--allow-slow")
    async with running_server("--model", "pico", *limits) as server, talk(server) as talking:
        transcription: Any = {"input": {"transcription": {"model": "gpt-4o-transcribe"}}}
        await talking.connection.session.update(session={"type": "realtime", "audio": transcription})
        await until(lambda: talking.types().count("session.updated") == 2, "the settings")
        await until(lambda: server.engines["transcribe"].slots_used == 1, "captions", 30)
        talking.say(QUESTION)
        completed = "conversation.item.input_audio_transcription.completed"
        await until(lambda: completed in talking.types(), "the question", 60)
        (heard,) = [event for event in talking.said if event.type == completed]
        (item,) = [event.item for event in talking.said if event.type == "conversation.item.done" and _is_user(event)]
        assert (heard.transcript, heard.item_id) == (QUESTION, item.id)
        await until(lambda: talking.words == ANSWER, "the answer", 60)


def _is_user(event: Any) -> bool:
    return bool(event.item.role == "user")


async def test_pipecat(pico: Server, tmp_path: Path) -> None:
    url = f"ws://127.0.0.1:{pico.port}/v1/realtime"
    await asked(pico, tmp_path, need_agents(), HERE / "pipecat_realtime_apart.py", url=url, interrupts=True)


async def test_livekit_agents(pico: Server, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{pico.port}/v1"
    await asked(pico, tmp_path, need_agents(), HERE / "livekit_realtime_apart.py", url=url, interrupts=True)


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
async def test_agents_realtime_in_chromium(pico: Server) -> None:
    """OpenAI's agents for browsers, as docs/doors.md has them, with a client secret: a sum, and a count that is
    interrupted."""
    need_package("@openai/agents-realtime")
    need_commands("chromium")
    code = example("js", "realtime.js")
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
    async with chromium() as browser:
        page = await browser.new_page()
        complaints = watch(page, tolerate=("favicon",))
        await give_mouth(page)
        await page.route(f"{base}/foreign/**", give)
        await page.goto(f"{base}/foreign/page.html")
        await page.wait_for_function("window.ready")
        await page.evaluate("(key) => run(key)", secret.value)
        assert (await page.evaluate("session.transport.callId")).startswith("rtc_")
        await asked_in_page(page)
        history = await page.evaluate("session.history.map(({ role, status }) => `${role} ${status}`)")
        assert {"user completed", "assistant completed"} <= set(history)
        await page.evaluate("session.close()")
        await until(lambda: len(pico.registry) == 0, "the end")
    assert not complaints, complaints
