"""OpenAI Live by WebSocket: bad events, floods, and clients that do not read or leave."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from pathlib import Path

import aiohttp
import pytest

from lab.waiting import until
from rtc_server.access import credentials
from rtc_server.app import Server
from rtc_server.audio import FRAME_SAMPLES, MODEL_RATE_HZ
from rtc_server.endpoints import socket_transport
from rtc_server.endpoints.socket_transport import SocketTransport
from rtc_server.engine.local import LocalLink
from rtc_server.protocols.openai.events import MAX_EVENT_BYTES
from rtc_server.sessions.session import MAX_BAD_MESSAGES
from tests.conftest import NO_GRACE, running_server, server_with
from tests.integration.test_moshi import Tone
from tests.support.fake_models import CountingModel, DyingModel
from tests.support.leftovers import leaves_nothing
from tests.support.live import live_client
from tests.support.live_talk import at, closed
from tests.support.pace import dropped_s

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('{"type":"session.input_audio.append","audio":"' + base64.b64encode(b"odd").decode() + '"}', "invalid_value"),
        ('{"type":"session.input_audio.append","audio":"%%%%"}', "invalid_value"),
        ('{"type":"session.input_audio.append"}', "missing_required_parameter"),
        ('{"type":"session.start","session":{"model":"echo"}}', "session_already_started"),
        ('{"type":"response.create"}', "unsupported_event"),
        ('{"type":"session.commentary.append","content":"x","delegation_id":null}', "unsupported"),
        ('{"type":"nonsense"}', "unknown_event"),
        ("nonsense", "invalid_json"),
        (b"\0", "invalid_json"),
        ('{"type":"session.update","session":' + '{"x":' * 5000, "invalid_json"),
        ('{"type":"session.update","session":{"triggers":[' + "[" * 50 + "]" * 50 + "]}}", "invalid_value"),
        ('{"type":"session.input_audio.append","audio":"' + "A" * MAX_EVENT_BYTES + '"}', "too_large"),
    ],
)
async def test_an_event_that_is_refused_costs_an_answer(server: Server, message: str | bytes, code: str) -> None:
    async with leaves_nothing(server), live_client(at(server), Tone(440)) as client:
        await until(lambda: client.heard.size > 0, "a voice")
        await (client.socket.send_bytes(message) if isinstance(message, bytes) else client.socket.send_str(message))
        await client.wait_for("error")
        assert client.codes() == [code]
        heard = client.heard.size
        await until(lambda: client.heard.size > heard + 5 * FRAME_SAMPLES, "a voice that goes on")


async def test_fifteen_mebibytes_at_once_end_it_and_hold_up_no_other(server: Server) -> None:
    """One that still sends when the server has closed may see the connection break instead of the code."""
    async with leaves_nothing(server), live_client(at(server), Tone(440)) as other:
        async with live_client(at(server), talks=False) as client:
            await client.wait_for("session.started")
            audio = "A" * (15 * 1024 * 1024)
            with contextlib.suppress(ConnectionError, aiohttp.ClientError):
                await client.socket.send_str(json.dumps({"type": "session.input_audio.append", "audio": audio}))
            assert await closed(client) in (aiohttp.WSCloseCode.MESSAGE_TOO_BIG, aiohttp.WSCloseCode.ABNORMAL_CLOSURE)
        await until(lambda: len(server.registry) == 1, "the session to end")
        heard = other.heard.size
        await until(lambda: other.heard.size > heard + 5 * FRAME_SAMPLES, "the voice of another")


async def test_too_many_bad_events_end_it(server: Server) -> None:
    async with leaves_nothing(server), live_client(at(server), talks=False) as client:
        await client.wait_for("session.started")
        for _ in range(MAX_BAD_MESSAGES):
            await client.say("nonsense")
        assert await closed(client) == aiohttp.WSCloseCode.POLICY_VIOLATION
        assert client.events[-1]["type"] == "session.closed"
        assert set(client.codes()) == {"unknown_event", "rate_limit_exceeded"}


async def test_a_minute_of_audio_at_once_does_not_run_ahead(server: Server) -> None:
    """The newest of it is heard, what is too much is dropped and counted, and who speaks then is heard at once."""
    async with leaves_nothing(server), live_client(at(server), talks=False) as client:
        await client.wait_for("session.started")
        noise = Tone(440)(60 * MODEL_RATE_HZ)
        for start in range(0, noise.size, 2400):
            await client.append(noise[start : start + 2400])
        (session,) = server.registry
        await until(lambda: client.all("error"), "the drops to be told")
        assert client.codes() == ["rate_limit_exceeded"]
        await client.say("session.update", session={})  # as pings are, what stands behind it is read
        await client.wait_for("session.updated")
        await until(lambda: client.chunks and not any(client.chunks[-1]), "the end of what was left of it")
        loud = sum(any(chunk) for chunk in client.chunks)
        assert loud < 60, "of 750 frames"
        assert session.user_audio.microphone.dropped > 100
        await client.append(Tone(880)(10 * FRAME_SAMPLES))
        before = len(client.chunks)
        await until(lambda: any(any(chunk) for chunk in client.chunks[before:]), "a voice")
    assert 50 < dropped_s(server, "openai_live") < 61


async def test_a_client_that_never_reads(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_transport, "_HEARTBEAT_S", 0.5)
    async with leaves_nothing(server), live_client(at(server), talks=False) as client:
        await client.wait_for("session.started")
        client.socket._response.connection.transport.pause_reading()  # type: ignore[union-attr]
        await client.append(Tone(440)(FRAME_SAMPLES))
        await until(lambda: len(server.registry) == 0, "the session to end")


async def test_a_client_that_reads_no_answers_costs_a_bounded_queue(server: Server) -> None:
    """Answers of 60 kB each, asked for as fast as they may be."""
    async with leaves_nothing(server), live_client(at(server), talks=False) as client:
        await client.wait_for("session.started")
        (session,) = server.registry
        transport = session.transport
        assert isinstance(transport, SocketTransport)
        client.socket._response.connection.transport.pause_reading()  # type: ignore[union-attr]
        most = 0
        triggers = ["x" * 60_000]
        while len(server.registry):
            with contextlib.suppress(ConnectionError):  # it may be cut off before its session is forgotten
                await client.say("session.update", session={"triggers": triggers})
            most = max(most, transport._texts.bytes)
            await asyncio.sleep(0.02)
        assert most < 1_200_000


async def test_a_client_that_vanishes(server: Server) -> None:
    async with leaves_nothing(server), live_client(at(server), Tone(440)) as client:
        await until(lambda: client.heard.size > 0, "a voice")
        client.socket._response.connection.transport.abort()  # type: ignore[union-attr]
        await until(lambda: len(server.registry) == 0, "the session to end")


async def test_a_client_that_leaves_without_a_word(server: Server) -> None:
    async with leaves_nothing(server), live_client(at(server), Tone(440)) as client:
        await until(lambda: client.heard.size > 0, "a voice")
        await client.socket.close()
        await until(lambda: len(server.registry) == 0, "the session to end")


async def test_one_that_sends_no_audio_keeps_its_place_for_a_while() -> None:
    async with (
        running_server("--model", "echo", "--connect-timeout-s", "1") as server,
        live_client(at(server), talks=False) as client,
    ):
        assert await closed(client) == aiohttp.WSCloseCode.POLICY_VIOLATION
        assert client.events[-1]["reason"] == "connection_lost"


async def test_a_full_server_says_so() -> None:
    async with running_server("--model", "echo", "--echo-slots", "1") as server, live_client(at(server)) as first:
        await first.wait_for("session.started")
        async with live_client(at(server)) as second:
            assert await closed(second) == aiohttp.WSCloseCode.TRY_AGAIN_LATER
            assert second.codes() == ["server_full"]


async def test_a_model_that_is_not_loaded_says_so() -> None:
    async with server_with({"dialogue": lambda: LocalLink(lambda: CountingModel(1))}) as server:
        await server.engines["dialogue"].close()
        async with live_client(at(server)) as client:
            assert await closed(client) == aiohttp.WSCloseCode.TRY_AGAIN_LATER
            assert client.codes() == ["engine_unavailable"]


async def test_a_model_that_dies_ends_it_with_a_reason() -> None:
    async with (
        server_with({"dialogue": lambda: LocalLink(lambda: DyingModel(1))}, *NO_GRACE) as server,
        live_client(at(server), Tone(440)) as client,
    ):
        assert await closed(client) == aiohttp.WSCloseCode.INTERNAL_ERROR
        assert client.codes() == ["engine_failed"]
        assert client.events[-1]["reason"] == "connection_lost"


async def test_a_server_that_stops_says_goodbye() -> None:
    async with running_server("--model", "echo") as server, live_client(at(server), Tone(440)) as client:
        await until(lambda: client.heard.size > 0, "a voice")
        stopping = asyncio.create_task(server.stop(0.0))
        assert await closed(client) == aiohttp.WSCloseCode.GOING_AWAY
        assert client.codes() == ["draining"]
        assert client.events[-1]["type"] == "session.closed"
        await stopping


async def test_keys(tmp_path: Path) -> None:
    """By the header, and as browsers send them, of which none comes back; none, or a foreign one, is refused."""
    key, path = credentials.new_key(), tmp_path / "auth.toml"
    path.write_text(f'[[keys]]\nname = "page"\nhash = "{credentials.hash_of(key)}"\n')
    async with running_server("--model", "echo", "--auth", str(path)) as server:
        for headers in ({}, {"Authorization": "Bearer sk-foreign"}):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with live_client(at(server), headers=headers):
                    pass
            assert refused.value.status == 401
        async with live_client(at(server), headers={"Authorization": f"Bearer {key}"}) as client:
            await client.wait_for("session.started")
        offered = ("realtime", f"openai-insecure-api-key.{key}")
        async with live_client(at(server), protocols=offered) as client:
            await client.wait_for("session.started")
            assert client.socket.protocol == "realtime"


async def test_without_auth_any_key_is_taken(server: Server) -> None:
    async with live_client(at(server), headers={"Authorization": "Bearer sk-whatever"}) as client:
        await client.wait_for("session.started")
