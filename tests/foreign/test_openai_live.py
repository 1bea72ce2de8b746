"""OpenAI Live by OpenAI's own package in Python, with nothing changed but a base URL and a key."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator

import numpy as np
import pytest
from openai import AsyncOpenAI
from openai.resources.live.live import AsyncLiveConnection

from rtc_server.app import Server
from rtc_server.audio import FRAME_MS, FRAME_SAMPLES, FloatArray, from_int16, to_int16
from tests.conftest import need_commands, running_server
from tests.support.calls import until
from tests.support.script import spoken
from training.recognise import Recogniser

QUESTION, ANSWER = "what is three plus four", "that is seven"


@pytest.fixture
async def pico() -> AsyncIterator[Server]:
    need_commands("espeak-ng")
    async with running_server("--model", "pico", "--slots", "1", "--stt", "none") as server:
        yield server


class Conversation:
    """Talks as a microphone does, and keeps what comes: all ``types``, the transcript, and the voice."""

    def __init__(self, connection: AsyncLiveConnection) -> None:
        self.types: list[str] = []
        self.text = ""
        self._connection = connection
        self._heard: list[FloatArray] = []
        self._left = np.zeros(0, np.float32)

    @property
    def heard(self) -> FloatArray:
        return np.concatenate([np.zeros(0, np.float32), *self._heard])

    def ask(self, question: str) -> None:
        self._left = spoken(question)

    async def listen(self) -> None:
        async for event in self._connection:
            self.types.append(event.type)
            if event.type == "session.output_audio.delta":
                self._heard.append(from_int16(np.frombuffer(base64.b64decode(event.delta), np.int16)))
            elif event.type == "session.output_transcript.delta":
                self.text += event.delta

    async def talk(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            pcm, self._left = self._left[:FRAME_SAMPLES], self._left[FRAME_SAMPLES:]
            frame = to_int16(np.pad(pcm, (0, FRAME_SAMPLES - pcm.size))).tobytes()
            await self._connection.session.input_audio.append(audio=base64.b64encode(frame).decode())
            due += FRAME_MS / 1000
            await asyncio.sleep(max(0.0, due - loop.time()))


async def test_a_sum_is_answered_in_words_and_by_voice(pico: Server) -> None:
    client = AsyncOpenAI(base_url=f"http://127.0.0.1:{pico.port}/v1", api_key="any key")
    async with client, client.live.connect() as connection:
        conversation = Conversation(connection)
        listening = asyncio.create_task(conversation.listen())
        await connection.session.start(session={"model": "gpt-live-1", "instructions": "Be brief."})
        await until(lambda: "session.started" in conversation.types, "the start")
        talking = asyncio.create_task(conversation.talk())
        await until(lambda: conversation.heard.size > FRAME_SAMPLES, "a connection that carries sound")
        asked = conversation.heard.size
        conversation.ask(QUESTION)
        await until(lambda: conversation.text.strip() == ANSWER, "the answer in words", 30.0)
        written = conversation.heard.size
        await until(lambda: conversation.heard.size > written + 36_000, "the answer's end")
        talking.cancel()
        await connection.session.close()
        await asyncio.wait_for(listening, 10)
        assert conversation.types[-1] == "session.closed"
        assert Recogniser().hear(conversation.heard[asked:]) == ANSWER
    await until(lambda: len(pico.registry) == 0, "the end")
