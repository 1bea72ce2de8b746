"""OpenAI's client in a translation session: what is said in English is read and heard in Portuguese, to its end."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import numpy as np
import pytest
from openai import AsyncOpenAI

from lab.speech.clips import SPEECH_HZ, speak
from rtc_server.app import Server
from rtc_server.audio import MODEL_RATE_HZ, Resampler, from_int16, level_dbfs
from tests.support.openai_realtime import pcm16
from tests.support.rooms import talking_rooms

pytestmark = pytest.mark.alone
SAID = "what is three plus four"
CHUNK = 4800
"""200 ms."""


def client_of(server: Server) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="any")


async def translated(server: Server, target: str) -> list[Any]:
    """The events of a session in which a sentence is said and the goodbye after it."""
    resampled = Resampler(SPEECH_HZ, MODEL_RATE_HZ).process(speak(SAID, "en-us"))
    pcm = np.concatenate((np.zeros(12_000, np.float32), resampled))
    told: list[Any] = []
    async with (
        asyncio.timeout(90),
        client_of(server) as client,
        client.realtime.translations.connect(model="gpt-realtime-translate", max_retries=0) as connection,
    ):
        told.append(await connection.recv())
        wish: Any = {"output": {"language": target}, "input": {"transcription": {"model": "gpt-realtime-whisper"}}}
        await connection.send({"type": "session.update", "session": {"audio": wish}})
        for start in range(0, pcm.size, CHUNK):
            piece = pcm16(pcm[start : start + CHUNK])
            await connection.send({"type": "session.input_audio_buffer.append", "audio": piece})
        await connection.send({"type": "session.close"})
        while told[-1].type != "session.closed":
            told.append(await connection.recv())
    return told


async def test_english_is_read_and_heard_in_portuguese() -> None:
    async with talking_rooms() as server:
        told = await translated(server, "pt-BR")
    created, updated = told[:2]
    assert (created.type, created.session.type, created.session.model) == (
        "session.created",
        "translation",
        "gpt-realtime-translate",
    )
    assert (updated.type, updated.session.audio.output.language) == ("session.updated", "pt-BR")

    def text(kind: str) -> str:
        return "".join(event.delta for event in told if event.type == f"session.{kind}_transcript.delta")

    assert text("input").split()[0] == "what"
    assert {"três", "quatro"} & set(text("output").replace("?", "").casefold().split()), "a word may be misheard"
    sounds = [event for event in told if event.type == "session.output_audio.delta"]
    assert {(each.format, each.sample_rate, each.channels) for each in sounds} == {("pcm16", 24_000, 1)}
    heard = from_int16(np.frombuffer(b"".join(base64.b64decode(each.delta) for each in sounds), "<i2"))
    assert 0.5 < heard.size / 24_000 < 10
    assert level_dbfs(heard) > -40
    elapsed = [each.elapsed_ms for each in sounds]
    assert elapsed == sorted(elapsed)
    assert not [event for event in told if event.type == "error"]
