"""OpenAI's own client in Python, unchanged: it asks Pico for a sum, in speech, and hears and reads the answer."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import sys
import time
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection

from lab.pico.recogniser import Recogniser
from lab.waiting import until
from rtc_server import audio
from rtc_server.app import Server
from rtc_server.audio import FRAME_MS, FRAME_SAMPLES, FloatArray
from tests.conftest import need_commands, running_server
from tests.support.calls import ROOT
from tests.support.openai_realtime import pcm16
from tests.support.script import spoken
from tests.test_docs import blocks

QUESTION, ANSWER = "what is three plus four", "that is seven"
LONG = "count to ten"
DOORS = (ROOT / "docs" / "doors.md").read_text()


@pytest.fixture
async def pico() -> AsyncIterator[Server]:
    need_commands("espeak-ng")
    async with running_server("--model", "pico", "--slots", "1", "--stt", "none") as server:
        yield server


class Talk:
    """What a program of a user's does with the connection. ``said``: the events, without the audio."""

    def __init__(self, connection: AsyncRealtimeConnection) -> None:
        self._connection = connection
        self._left = np.zeros(0, np.float32)
        self._sound: list[bytes] = []
        self.said: list[Any] = []

    def say(self, text: str) -> None:
        self._left = np.concatenate((self._left, spoken(text)))

    @property
    def heard(self) -> FloatArray:
        return audio.from_int16(np.frombuffer(b"".join(self._sound), "<i2"))

    @property
    def words(self) -> str:
        return "".join(event.delta for event in self.said if event.type == "response.output_audio_transcript.delta")

    def types(self) -> list[str]:
        return [event.type for event in self.said]

    async def microphone(self) -> None:
        due = time.monotonic()
        while True:
            frame, self._left = self._left[:FRAME_SAMPLES], self._left[FRAME_SAMPLES:]
            frame = np.pad(frame, (0, FRAME_SAMPLES - frame.size))
            await self._connection.input_audio_buffer.append(audio=pcm16(frame))
            due += FRAME_MS / 1000
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def loudspeaker(self) -> None:
        async for event in self._connection:
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
        await talking._connection.response.cancel()
        await until(lambda: "response.done" in talking.types(), "its end", 60)
        heard = talking.heard.size
        talking.say("stop")
        talking.said.clear()
        talking.say(QUESTION)
        await until(lambda: ANSWER in talking.words, "an answer", 60)
        assert talking.heard.size > heard
