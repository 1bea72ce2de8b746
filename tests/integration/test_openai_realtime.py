"""OpenAI Realtime over real sockets: what its clients rely on, and what strangers send."""

from __future__ import annotations

import asyncio
import base64
import time

import numpy as np
import pytest

from lab.sound.tones import ends_in_tone, pitch_hz
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.audio import MODEL_RATE_HZ, FloatArray
from rtc_server.engine.local import LocalLink
from rtc_server.media.g711 import ALAW, ULAW, Companding
from tests.conftest import server_with
from tests.integration.test_moshi import Tone
from tests.support.asr import asr_server
from tests.support.fake_models import CountingModel
from tests.support.leftovers import leaves_nothing
from tests.support.openai_realtime import realtime_client
from tests.support.openai_realtime_talk import url
from tests.support.parrot import Parrot


async def test_a_voice_comes_back_as_a_response(server: Server) -> None:
    """The session is there at once; then the voice, at its pitch, and its end when it falls silent."""
    tone = Tone(440)
    quiet = asyncio.Event()

    def microphone(samples: int) -> FloatArray:
        return np.zeros(samples, np.float32) if quiet.is_set() else tone(samples)

    async with leaves_nothing(server), realtime_client(url(server), microphone) as client:
        session = (await client.comes("session.created"))["session"]
        assert (session["model"], session["type"]) == ("gpt-realtime", "realtime")
        assert abs(session["expires_at"] - time.time() - server.settings.max_session_s) < 60
        await until(lambda: ends_in_tone(client.heard, 440), "a second of the tone")
        quiet.set()
        response = (await client.comes("response.done"))["response"]
        assert response["status"] == "completed"
        assert client.types[:5] == [
            "session.created",
            "response.created",
            "response.output_item.added",
            "conversation.item.added",
            "response.content_part.added",
        ]


@pytest.mark.parametrize(("kind", "law"), [("audio/pcmu", ULAW), ("audio/pcma", ALAW)], ids=["pcmu", "pcma"])
async def test_telephone_formats(server: Server, kind: str, law: Companding) -> None:
    """Both ways: a byte a sample, at 8 kHz."""
    async with leaves_nothing(server), realtime_client(url(server), None) as client:
        formats = {"input": {"format": {"type": kind}}, "output": {"format": {"type": kind}}}
        await client.send("session.update", session={"type": "realtime", "audio": formats})
        await client.comes("session.updated")
        tone = law.encode(Tone(440)(3 * MODEL_RATE_HZ)[::3])
        await client.send("input_audio_buffer.append", audio=base64.b64encode(tone).decode())
        await until(lambda: len(b"".join(client.sound)) > 16_000, "two seconds of voice")
        heard = np.repeat(law.decode(b"".join(client.sound)), 3)
        assert pitch_hz(heard[-MODEL_RATE_HZ:]) == pytest.approx(440, abs=3)


async def test_what_the_model_writes() -> None:
    """A model that counts its frames, without a pause and without a voice."""
    async with server_with({"dialogue": lambda: LocalLink(lambda: CountingModel(1))}) as server, leaves_nothing(server):
        async with realtime_client(url(server)) as client:
            await until(lambda: client.types.count("response.output_audio_transcript.delta") > 5, "words")
            deltas = [event["delta"] for event in client.said if event["type"].endswith("transcript.delta")]
            words = [int(word) for word in "".join(deltas).split()]
            assert words == list(range(1, len(words) + 1))
        await until(lambda: server.engines["dialogue"].slots_used == 0, "the slot to be free")


async def test_a_service_that_transcribes() -> None:
    async with asr_server(Parrot, None) as server:
        async with realtime_client(url(server, "?model=gpt-realtime-whisper"), Tone(440)) as client:
            assert (await client.comes("session.created"))["session"]["type"] == "transcription"
        await until(lambda: server.engines["transcribe"].slots_used == 0, "the slot to be free")


async def test_a_question_at_once_is_heard_whole_and_in_real_time(server: Server) -> None:
    """Three seconds in one event."""
    async with leaves_nothing(server), realtime_client(url(server), None) as client:
        began_at = time.monotonic()
        await client.append(Tone(440)(3 * MODEL_RATE_HZ))
        await until(lambda: client.heard.size >= 2.9 * MODEL_RATE_HZ, "all of the voice")
        assert time.monotonic() - began_at > 2.5
        (session,) = server.registry
        microphone = session.user_audio.microphone
        assert microphone.dropped <= microphone.filled  # of a loop that stood still, silence at most


async def test_a_browser_gets_the_subprotocol_that_is_no_key(server: Server) -> None:
    offered = ["realtime", "openai-insecure-api-key.secret-of-a-page", "openai-agents-sdk.0.20.0"]
    async with realtime_client(url(server), None, protocols=offered) as client:
        assert client.socket.protocol == "realtime"
        await client.comes("session.created")
