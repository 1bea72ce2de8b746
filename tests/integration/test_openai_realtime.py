"""OpenAI Realtime over real sockets: what its clients rely on, and what strangers send."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from lab.sound.tones import pitch_hz
from lab.waiting import until
from rtc_server.access import credentials
from rtc_server.app import Server
from rtc_server.audio import MODEL_RATE_HZ, FloatArray
from rtc_server.endpoints import openai_realtime as endpoint
from rtc_server.endpoints import openai_realtime_talk as talk
from rtc_server.endpoints import socket_transport
from rtc_server.engine.local import LocalLink
from rtc_server.media.g711 import ALAW, ULAW, Companding
from rtc_server.sessions.session import MAX_BAD_MESSAGES
from tests.conftest import running_server, server_with
from tests.integration.test_moshi import Tone
from tests.support.asr import asr_server
from tests.support.fake_models import CountingModel, DyingModel
from tests.support.leftovers import leaves_nothing
from tests.support.openai_realtime import realtime_client
from tests.support.pace import dropped_s
from tests.support.parrot import Parrot


def url(server: Server, query: str = "?model=gpt-realtime") -> str:
    return f"http://127.0.0.1:{server.port}/v1/realtime{query}"


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
        await until(lambda: client.heard.size > 2 * MODEL_RATE_HZ, "two seconds of voice")
        assert pitch_hz(client.heard[-MODEL_RATE_HZ:]) == pytest.approx(440, abs=3)
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
        assert session._microphone.dropped == 0


async def test_a_browser_gets_the_subprotocol_that_is_no_key(server: Server) -> None:
    offered = ["realtime", "openai-insecure-api-key.secret-of-a-page", "openai-agents-sdk.0.20.0"]
    async with realtime_client(url(server), None, protocols=offered) as client:
        assert client.socket.protocol == "realtime"
        await client.comes("session.created")


# Bad input.


BAD: dict[str, tuple[dict[str, Any] | str | bytes, str]] = {
    "no JSON": ("{", "invalid_json"),
    "binary": (b"\0\1", "invalid_json"),
    "unknown": ({"type": "response.creat"}, "unknown_event"),
    "no type": ({"audio": ""}, "missing_required_parameter"),
    "too deep": ('{"type": "session.update", "session": {"tools": ' + "[" * 99 + "]" * 99 + "}}", "invalid_value"),
    "not base64": ({"type": "input_audio_buffer.append", "audio": "?"}, "invalid_value"),
    "half a sample": ({"type": "input_audio_buffer.append", "audio": "AAAA"}, "invalid_value"),
    "no such format": (
        {"type": "session.update", "session": {"audio": {"input": {"format": {"type": "audio/opus"}}}}},
        "invalid_value",
    ),
    "nothing to cancel": ({"type": "response.cancel"}, "response_cancel_not_active"),
    "no such item": ({"type": "conversation.item.retrieve", "item_id": "x"}, "item_retrieve_invalid_item_id"),
    "too long": ('{"type": "input_audio_buffer.append", "audio": "' + "A" * 1_100_000 + '"}', "too_large"),
}


async def test_bad_events_cost_nothing_but_themselves(server: Server) -> None:
    """Each is told, with the id that the client gave it; the conversation goes on."""
    async with leaves_nothing(server), realtime_client(url(server), None) as client:
        for message, code in BAD.values():
            client.said.clear()
            if isinstance(message, bytes):
                await client.socket.send_bytes(message)
            elif isinstance(message, str):
                await client.socket.send_str(message)
            else:
                await client.socket.send_str(json.dumps(message | {"event_id": "mine"}))
            event = await client.comes("error")
            assert event["error"]["code"] == code
            assert event["error"]["type"] == "invalid_request_error"
            assert event["error"]["event_id"] == ("mine" if isinstance(message, dict) and "type" in message else None)
        await client.append(Tone(440)(MODEL_RATE_HZ))
        await until(lambda: client.heard.size > 0, "a voice")


async def test_a_second_response_while_one_is_active(server: Server) -> None:
    async with leaves_nothing(server), realtime_client(url(server), Tone(440)) as client:
        await client.comes("response.created")
        await client.send("response.create", event_id="again")
        error = (await client.comes("error"))["error"]
        assert (error["code"], error["event_id"]) == ("conversation_already_has_active_response", "again")


async def test_an_empty_commit(server: Server) -> None:
    async with leaves_nothing(server), realtime_client(url(server), None) as client:
        await client.send("session.update", session={"audio": {"input": {"turn_detection": None}}})
        await client.send("input_audio_buffer.commit")
        assert (await client.comes("error"))["error"]["code"] == "input_audio_buffer_commit_empty"


async def test_fifteen_megabytes_at_once(server: Server) -> None:
    async with leaves_nothing(server), realtime_client(url(server), None) as client:
        with contextlib.suppress(ConnectionError):  # it is closed before all of that has been sent
            await client.send("input_audio_buffer.append", audio="A" * 15 * 1024 * 1024)
        assert await client.listened() in (aiohttp.WSCloseCode.MESSAGE_TOO_BIG, aiohttp.WSCloseCode.ABNORMAL_CLOSURE)


async def test_too_many_bad_events(server: Server) -> None:
    async with leaves_nothing(server), realtime_client(url(server), None) as client:
        for _ in range(MAX_BAD_MESSAGES):
            await client.socket.send_str("{")
        assert await client.listened() == aiohttp.WSCloseCode.POLICY_VIOLATION


async def test_too_many_events(server: Server) -> None:
    async with leaves_nothing(server), realtime_client(url(server), None) as client:
        for _ in range(2 * talk._EVENT_BURST):
            await client.send("input_audio_buffer.clear")
        assert await client.listened() == aiohttp.WSCloseCode.POLICY_VIOLATION


async def test_a_minute_faster_than_real_time(server: Server) -> None:
    """Five times as fast: the model hears no more than time has room for, what is too much is dropped and counted, and
    the conversation goes on with the newest."""
    async with leaves_nothing(server), realtime_client(url(server), None) as client:
        tone, began_at = Tone(440), time.monotonic()
        second = tone(MODEL_RATE_HZ)
        for _ in range(60):
            await client.append(second)
        await until(lambda: client.heard.size > MODEL_RATE_HZ, "a voice")
        assert client.heard.size / MODEL_RATE_HZ < time.monotonic() - began_at + 0.5
        (session,) = server.registry
        figures = await session.stats()
        assert figures.frames_dropped > 300
        await client.send("input_audio_buffer.clear")
        await client.comes("response.done")
    assert 25 < dropped_s(server, "openai_realtime") < 31


async def test_a_flood_of_audio_is_ended(server: Server) -> None:
    second = Tone(440)(10 * MODEL_RATE_HZ)
    async with leaves_nothing(server), realtime_client(url(server), None) as client:
        for _ in range(40):
            await client.append(second)
            if client.socket.closed:
                break
        assert await client.listened() == aiohttp.WSCloseCode.POLICY_VIOLATION
        assert client.last("error")["error"]["code"] == "rate_limited"


async def test_a_client_that_never_reads(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_transport, "_HEARTBEAT_S", 0.5)
    async with leaves_nothing(server), realtime_client(url(server), None) as client:
        await client.send("session.update", session={})
        client.socket._response.connection.transport.pause_reading()  # type: ignore[union-attr]
        await until(lambda: len(server.registry) == 0, "the session to end")


async def test_a_client_that_vanishes(server: Server) -> None:
    async with leaves_nothing(server), realtime_client(url(server), Tone(440)) as client:
        await until(lambda: client.heard.size > 0, "a voice")
        client.socket._response.connection.transport.abort()  # type: ignore[union-attr]
        await until(lambda: len(server.registry) == 0, "the session to end")


async def test_a_client_that_says_nothing_keeps_its_place_for_a_while() -> None:
    async with (
        running_server("--model", "echo", "--connect-timeout-s", "1") as server,
        leaves_nothing(server),
        realtime_client(url(server), None) as client,
    ):
        assert await client.listened() == aiohttp.WSCloseCode.POLICY_VIOLATION


async def test_a_client_that_sends_settings_and_no_audio_is_there() -> None:
    async with (
        running_server("--model", "echo", "--connect-timeout-s", "1") as server,
        leaves_nothing(server),
        realtime_client(url(server), None) as client,
    ):
        await client.send("session.update", session={"instructions": "x"})
        (session,) = server.registry
        await until(lambda: session._stats.frames_in > 20, "time to go on")
        assert not client.socket.closed


# Who comes in.


async def refused(at: str, **more: Any) -> tuple[int, str]:
    """Status and code of a socket that is not opened: as a program gets to know it."""
    async with aiohttp.ClientSession() as http:
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        headers = upgrade | {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="} | more.pop("headers", {})
        async with http.get(at, headers=headers, **more) as response:
            return response.status, (await response.json())["error"]["code"]


async def test_an_unknown_model(server: Server) -> None:
    assert await refused(url(server, "?model=gpt-5")) == (404, "model_not_found")
    origin = {"Origin": f"http://127.0.0.1:{server.port}"}
    async with realtime_client(url(server, "?model=gpt-5"), None, headers=origin) as client:
        assert await client.listened() == aiohttp.WSCloseCode.POLICY_VIOLATION
        assert client.last("error")["error"]["code"] == "model_not_found"


async def test_a_full_server_says_so_before_and_after_the_upgrade() -> None:
    async with running_server("--model", "echo", "--echo-slots", "1") as server, realtime_client(url(server)):
        assert await refused(url(server)) == (503, "server_full")
        origin = {"Origin": f"http://127.0.0.1:{server.port}"}
        async with realtime_client(url(server), None, headers=origin) as client:
            assert await client.listened() == aiohttp.WSCloseCode.TRY_AGAIN_LATER
            assert client.last("error")["error"]["code"] == "server_full"


async def test_a_model_that_is_loading(server: Server) -> None:
    await server.engines["echo"].close()
    assert await refused(url(server)) == (503, "engine_unavailable")


async def test_keys_and_client_secrets(tmp_path: Path) -> None:
    key, path = credentials.new_key(), tmp_path / "auth.toml"
    path.write_text(f'[[keys]]\nname = "page"\nhash = "{credentials.hash_of(key)}"\n')
    async with running_server("--model", "echo", "--auth", str(path)) as server:
        for wrong in (None, "nonsense", "ek_nonsense"):
            headers = {} if wrong is None else {"Authorization": f"Bearer {wrong}"}
            assert await refused(url(server), headers=headers) == (401, "invalid_api_key")
        bearer = {"Authorization": f"Bearer {key}"}
        async with aiohttp.ClientSession() as http:
            secrets_url = f"http://127.0.0.1:{server.port}/v1/realtime/client_secrets"
            body = {"session": {"type": "realtime", "model": "echo"}}
            async with http.post(secrets_url, json=body, headers=bearer) as answer:
                secret = (await answer.json())["value"]
        async with realtime_client(url(server), None, headers=bearer) as client:
            await client.comes("session.created")
        for query in ("", "?model=echo"):
            offered = ["realtime", f"openai-insecure-api-key.{secret}"]
            async with realtime_client(url(server, query), None, protocols=offered) as client:
                assert (await client.comes("session.created"))["session"]["model"] == "echo"
        server.access.today = lambda: time.time() + 601
        assert await refused(url(server), headers={"Authorization": f"Bearer {secret}"}) == (401, "invalid_api_key")


# Ends.


async def test_a_server_that_stops() -> None:
    async with running_server("--model", "echo") as server, realtime_client(url(server), Tone(440)) as client:
        await until(lambda: client.heard.size > 0, "a voice")
        stopping = asyncio.create_task(server.stop(0.0))
        assert await client.listened() == aiohttp.WSCloseCode.GOING_AWAY
        await stopping


async def test_an_engine_that_dies() -> None:
    async with (
        server_with({"dialogue": lambda: LocalLink(lambda: DyingModel(1))}) as server,
        realtime_client(url(server)) as client,
    ):
        assert await client.listened() == aiohttp.WSCloseCode.INTERNAL_ERROR
        assert client.last("response.done")["response"]["status"] == "failed"
        assert client.last("error")["error"]["code"] == "engine_failed"
        assert client.last("error")["error"]["type"] == "server_error"


async def test_the_end_of_the_time() -> None:
    settings = ("--model", "echo", "--max-session-s", "1")
    async with running_server(*settings) as server, realtime_client(url(server)) as client:
        assert await client.listened() == aiohttp.WSCloseCode.OK
        assert client.last("error")["error"]["code"] == "session_expired"


async def test_pings_are_answered_while_audio_waits(server: Server) -> None:
    async with realtime_client(url(server), None) as client:
        await client.append(Tone(440)(10 * MODEL_RATE_HZ))
        (session,) = server.registry
        transport = session.transport
        assert isinstance(transport, endpoint.RealtimeTransport)
        await client.socket.ping()
        await client.send("session.update", session={})
        await client.comes("session.updated")
        assert transport._paced.waiting_s > 1
