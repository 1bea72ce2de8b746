"""OpenAI Realtime by WebSocket: bad events, floods, and how a session ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any

import aiohttp
import pytest

from lab.waiting import until
from rtc_server.app import Server
from rtc_server.audio import FRAME_MS, MODEL_RATE_HZ
from rtc_server.endpoints import openai_realtime as endpoint
from rtc_server.endpoints import openai_realtime_talk as talk
from rtc_server.endpoints import socket_transport
from rtc_server.engine.local import LocalLink
from rtc_server.protocols.openai.events import MAX_EVENT_BYTES
from rtc_server.sessions.session import MAX_BAD_MESSAGES
from tests.conftest import NO_GRACE, running_server, server_with
from tests.integration.test_moshi import Tone
from tests.support.fake_models import DyingModel
from tests.support.leftovers import leaves_nothing
from tests.support.openai_realtime import realtime_client
from tests.support.openai_realtime_talk import url
from tests.support.pace import dropped_s

pytestmark = pytest.mark.slow

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
    "too long": ('{"type": "input_audio_buffer.append", "audio": "' + "A" * MAX_EVENT_BYTES + '"}', "too_large"),
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


async def test_too_many_events(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talk, "_EVENTS_PER_S", 1)  # the time that it takes to send them must not bring room for as many
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
        room_s = 30 + time.monotonic() - began_at  # what may wait, and what was heard meanwhile
        assert figures.frames_dropped > (59 - room_s) * 1000 / FRAME_MS
        await client.send("input_audio_buffer.clear")
        await client.comes("response.done")
    assert 59 - room_s < dropped_s(server, "openai_realtime") < 31


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


async def test_a_server_that_stops() -> None:
    async with running_server("--model", "echo") as server, realtime_client(url(server), Tone(440)) as client:
        await until(lambda: client.heard.size > 0, "a voice")
        stopping = asyncio.create_task(server.stop(0.0))
        assert await client.listened() == aiohttp.WSCloseCode.GOING_AWAY
        await stopping


async def test_an_engine_that_dies() -> None:
    async with (
        server_with({"dialogue": lambda: LocalLink(lambda: DyingModel(1))}, *NO_GRACE) as server,
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
